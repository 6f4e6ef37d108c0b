"""Decoupled knowledge distillation (DKD).

Zhao et al., CVPR 2022, arXiv:2203.08679, eq. (7): the divergence of the label's own probability
(α) and that of the other classes among themselves (β), which the classical loss ties together by
the teacher's doubt, weigh for themselves; beside the labels with weight 1.

Differs from the paper: its code masks logits by −1000 and is not finite at large ones; here sums of
exponentials leave the label out.
"""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from tlresearch.distillation.kd import together
from tlresearch.distillation.method import TaughtBatch, TaughtMethod, Term
from tlresearch.distillation.networks import Student
from tlresearch.functional.decoupled import dkd_loss
from tlresearch.functional.losses import cross_entropy
from tlresearch.settings import Bounds
from tlresearch.training.settings import NonNegative, Positive

Ramp = Annotated[float, Bounds(ge=0, lt=1), "asked whether it is 0"]
"""A fraction that, unlike other numbers, cannot differ within a stack of seeds."""


@dataclass(frozen=True)
class DKD(TaughtMethod):
    """Soft targets, the label's part and the others' each with a weight."""

    alpha: NonNegative = 1.0
    """α, of the label's part."""
    beta: NonNegative = 8.0
    """β, of the other classes' part."""
    temperature: Positive = 4.0
    """T > 0."""
    ramp: Ramp = 0.0
    """Fraction of the steps in which the weight of both rises linearly from 0 (the authors' code:
    20 of 240 epochs)."""

    def terms(
        self, networks: Student, logits: Tensor, features: list[Tensor], batch: TaughtBatch
    ) -> dict[str, Term]:
        assert batch.teachers is not None
        teacher = together(batch.teachers, self.temperature)
        value = dkd_loss(logits, teacher, batch.y, self.alpha, self.beta, self.temperature)
        weight = (batch.progress / self.ramp).clamp(max=1) if self.ramp else 1.0
        return {
            "cross_entropy": Term(1.0, cross_entropy(logits, batch.y)),
            "dkd": Term(weight, value),
        }
