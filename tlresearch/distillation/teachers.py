"""Who a teacher is: its backbone, its training and its own teacher, resolved and checked."""

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from tlresearch import schema
from tlresearch.backbones import BACKBONES, build, foreign
from tlresearch.distillation.settings import TeacherSettings
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
    from tlresearch.distillation import METHODS
    from tlresearch.distillation.student import StudentAlone

    own = resolve_backbone(settings, place) or backbone
    given = schema.structure(settings.train, Train, "train", place)
    train = replace(train, **{name: getattr(given, name) for name in settings.train})
    problem = check_train(train)
    if problem:
        raise UserError(f"{place}: {problem}")
    method = StudentAlone()
    if settings.method:
        method = schema.named(settings.method, METHODS, "method", "method", place)
        problem = method.problem()
        if problem:
            raise UserError(f"{place}.method.{problem}")
        if method.made_of_teachers:
            raise UserError(
                f"{place}.method.name: a student of {settings.method['name']!r} is made of its own "
                "teacher's network and teaches no other; choose e.g. kd, or remove the method"
            )
    return Training(own, method, train, settings.shift, settings.flip)


def resolve_backbone(settings: TeacherSettings, place: str) -> Any | None:
    """Settings of the teacher's backbone; None: it has the student's."""
    if settings.checkpoint is not None:
        return BACKBONES[CHECKPOINTS[settings.checkpoint]]()
    if not settings.backbone:
        return None
    found = foreign.backbone(settings.backbone, "backbone", place)
    if found is not None:
        return found
    return schema.named(settings.backbone, BACKBONES, "backbone", "backbone", place)


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


def plain_teacher(
    settings: TeacherSettings, backbone: Any, shape: tuple[int, int, int], classes: int
) -> nn.Module:
    """A network of the teacher's architecture, for the shapes of its features."""
    return build(resolve_backbone(settings, "teacher") or backbone, shape, classes, 0)
