"""Whether the taps of a method name features of its networks that it can compare."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from tlresearch.backbones import build
from tlresearch.distillation.method import DistillationMethod
from tlresearch.distillation.teachers import plain_teacher, resolve
from tlresearch.errors import UserError
from tlresearch.functional.taps import shapes
from tlresearch.training.settings import Train

Shape = tuple[int, int, int]


def check_taps(
    method: DistillationMethod, backbone: Any, train: Train, shape: Shape, classes: int, place: str
) -> None:
    """Tries a method and those that teach its teachers, on networks that nobody trained.

    Args:
        method: whose taps are looked for.
        backbone: the student's.
        train: of the row.
        shape: of an image.
        classes: of the data.
        place: dotted key of the method, for errors.

    Raises:
        UserError: a path names no module, or features cannot be compared; one sentence.
    """
    if not method.taught:
        return
    settings = method.taught_by()
    if method.student_taps:
        teacher = plain_teacher(settings, backbone, shape, classes)
        own = "of_teacher" if getattr(method, "of_teacher", ()) else "student"
        student = build(backbone, shape, classes, 0)
        _find(student, method.student_taps, shape, f"{place}.student: of the student, ")
        _find(teacher, method.teacher_taps, shape, f"{place}.{own}: of the teacher, ")
        try:
            method.networks(backbone, shape, classes, 0)
        except UserError as error:
            raise UserError(f"{place}.student: {error}") from None
    if settings.checkpoint is None:
        below = resolve(settings, backbone, train, f"{place}.teacher")
        if settings.backbone:
            try:
                build(below.backbone, shape, classes, 0)
            except UserError as error:
                raise UserError(f"{place}.teacher.backbone: {error}") from None
        its = f"{place}.teacher.method"
        check_taps(below.method, below.backbone, below.train, shape, classes, its)


def _find(network: nn.Module, paths: Sequence[str], shape: Shape, place: str) -> None:
    try:
        shapes(network, paths, shape)
    except UserError as error:
        raise UserError(f"{place}{error}") from None
