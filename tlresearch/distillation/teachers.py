"""Who a teacher is: its backbone, its training and its own teacher, resolved and checked."""

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from tlresearch import own, own_names, schema
from tlresearch.backbones import BACKBONES, build, foreign
from tlresearch.distillation.settings import TeacherSettings
from tlresearch.distillation.student import StudentAlone
from tlresearch.distillation.teacher import TeacherItself
from tlresearch.errors import UserError
from tlresearch.training.settings import Train, check_train

CHECKPOINTS = {"cifar10_resnet20": "resnet20", "cifar10_resnet56": "resnet56"}
"""Published weights, and the backbone that they are of."""


@dataclass(frozen=True)
class Training:
    """A network that is trained to teach: what that depends on, apart from data and seed."""

    backbone: Any
    """Settings of its backbone."""
    method: Any
    """How it learns: a `DistillationMethod`."""
    train: Train
    shift: int
    flip: bool


def resolve(settings: TeacherSettings, backbone: Any, train: Train, place: str) -> Training:
    """The training of a teacher that is trained.

    Args:
        settings: as the experiment has them.
        backbone: the student's, which the teacher has if it has none of its own.
        train: of the row, over which the teacher's own settings go.
        place: dotted key of the settings, for errors.

    Raises:
        UserError: a setting is unknown, of the wrong type or contradicts another; one sentence.
    """
    its = resolve_backbone(settings, place) or backbone
    train = _training(settings, train, place)
    method = _method(settings.method, place) if settings.method else StudentAlone()
    return Training(its, method, train, settings.shift, settings.flip)


def _training(settings: TeacherSettings, train: Train, place: str) -> Train:
    """That of the row, with the teacher's own settings over it."""
    given = schema.structure(settings.train, Train, "train", place)
    if "stack" in settings.train:
        raise UserError(
            f"{place}.train.stack: each teacher trains by itself, one seed at a time, and nothing "
            "reads it; remove the key"
        )
    its = replace(train, **{name: getattr(given, name) for name in settings.train})
    problem = check_train(its)
    if problem:
        raise UserError(f"{place}: {problem}")
    if (its.precision == "fp64") != (train.precision == "fp64"):
        raise UserError(
            f"{place}.train.precision: student and teacher see the same images, in the type of the "
            f"student's {train.precision}, and the teacher's is {its.precision}; give both fp64, "
            "or none"
        )
    return its


def _method(raw: dict[str, Any], place: str) -> Any:
    """How a teacher is taught, refused if it cannot be."""
    from tlresearch.distillation import METHODS

    name = raw.get("name")
    if own.is_own(name):
        raise UserError(
            f"{place}.method.name: a teacher is taught by a method of ours, not by own code such "
            f"as {str(name)!r}; choose e.g. kd, or give the own method a row of its own"
        )
    method = schema.named(raw, METHODS, "method", "method", place)
    if isinstance(method, TeacherItself):
        raise UserError(
            f"{place}.method.name: 'teacher' is a row that measures a teacher and teaches nothing; "
            "choose e.g. kd, or remove the method"
        )
    problem = method.problem()
    if problem:
        raise UserError(f"{place}.method.{problem}")
    if method.made_of_teachers:
        raise UserError(
            f"{place}.method.name: a student of {name!r} is made of its own teacher's network and "
            "teaches no other; choose e.g. kd, or remove the method"
        )
    return method


def resolve_backbone(settings: TeacherSettings, place: str) -> Any | None:
    """Settings of the teacher's backbone; None: it has the student's."""
    if settings.checkpoint is not None:
        return BACKBONES[CHECKPOINTS[settings.checkpoint]]()
    if not settings.backbone:
        return None
    if own.is_own(settings.backbone.get("name")):
        return _own_backbone(settings.backbone, place)
    found = foreign.backbone(settings.backbone, "backbone", place)
    if found is not None:
        return found
    return schema.named(settings.backbone, BACKBONES, "backbone", "backbone", place)


def _own_backbone(raw: dict[str, Any], place: str) -> foreign.Foreign:
    """As `foreign.backbone`, of the folder and the code that the name has kept."""
    name, at = raw["name"], f"{place}.backbone"
    kind = own_names.once(name, lambda folder: foreign.settings_class(str(name), folder, at))
    given = {key: value for key, value in raw.items() if key != "name"}
    with own.blamed(f"{at}: {name} refuses its settings"):
        return foreign.Foreign(str(name), schema.structure(given, kind, "backbone", place))


def problem(settings: TeacherSettings) -> str | None:
    """What contradicts itself: one sentence that begins with a key, or None."""
    if settings.checkpoint is None:
        return None
    fresh = TeacherSettings(checkpoint=settings.checkpoint)
    for name in ("backbone", "train", "method", "shift", "flip", "copies", "seed"):
        if getattr(settings, name) != getattr(fresh, name):
            return (
                f"teacher.{name}: the teacher is the published {settings.checkpoint} as it is; "
                f"remove {name} or checkpoint"
            )
    return None


def above(method: Any, backbone: Any, train: Train) -> list[Any]:
    """Settings of the backbones and methods of all who teach a student, the nearest first.

    Args:
        method: the student's; one without a teacher has none above it.
        backbone: the student's.
        train: the student's.

    Raises:
        UserError: as `resolve`.
    """
    found: list[Any] = []
    while method.taught:
        settings = method.taught_by()
        if settings.checkpoint is not None:
            return [*found, resolve_backbone(settings, "teacher")]
        its = resolve(settings, backbone, train, "teacher")
        found += [its.backbone, its.method]
        method, backbone, train = its.method, its.backbone, its.train
    return found


def plain_teacher(
    settings: TeacherSettings, backbone: Any, shape: tuple[int, int, int], classes: int
) -> nn.Module:
    """A network of the teacher's architecture, for the shapes of its features."""
    return build(resolve_backbone(settings, "teacher") or backbone, shape, classes, 0)
