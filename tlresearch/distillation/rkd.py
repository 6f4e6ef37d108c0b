"""Relational knowledge distillation (RKD): distances and angles within the batch.

Park et al., CVPR 2019, arXiv:1904.05068, eqs. (5) to (9): Huber's loss between both networks'
distances of pairs, in units of their mean, and between the cosines of the angles of triples.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tlresearch.distillation.method import TaughtBatch
from tlresearch.distillation.networks import Student
from tlresearch.distillation.tapping import TappingMethod
from tlresearch.functional.features import Form
from tlresearch.functional.relations import relational_loss
from tlresearch.training.settings import NonNegative


@dataclass(frozen=True)
class RKD(TappingMethod):
    """Relations between the samples of a batch."""

    least_batch: ClassVar[int] = 3

    weight: NonNegative = 1.0
    """β, of both relations."""
    distance: NonNegative = 25.0
    """Weight of the distances."""
    angle: NonNegative = 50.0
    """Weight of the angles."""
    form: Form = "code"
    """`code`: divided by the number of all pairs and triples, as in the authors' code; `paper`: by
    that of the pairs and triples of different samples."""

    def compare(self, networks: Student, features: list[Tensor], batch: TaughtBatch) -> Tensor:
        losses = [
            relational_loss(mine, its, self.distance, self.angle, self.form)
            for mine, its in zip(features, batch.taps, strict=True)
        ]
        return torch.stack(losses).sum()
