"""DIST: the student keeps the order of the teacher's probabilities, not their values.

Huang et al., "Knowledge distillation from a stronger teacher", NeurIPS 2022, arXiv:2205.10536, eqs.
(8) to (11): 1 − Pearson's correlation of the probabilities within each sample (β) and, over the
batch, within each class (γ); beside the labels.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tlresearch.distillation.kd import together
from tlresearch.distillation.method import TaughtBatch, TaughtMethod, Term
from tlresearch.distillation.networks import Student
from tlresearch.functional.dist import dist_loss
from tlresearch.functional.losses import cross_entropy
from tlresearch.training.settings import NonNegative, Positive


@dataclass(frozen=True)
class DIST(TaughtMethod):
    """Correlations with the teacher's probabilities, by sample and by class."""

    least_batch: ClassVar[int] = 2

    hard: NonNegative = 1.0
    """Weight of the labels."""
    beta: NonNegative = 2.0
    """β, of the correlation within samples."""
    gamma: NonNegative = 2.0
    """γ, of the correlation within classes."""
    temperature: Positive = 4.0
    """T > 0."""

    def terms(
        self, networks: Student, logits: Tensor, features: list[Tensor], batch: TaughtBatch
    ) -> dict[str, Term]:
        assert batch.teachers is not None
        teacher = together(batch.teachers, self.temperature)
        value = dist_loss(logits, teacher, self.beta, self.gamma, self.temperature)
        return {
            "cross_entropy": Term(self.hard, cross_entropy(logits, batch.y)),
            "dist": Term(1.0, value),
        }
