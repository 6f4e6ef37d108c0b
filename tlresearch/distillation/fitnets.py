"""FitNets: the student's features, through a regressor, are the teacher's.

Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, arXiv:1412.6550, eq. (3): a regressor
that is trained beside the student maps its feature (the guided layer) to the teacher's (the hint),
and the squared error between them is learned.

Differs from the paper: hints, labels and soft targets are learned at the same time instead of in
two stages, as in later comparisons; the regressor is a linear map (1 × 1 for maps) with batch norm
and ReLU (`batch_norm: false`: without); the error is a mean over all numbers (`form: code`) or half
a sum of squares (`paper`).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlresearch.backbones.layers import BatchNorm1d, BatchNorm2d
from tlresearch.distillation.method import TaughtBatch
from tlresearch.distillation.networks import Student
from tlresearch.distillation.tapping import TappingMethod
from tlresearch.functional.features import Form
from tlresearch.functional.hints import hint_loss, regressor
from tlresearch.training.settings import NonNegative


@dataclass(frozen=True)
class FitNets(TappingMethod):
    """Hints from intermediate features."""

    weight: NonNegative = 100.0
    """β, of the hints."""
    form: Form = "code"
    """`code`: mean squared error; `paper`: ½ ‖difference‖² of each sample."""
    batch_norm: bool = True
    """Whether each regressor ends in batch norm and ReLU, as in RepDistiller's code, whose weight
    100 is, and whose teacher's features are behind a ReLU, too; with a rate of .05 that weight
    diverges without. For features that may be negative: false."""

    def extend(
        self, networks: Student, backbone: Any, shape: tuple[int, int, int], classes: int
    ) -> None:
        """A regressor for each pair of features."""
        for i, (ours, theirs) in enumerate(self.pairs(networks, backbone, shape, classes)):
            at = f"{self.student_taps[i]} and the teacher's {self.teacher_taps[i]}"
            linear = regressor(ours, theirs, at)
            if self.batch_norm:
                norm = BatchNorm1d if len(theirs) == 1 else BatchNorm2d
                linear = nn.Sequential(linear, norm(theirs[0]), nn.ReLU())
            networks.extras[f"regressor_{i + 1}"] = linear

    def compare(self, networks: Student, features: list[Tensor], batch: TaughtBatch) -> Tensor:
        losses = [
            hint_loss(networks.extras[f"regressor_{i + 1}"](mine), its, self.form)
            for i, (mine, its) in enumerate(zip(features, batch.taps, strict=True))
        ]
        return torch.stack(losses).sum()
