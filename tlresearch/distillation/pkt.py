"""Probabilistic knowledge transfer (PKT): each sample's neighbours are those of the teacher.

Passalis and Tefas, "Learning deep representations with probabilistic knowledge transfer", ECCV
2018, arXiv:1803.10837: the divergence between both networks' probabilities that samples of a batch
are neighbours, from cosine similarities.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tlresearch.distillation.method import TaughtBatch
from tlresearch.distillation.networks import Student
from tlresearch.distillation.tapping import TappingMethod
from tlresearch.functional.features import Form
from tlresearch.functional.probability_transfer import probability_transfer_loss
from tlresearch.training.settings import NonNegative


@dataclass(frozen=True)
class PKT(TappingMethod):
    """Neighbourhoods within the batch."""

    least_batch: ClassVar[int] = 2

    weight: NonNegative = 30000.0
    """β, of the divergence."""
    form: Form = "code"
    """`code`: the authors'; `paper`: as printed; see `functional.probability_transfer`."""

    def compare(self, networks: Student, features: list[Tensor], batch: TaughtBatch) -> Tensor:
        losses = [
            probability_transfer_loss(mine, its, self.form)
            for mine, its in zip(features, batch.taps, strict=True)
        ]
        return torch.stack(losses).sum()
