"""Attention transfer (AT): where the student's maps are large, the teacher's are.

Zagoruyko and Komodakis, "Paying more attention to attention", ICLR 2017, arXiv:1612.03928, eq. (2):
the difference of both maps' sums of squares over channels, each at length 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tlresearch.distillation.method import TaughtBatch
from tlresearch.distillation.networks import Student
from tlresearch.distillation.tapping import TappingMethod
from tlresearch.functional.attention_transfer import attention_transfer_loss
from tlresearch.functional.features import Form
from tlresearch.training.settings import NonNegative, Positive


@dataclass(frozen=True)
class AttentionTransfer(TappingMethod):
    """Maps of attention, by pairs of features."""

    weight: NonNegative = 1000.0
    """β, of the attention maps."""
    power: Positive = 2.0
    """p of Σ |F|ᵖ over channels."""
    form: Form = "code"
    """`code`: mean of squared differences, as in the authors' code; `paper`: their length."""

    def compare(self, networks: Student, features: list[Tensor], batch: TaughtBatch) -> Tensor:
        losses = [
            attention_transfer_loss(mine, its, self.power, self.form)
            for mine, its in zip(features, batch.taps, strict=True)
        ]
        return torch.stack(losses).sum()
