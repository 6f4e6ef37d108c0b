"""What a method of distillation says to its protocol, beyond the common contract."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from tlresearch.distillation.networks import Student
from tlresearch.distillation.settings import TeacherSettings
from tlresearch.functional.losses import cross_entropy
from tlresearch.functional.taps import tapped
from tlresearch.training.method import Loss, Method
from tlresearch.training.tree import Tree

MOST_TAPS = 4
"""Features of the teacher that a batch has room for."""


class TaughtBatch(NamedTuple):
    """A batch and the teacher's answers to it, for one seed (in the loop: the seeds first)."""

    x: Float[Tensor, "batch channels rows columns"]
    y: Int64[Tensor, " batch"]
    teachers: Float[Tensor, "teachers batch classes"] | None
    """Logits of each teacher; None: the method asks for none."""
    places: Int64[Tensor, " batch"]
    """Of the images among the N that are trained on, in [0, N), for methods that remember them; an
    image may be in a batch more than once."""
    progress: Float[Tensor, ""]
    """p, the fraction of the training's steps that are done, in [0, 1)."""
    tap_1: Tensor | None = None
    """The teacher's features, as many as the method taps, (batch, …) each."""
    tap_2: Tensor | None = None
    tap_3: Tensor | None = None
    tap_4: Tensor | None = None

    @property
    def taps(self) -> list[Tensor]:
        """The teacher's features."""
        return [t for t in (self.tap_1, self.tap_2, self.tap_3, self.tap_4) if t is not None]


class Term(NamedTuple):
    """One summand of a loss."""

    weight: Tensor | float
    value: Float[Tensor, ""]


@dataclass(frozen=True)
class DistillationMethod(Method):
    """A student that is trained on labels, here on nothing else."""

    Batch: ClassVar[type] = TaughtBatch
    taught: ClassVar[bool] = False
    """Whether it asks a teacher."""
    least_batch: ClassVar[int] = 1
    """Fewest samples that a batch must have."""
    least_images: ClassVar[int] = 1
    """Fewest images that there must be to train on."""

    @property
    def begins_trained(self) -> bool:
        """Whether students begin with trained weights, so that they are measured before, too."""
        return False

    @property
    def made_of_teachers(self) -> bool:
        """Whether its students are made of their teachers, by a `networks_from` of its own."""
        return type(self).networks_from is not DistillationMethod.networks_from

    def networks(
        self, backbone: Any, shape: tuple[int, int, int], classes: int, seed: int
    ) -> Student:
        """The student with parameters drawn under `seed`; then `extend` adds what else is trained.

        So the student starts with the same weights whatever its method.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = Student(backbone.build(shape), classes)
            self.extend(networks, backbone, shape, classes)
        return networks

    def networks_from(
        self,
        teachers: Sequence[nn.Module],
        backbone: Any,
        shape: tuple[int, int, int],
        classes: int,
        seed: int,
    ) -> Student:
        """`networks`, or what is made of the teachers of that seed, which stay as they are."""
        return self.networks(backbone, shape, classes, seed)

    def extend(
        self, networks: Student, backbone: Any, shape: tuple[int, int, int], classes: int
    ) -> None:
        """Adds modules to `networks.extras`."""

    @property
    def student_taps(self) -> tuple[str, ...]:
        """Paths of the student's features that the terms see."""
        return ()

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        """Paths of the teacher's features, as many."""
        return ()

    def make_room(self, networks: Student, count: int) -> None:
        """Prepares new networks for `count` images to train on; here they remember none."""

    def taught_by(self) -> TeacherSettings:
        """Who teaches, as its training needs it; of a method that is taught."""
        raise NotImplementedError(f"{type(self).__name__} has no teacher")

    def problem(self) -> str | None:
        """What contradicts itself in the settings: one sentence that begins with a key, or None."""
        return None

    def misfit(self, backbone: Any, shape: tuple[int, int, int], classes: int) -> str | None:
        """What does not fit the networks: one sentence that begins with a key, or None."""
        return None

    def terms(
        self, networks: Student, logits: Tensor, features: list[Tensor], batch: TaughtBatch
    ) -> dict[str, Term]:
        """The summands of the loss by name; here of the labels alone.

        Args:
            networks: student and extras.
            logits: the student's.
            features: the student's, in the order of `student_taps`.
            batch: inputs, labels and the teacher's answers.
        """
        return {"cross_entropy": Term(1.0, cross_entropy(logits, batch.y))}

    def loss(self, networks: nn.Module, state: Tree, batch: TaughtBatch) -> Loss:  # type: ignore[override]
        """Σ weight · value over the terms, in nats; the log has the values."""
        assert isinstance(networks, Student)
        with tapped(networks, self.student_taps) as features:
            logits = networks(batch.x)
        seen = [features[path] for path in self.student_taps]
        terms = self.terms(networks, logits, seen, batch)
        total = sum((term.weight * term.value for term in terms.values()), torch.zeros(()))
        return Loss(total, {name: term.value for name, term in terms.items()})


@dataclass(frozen=True)
class TaughtMethod(DistillationMethod):
    """A student with a teacher."""

    taught: ClassVar[bool] = True

    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    """Who teaches; without settings a network like the student, trained on labels."""

    def taught_by(self) -> TeacherSettings:
        """The teacher, resolved to what its training needs."""
        return self.teacher
