"""Deep mutual learning (DML): students without a teacher, each taught by the others.

Zhang et al., CVPR 2018, arXiv:1706.00384, eqs. (3) to (6): each network learns labels and the mean
divergence of the others' probabilities to its own.

Differs from the paper: all networks take their step at the same time, on the same batch, where the
paper updates them in turn; the first network is the one that is measured; the others, which have
its architecture, begin with weights drawn after it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tlresearch.backbones.classifier import Classifier
from tlresearch.distillation.method import DistillationMethod, TaughtBatch, Term
from tlresearch.distillation.networks import Student
from tlresearch.functional.losses import cross_entropy
from tlresearch.functional.soft_targets import soft_target_loss
from tlresearch.training.settings import NonNegative, Positive


@dataclass(frozen=True)
class MutualLearning(DistillationMethod):
    """Networks of one size that learn from labels and from each other."""

    peers: int = 1
    """Further networks, at least 1; the paper has 1 in most tables."""
    weight: NonNegative = 1.0
    """Of the mean divergence to the others."""
    temperature: Positive = 1.0
    """T > 0 of the divergence, times T²; the paper has 1."""

    least_peers: ClassVar[int] = 1

    def problem(self) -> str | None:
        if self.peers < self.least_peers:
            return f"peers: expected at least {self.least_peers}, not {self.peers}"
        return None

    def extend(
        self, networks: Student, backbone: Any, shape: tuple[int, int, int], classes: int
    ) -> None:
        """The other networks."""
        for i in range(self.peers):
            networks.extras[f"peer_{i + 1}"] = Classifier(backbone.build(shape), classes)

    def terms(
        self, networks: Student, logits: Tensor, features: list[Tensor], batch: TaughtBatch
    ) -> dict[str, Term]:
        all_logits = [logits, *(peer(batch.x) for peer in networks.extras.values())]
        labels = [cross_entropy(z, batch.y) for z in all_logits]
        divergences = [
            soft_target_loss(z, other, self.temperature) / self.peers
            for i, z in enumerate(all_logits)
            for j, other in enumerate(all_logits)
            if i != j
        ]
        return {
            "cross_entropy": Term(1.0, torch.stack(labels).sum()),
            "mutual": Term(self.weight, torch.stack(divergences).sum()),
        }
