"""Deep CORAL: covariances of the two domains brought together.

Sun and Saenko, "Deep CORAL: correlation alignment for deep domain adaptation", ECCV workshops
2016, arXiv:1607.01719, eq. (6): cross-entropy of the source + λ ‖C_S − C_T‖²_F / (4 d²) of the
last layer, `functional.kernels.coral_loss`.

Differs from the paper: nothing but networks and schedules; the paper chooses λ so that both losses
end alike.
"""

from dataclasses import dataclass
from typing import ClassVar

from tlresearch.adaptation.matching import Layer, discrepancies, layers_problem
from tlresearch.adaptation.method import AdaptationMethod, DomainBatch
from tlresearch.adaptation.networks import AdaptedClassifier
from tlresearch.adaptation.passes import BatchNorms, both
from tlresearch.adaptation.strengths import Schedules, factor
from tlresearch.functional.kernels import coral_loss
from tlresearch.functional.losses import cross_entropy
from tlresearch.training.method import Loss
from tlresearch.training.settings import NonNegative
from tlresearch.training.tree import Tree


@dataclass(frozen=True)
class DeepCORAL(AdaptationMethod):
    """Features, or predictions, of one covariance."""

    least_batch: ClassVar[int] = 2

    strength: NonNegative = 1.0
    """λ of eq. (6), at least 0; with 0 the features are those of source-only training."""
    schedule: Schedules = "constant"
    """λ throughout, or λ · (2 / (1 + exp(−10 p)) − 1) over the progress p."""
    layers: tuple[Layer, ...] = ("logits",)
    """What is compared: the CORAL loss of each, summed."""
    batch_norm: BatchNorms = "joint"
    """Which samples share batch norm's statistics: see `passes.BatchNorms`."""

    def problem(self) -> str | None:
        return layers_problem(self.layers)

    def loss(self, networks: AdaptedClassifier, state: Tree, batch: DomainBatch) -> Loss:
        """Cross-entropy of the source, in nats, + λ times the summed CORAL loss."""
        source, target = both(networks, batch, self.batch_norm)
        value = cross_entropy(source.logits, batch.source_y)
        coral = discrepancies(source, target, self.layers, coral_loss)
        scale = self.strength * factor(self.schedule, batch.progress)
        return Loss(value + scale * coral, {"cross_entropy": value, "coral": coral})
