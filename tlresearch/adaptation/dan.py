"""Deep adaptation networks (DAN): multi-kernel maximum mean discrepancy.

Long et al., "Learning transferable features with deep adaptation networks", ICML 2015,
arXiv:1502.02791, eq. (4): cross-entropy of the source + λ Σ over layers of MMD² between the
domains, `functional.kernels`.

Differs from the paper: the kernels have equal weights, where the paper solves a quadratic program
for them; five bandwidths a factor of 2 apart around the median, where the paper has 33, a factor of
√2 apart, and no count in its code; all pairs of a batch, where the paper's estimate takes a number
of pairs linear in the batch.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from tlresearch.adaptation.matching import Layer, discrepancies, layers_problem
from tlresearch.adaptation.method import AdaptationMethod, DomainBatch
from tlresearch.adaptation.networks import AdaptedClassifier
from tlresearch.adaptation.passes import BatchNorms, both
from tlresearch.adaptation.strengths import Schedules, factor
from tlresearch.functional import kernels
from tlresearch.functional.losses import cross_entropy
from tlresearch.training.method import Loss
from tlresearch.training.settings import NonNegative, Positive
from tlresearch.training.tree import Tree

_BANDWIDTHS = {"median": kernels.median_bandwidth, "mean": kernels.mean_bandwidth}
_ESTIMATORS = {"unbiased": kernels.unbiased_mmd, "biased": kernels.biased_mmd}


@dataclass(frozen=True)
class DAN(AdaptationMethod):
    """Features, and predictions, of one mean in a space of many kernels."""

    least_batch: ClassVar[int] = 2

    strength: NonNegative = 1.0
    """λ of eq. (4), at least 0; with 0 the features are those of source-only training."""
    schedule: Schedules = "constant"
    """λ throughout, or λ · (2 / (1 + exp(−10 p)) − 1) over the progress p."""
    layers: tuple[Layer, ...] = ("features", "logits")
    """What is compared: MMD² of each, summed."""
    bandwidth: Literal["median", "mean"] = "median"
    """γ: of the squared distances between all samples of the two batches, anew for each."""
    factors: tuple[Positive, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Of γ, above 0, one for each kernel."""
    estimator: Literal["unbiased", "biased"] = "unbiased"
    """Of MMD²: without or with the pairs of a sample and itself."""
    batch_norm: BatchNorms = "joint"
    """Which samples share batch norm's statistics: see `passes.BatchNorms`."""

    def problem(self) -> str | None:
        if not self.factors:
            return "factors: expected at least one factor of the bandwidth, e.g. [0.5, 1, 2]"
        return layers_problem(self.layers)

    def loss(self, networks: AdaptedClassifier, state: Tree, batch: DomainBatch) -> Loss:
        """Cross-entropy of the source, in nats, + λ times the summed MMD²."""
        source, target = both(networks, batch, self.batch_norm)
        value = cross_entropy(source.logits, batch.source_y)
        mmd = discrepancies(source, target, self.layers, self.mmd)
        scale = self.strength * factor(self.schedule, batch.progress)
        return Loss(value + scale * mmd, {"cross_entropy": value, "mmd": mmd})

    def mmd(self, source: Tensor, target: Tensor) -> Tensor:
        """MMD² of one layer, (source, dim) and (target, dim)."""
        bandwidth = _BANDWIDTHS[self.bandwidth](source, target)
        return _ESTIMATORS[self.estimator](source, target, bandwidth, self.factors)
