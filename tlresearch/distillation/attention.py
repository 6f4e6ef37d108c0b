"""Attention transfer (AT): where the student's maps are large, the teacher's are.

Zagoruyko and Komodakis, "Paying more attention to attention", ICLR 2017, arXiv:1612.03928, eq. (2):
the difference of both maps' sums of squares over channels, each at length 1.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from tlresearch.distillation.method import TaughtBatch
from tlresearch.distillation.networks import Student
from tlresearch.distillation.tapping import TappingMethod
from tlresearch.errors import UserError
from tlresearch.functional.attention_transfer import attention_transfer_loss
from tlresearch.functional.features import Form
from tlresearch.settings import Bounds
from tlresearch.training.settings import NonNegative


@dataclass(frozen=True)
class AttentionTransfer(TappingMethod):
    """Maps of attention, by pairs of features."""

    weight: NonNegative = 1000.0
    """β, of the attention maps."""
    power: Annotated[float, Bounds(ge=1)] = 2.0
    """p ≥ 1 of Σ |F|ᵖ over channels: below it the gradient is infinite where a map is 0."""
    form: Form = "code"
    """`code`: mean of squared differences, as in the authors' code; `paper`: their length."""

    def extend(
        self, networks: Student, backbone: Any, shape: tuple[int, int, int], classes: int
    ) -> None:
        """Adds nothing; attention is of places, which vectors have none of."""
        for i, both in enumerate(self.pairs(networks, backbone, shape, classes)):
            if {len(one) for one in both} != {3}:
                raise UserError(
                    f"attention needs maps (channels, rows, columns), and {self.student_taps[i]} "
                    f"has shape {both[0]}, the teacher's {self.teacher_taps[i]} {both[1]}; tap "
                    "layers before the pooling"
                )

    def compare(self, networks: Student, features: list[Tensor], batch: TaughtBatch) -> Tensor:
        losses = [
            attention_transfer_loss(mine, its, self.power, self.form)
            for mine, its in zip(features, batch.taps, strict=True)
        ]
        return torch.stack(losses).sum()
