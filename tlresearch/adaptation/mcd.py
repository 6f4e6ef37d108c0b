"""Maximum classifier discrepancy (MCD).

Saito et al., "Maximum classifier discrepancy for unsupervised domain adaptation", CVPR 2018,
arXiv:1712.02560. Two classifiers on one backbone, and three parts of each step (section 3.3): all
learn the source (A); the classifiers learn to disagree on the target, yet not on the source (B,
eqs. (10), (11)); the backbone learns to make them agree (C, eq. (12)), n times.

Differs from the paper: one optimiser with a memory for each parameter, where the authors' code has
one for each network, which is the same for Adam and SGD. A target sample is predicted by the mean
of both classifiers' logits, as the "ensemble" of the code.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.adaptation.method import AdaptationMethod, DomainBatch
from tlresearch.adaptation.networks import AdaptedClassifier, perceptron
from tlresearch.adaptation.passes import BatchNorms, Passed, both, one
from tlresearch.functional.losses import cross_entropy, mask_logits
from tlresearch.training.method import Loss, Phase
from tlresearch.training.settings import Count
from tlresearch.training.tree import Tree


def discrepancy(
    first: Float[Tensor, "batch classes"], second: Float[Tensor, "batch classes"]
) -> Float[Tensor, ""]:
    """Mean over samples of (1/K) Σₖ |p₁ₖ − p₂ₖ| with p = softmax(logits), K classes; eq. (9)."""
    return (first.softmax(1) - second.softmax(1)).abs().mean()


@dataclass(frozen=True)
class MCD(AdaptationMethod):
    """A backbone that leaves two classifiers nothing of the target to disagree on."""

    backbone_steps: Count = 4
    """n, how often the backbone learns in each step (part C); the paper takes 2 to 4."""
    batch_norm: BatchNorms = "separate"
    """Which samples share batch norm's statistics, see `passes.BatchNorms`; the authors' code has
    each domain pass by itself."""

    def extend(self, networks: AdaptedClassifier, classes: int) -> None:
        """The second classifier, last: backbone and the first one start as without it."""
        backbone = networks.backbone
        second = networks.second = perceptron(backbone.width, self.head, classes)
        if not self.head:
            backbone.initialise_linear(second[0])  # type: ignore[arg-type]

    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase("loss"),
            Phase("disagree", ("head.", "second.")),
            Phase("agree", ("backbone.",), self.backbone_steps),
        )

    def loss(self, networks: AdaptedClassifier, state: Tree, batch: DomainBatch) -> Loss:
        """Part A: sum of both classifiers' cross-entropies of the source, in nats."""
        if self.batch_norm == "joint":
            source, _ = both(networks, batch, "joint")
        else:
            source = one(networks, batch.source_x, "source")
        value = self._supervised(networks, source, batch)
        return Loss(value, {"cross_entropy": value})

    def disagree(self, networks: AdaptedClassifier, state: Tree, batch: DomainBatch) -> Loss:
        """Part B: the same less the discrepancy on the target."""
        source, target = both(networks, batch, self.batch_norm)
        apart = discrepancy(target.logits, networks.second(target.z))
        return Loss(self._supervised(networks, source, batch) - apart, {"disagreement": apart})

    def agree(self, networks: AdaptedClassifier, state: Tree, batch: DomainBatch) -> Loss:
        """Part C: the discrepancy on the target."""
        if self.batch_norm == "joint":
            _, target = both(networks, batch, "joint")
        else:
            target = one(networks, batch.target_x, "target")
        apart = discrepancy(target.logits, networks.second(target.z))
        return Loss(apart, {"discrepancy": apart})

    def _supervised(
        self, networks: AdaptedClassifier, source: Passed, batch: DomainBatch
    ) -> Float[Tensor, ""]:
        pair = (source.logits, networks.second(source.z))
        return torch.stack([cross_entropy(logits, batch.source_y) for logits in pair]).sum()

    def predict(
        self, networks: AdaptedClassifier, state: Tree, x: Tensor, context: Tensor | None
    ) -> Float[Tensor, "batch classes"]:
        """Mean of both classifiers' logits."""
        z = networks.features(x)
        return mask_logits(0.5 * (networks.head(z) + networks.second(z)), context)
