"""Label smoothing: soft targets without a teacher, the control of every distilled student.

Szegedy et al., "Rethinking the inception architecture for computer vision", CVPR 2016,
arXiv:1512.00567, section 7; beside distillation: Müller, Kornblith and Hinton, NeurIPS 2019,
arXiv:1906.02629.
"""

from dataclasses import dataclass

from torch import Tensor

from tlresearch.distillation.method import DistillationMethod, TaughtBatch, Term
from tlresearch.distillation.networks import Student
from tlresearch.functional.hard_targets import smoothed_cross_entropy
from tlresearch.training.settings import Fraction


@dataclass(frozen=True)
class LabelSmoothing(DistillationMethod):
    """Cross-entropy with a part of the label's mass spread over all classes."""

    smoothing: Fraction = 0.1
    """α, the part that is spread, in [0, 1); 0 is training on labels."""

    def terms(
        self, networks: Student, logits: Tensor, features: list[Tensor], batch: TaughtBatch
    ) -> dict[str, Term]:
        value = smoothed_cross_entropy(logits, batch.y, self.smoothing)
        return {"smoothed_cross_entropy": Term(1.0, value)}
