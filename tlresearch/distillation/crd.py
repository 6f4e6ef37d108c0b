"""Contrastive representation distillation (CRD).

Tian, Krishnan and Isola, ICLR 2020, arXiv:1910.10699, eqs. (17) to (19): the student's embedding of
an image tells the teacher's embedding of the same image from those of K others, which are drawn
from a memory of the N images that the student is taught with, on the device; and the same with both
networks exchanged.

Differs from the paper: partition constants are estimated on the first batch, as in the authors'
code; negatives are drawn from all other images, also of the same class, with replacement.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tlresearch.distillation.method import TaughtBatch
from tlresearch.distillation.networks import Student
from tlresearch.distillation.tapping import TappingMethod
from tlresearch.errors import UserError
from tlresearch.functional import random
from tlresearch.functional.contrastive_distillation import (
    Projections,
    contrastive_loss,
    draw_negatives,
    estimate_log_partition,
    new_memory,
    remembered,
)
from tlresearch.training.settings import Count, Fraction, NonNegative, Positive

_UNKNOWN = 1024
"""Images in the memory of networks that are only tried."""


class Memory(nn.Module):
    """Projections of both networks, and what was last seen of each image, as buffers.

    Args:
        student: numbers in the student's feature.
        teacher: numbers in the teacher's.
        dim: of the embeddings.
    """

    key: Tensor
    steps: Tensor
    of_student: Tensor
    of_teacher: Tensor
    log_partitions: Tensor

    def __init__(self, student: int, teacher: int, dim: int) -> None:
        super().__init__()
        self.project = Projections(student, teacher, dim)
        key = torch.randint(2**62, ())  # from the generator of the initialisation
        self.register_buffer("key", key)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("log_partitions", torch.zeros(2))
        self.make_room(_UNKNOWN, dim)

    def make_room(self, images: int, dim: int) -> None:
        """N new rows in each memory."""
        self.register_buffer("of_student", new_memory(random.fold(self.key, 0), images, dim))
        self.register_buffer("of_teacher", new_memory(random.fold(self.key, 1), images, dim))


@dataclass(frozen=True)
class CRD(TappingMethod):
    """Embeddings of one image by both networks belong together."""

    least_images: ClassVar[int] = 2

    weight: NonNegative = 0.8
    """β, of both directions together."""
    negatives: Count = 16384
    """K, drawn for each image of a batch."""
    dim: Count = 128
    """Of the embeddings."""
    contrast: Positive = 0.07
    """τ > 0 of the embeddings' products."""
    momentum: Fraction = 0.5
    """What a memory keeps of an image when it is seen again, in [0, 1)."""

    def problem(self) -> str | None:
        if len(self.student) > 1:
            return "student: CRD compares one pair of features; give one path"
        return super().problem()

    def extend(
        self, networks: Student, backbone: Any, shape: tuple[int, int, int], classes: int
    ) -> None:
        """Projections and memories."""
        ((ours, theirs),) = self.pairs(networks, backbone, shape, classes)
        sizes = (torch.Size(ours).numel(), torch.Size(theirs).numel())
        networks.extras["memory"] = Memory(*sizes, self.dim)

    def make_room(self, networks: Student, count: int) -> None:
        """N rows in each memory: those of the images that may be drawn."""
        if count < self.least_images:
            raise UserError(
                f"CRD tells an image from others and needs at least {self.least_images} images to "
                f"train on, not {count}"
            )
        memory = networks.extras["memory"]
        assert isinstance(memory, Memory)
        memory.make_room(count, self.dim)

    def compare(self, networks: Student, features: list[Tensor], batch: TaughtBatch) -> Tensor:
        """Both directions; then the memories are renewed."""
        memory = networks.extras["memory"]
        assert isinstance(memory, Memory)
        ours, theirs = memory.project(features[0], batch.taps[0])
        places, count = batch.places, len(memory.of_student)
        keys = random.fold(memory.key, memory.steps + 2)
        losses, partitions = [], []
        for i, (anchor, other) in enumerate(
            ((ours, memory.of_teacher), (theirs, memory.of_student))
        ):
            drawn = draw_negatives(random.fold(keys, i), places, self.negatives, count)
            estimate = estimate_log_partition(anchor, other, places, drawn, self.contrast)
            known = memory.log_partitions[i].clone()
            log_z = torch.where(memory.steps == 0, estimate.to(known.dtype), known)
            partitions.append(log_z)
            # A copy: the memory is changed below, and the backward pass needs it as it was.
            losses.append(
                contrastive_loss(anchor, other.clone(), places, drawn, log_z, self.contrast)
            )
        if networks.training:
            renewed = [
                remembered(old, places, new, self.momentum)
                for old, new in ((memory.of_student, ours), (memory.of_teacher, theirs))
            ]
            memory.of_student.copy_(renewed[0])
            memory.of_teacher.copy_(renewed[1])
            memory.log_partitions.copy_(torch.stack(partitions))
            memory.steps.add_(1)
        return torch.stack(losses).sum()
