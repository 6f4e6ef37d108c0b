"""Similarity-preserving distillation (SP): images alike for the teacher are so for the student.

Tung and Mori, "Similarity-preserving knowledge distillation", ICCV 2019, arXiv:1907.09682, eq. (4):
the distance of both batches' matrices of similarities, whose rows have length 1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tlresearch.distillation.method import TaughtBatch
from tlresearch.distillation.networks import Student
from tlresearch.distillation.tapping import TappingMethod
from tlresearch.functional.similarity import similarity_loss
from tlresearch.training.settings import NonNegative


@dataclass(frozen=True)
class SimilarityPreserving(TappingMethod):
    """Similarities within the batch, by pairs of features."""

    least_batch: ClassVar[int] = 2

    weight: NonNegative = 3000.0
    """β, of the similarities."""

    def compare(self, networks: Student, features: list[Tensor], batch: TaughtBatch) -> Tensor:
        pairs = zip(features, batch.taps, strict=True)
        return torch.stack([similarity_loss(mine, its) for mine, its in pairs]).sum()
