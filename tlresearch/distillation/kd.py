"""Soft targets: the student learns the teacher's probabilities at a high temperature.

Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, section
2: (1 − α) · cross-entropy of the labels + α T² · KL of the teacher's probabilities at T to the
student's. With `standardise`: Sun et al., "Logit standardization in knowledge distillation", CVPR
2024, arXiv:2403.01427, whose temperature divides the scores of each sample.

Differs from the paper: it states no α ("a considerably lower weight" for the labels), so α is a
setting; the divergence differs from the paper's cross-entropy by a constant.
"""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from tlresearch.distillation.method import TaughtBatch, TaughtMethod, Term
from tlresearch.distillation.networks import Student
from tlresearch.functional.losses import cross_entropy
from tlresearch.functional.soft_targets import ensemble_logits, soft_target_loss, standardised
from tlresearch.settings import Bounds
from tlresearch.training.settings import Positive

Share = Annotated[float, Bounds(ge=0, le=1)]
OfChain = "read where teachers are made"
"""Marks numbers that are also the teachers': they cannot differ within a stack of seeds."""


def soft_targets(
    logits: Tensor, teachers: Tensor, temperature: Tensor | float, standardise: bool = False
) -> Tensor:
    """T² · KL(teachers ‖ student) at T; several teachers by the mean of their probabilities."""
    if standardise:
        logits, teachers = standardised(logits), standardised(teachers)
    return soft_target_loss(logits, together(teachers, temperature), temperature)


def together(teachers: Tensor, temperature: Tensor | float) -> Tensor:
    """(M, n, classes) to logits whose softmax at T is the mean of the teachers' at T."""
    return teachers[0] if len(teachers) == 1 else ensemble_logits(teachers, temperature)


@dataclass(frozen=True)
class KD(TaughtMethod):
    """Labels, and the teacher's probabilities softened by a temperature."""

    alpha: Share = 0.9
    """α in [0, 1], the weight of the soft targets; the labels have 1 − α."""
    temperature: Positive = 4.0
    """T > 0."""
    standardise: bool = False
    """Whether logits become scores of mean 0 and deviation 1 within each sample first."""

    def terms(
        self, networks: Student, logits: Tensor, features: list[Tensor], batch: TaughtBatch
    ) -> dict[str, Term]:
        assert batch.teachers is not None
        soft = soft_targets(logits, batch.teachers, self.temperature, self.standardise)
        hard = cross_entropy(logits, batch.y)
        return {
            "cross_entropy": Term(1 - self.alpha, hard),
            "soft_targets": Term(self.alpha, soft),
        }
