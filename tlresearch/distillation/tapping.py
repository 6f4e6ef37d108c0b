"""What methods have in common that compare features of student and teacher."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tlresearch.distillation.kd import Share, soft_targets
from tlresearch.distillation.method import MOST_TAPS, TaughtBatch, TaughtMethod, Term
from tlresearch.distillation.networks import Student
from tlresearch.distillation.teachers import plain_teacher
from tlresearch.functional.losses import cross_entropy
from tlresearch.functional.taps import shapes
from tlresearch.training.settings import NonNegative, Positive


@dataclass(frozen=True)
class TappingMethod(TaughtMethod):
    """Labels, soft targets with weight α, and a loss on features with a weight of its own."""

    student: tuple[str, ...] = ("backbone",)
    """Paths of the student's features, each once, as dotted names of its modules
    (`backbone.layer2`; `backbone` is what the head sees)."""
    of_teacher: tuple[str, ...] = ()
    """Paths of the teacher's features, one for each of the student's; several of the student's may
    learn from one of the teacher's. Empty: the same paths."""
    alpha: Share = 0.0
    """α in [0, 1], the weight of soft targets at `temperature`; the labels have 1 − α."""
    temperature: Positive = 4.0
    """T > 0 of the soft targets, where α is above 0."""
    weight: NonNegative = 1.0
    """β, of the loss on features; with several pairs, of their sum."""

    @property
    def student_taps(self) -> tuple[str, ...]:
        return self.student

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        return self.of_teacher or self.student

    def problem(self) -> str | None:
        if not 1 <= len(self.student) <= MOST_TAPS:
            return f"student: expected 1 to {MOST_TAPS} paths, not {len(self.student)}"
        twice = [path for path in self.student if self.student.count(path) > 1]
        if twice:
            return (
                f"student: the path {twice[0]!r} is there {self.student.count(twice[0])} times; "
                "each of the student's features is compared with one of the teacher's, so name it "
                "once"
            )
        if len(self.teacher_taps) != len(self.student):
            return (
                f"of_teacher: {len(self.of_teacher)} paths for {len(self.student)} of the "
                "student; each needs its counterpart"
            )
        if self.teacher.copies > 1:
            return "teacher.copies: features of several teachers cannot be compared; use 1"
        return None

    def pairs(
        self, networks: Student, backbone: Any, shape: tuple[int, int, int], classes: int
    ) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Shapes of the student's and the teacher's features, by pair, without the batch."""
        ours = shapes(networks, self.student_taps, shape)
        other = plain_teacher(self.teacher, backbone, shape, classes)
        theirs = shapes(other, self.teacher_taps, shape)
        paths = zip(self.student_taps, self.teacher_taps, strict=True)
        return [(ours[mine], theirs[its]) for mine, its in paths]

    def compare(self, networks: Student, features: list[Tensor], batch: TaughtBatch) -> Tensor:
        """The loss on features, unweighted."""
        raise NotImplementedError(f"{type(self).__name__} does not define compare")

    def terms(
        self, networks: Student, logits: Tensor, features: list[Tensor], batch: TaughtBatch
    ) -> dict[str, Term]:
        assert batch.teachers is not None
        soft = soft_targets(logits, batch.teachers, self.temperature)
        return {
            "cross_entropy": Term(1 - self.alpha, cross_entropy(logits, batch.y)),
            "soft_targets": Term(self.alpha, soft),
            "features": Term(self.weight, self.compare(networks, features, batch)),
        }
