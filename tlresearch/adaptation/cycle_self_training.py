"""Cycle self-training (CST).

Liu, Wang and Long, "Cycle self-training for domain adaptation", NeurIPS 2021, arXiv:2103.03571.
Forward: the classifier labels the target. Reverse: a target classifier is fit to those
pseudo-labels on the same features, and its loss on the source is minimised through that fit
(section 3.1): features are good if what is learned from the target's pseudo-labels is right on the
source. Beside it the Tsallis entropy of the target's predictions (section 3.2).

Differs from the paper: the target classifier is ridge regression of each batch in closed form, on
features of unit length, and its loss on the source is the squared error (the paper has a general
inner loss, and such a form for its experiments); the order α of the entropy is a setting and is
not chosen anew in each epoch; there are no augmentations and no sharpness-aware optimiser.
"""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from tlresearch.adaptation.method import AdaptationMethod, DomainBatch
from tlresearch.adaptation.networks import AdaptedClassifier
from tlresearch.adaptation.passes import BatchNorms, both
from tlresearch.functional.entropies import tsallis_entropies
from tlresearch.functional.losses import cross_entropy
from tlresearch.functional.ridge import ridge_regression
from tlresearch.functional.schedules import reversal_strength
from tlresearch.settings import Bounds
from tlresearch.training.method import Loss
from tlresearch.training.settings import NonNegative, Positive
from tlresearch.training.tree import Tree


def cycle_loss(
    source: Float[Tensor, "source dim"],
    source_y: Int64[Tensor, " source"],
    target: Float[Tensor, "target dim"],
    target_y: Int64[Tensor, " target"],
    classes: int,
    ridge: Tensor | float,
) -> Float[Tensor, ""]:
    """(1/N) Σₙ ‖zₙ W − cₙ‖² over the source, W = argmin Σ ‖zW − c‖² + λ‖W‖² over the target.

    z are features divided by their length, c one-hot labels less 1/K. Differentiable in both
    domains' features, in the target's through W.

    Args:
        source: features.
        source_y: true labels.
        target: features.
        target_y: pseudo-labels.
        classes: K.
        ridge: λ > 0.
    """
    source, target = F.normalize(source, dim=1), F.normalize(target, dim=1)
    weights = ridge_regression(target, _centred(target_y, classes, target), ridge)
    error = source @ weights - _centred(source_y, classes, source)
    return error.square().sum(1).mean()


def _centred(y: Tensor, classes: int, like: Tensor) -> Tensor:
    return F.one_hot(y, classes).to(like.dtype) - 1 / classes


@dataclass(frozen=True)
class CycleSelfTraining(AdaptationMethod):
    """Pseudo-labels are held to what they teach about the source."""

    strength: NonNegative = 1.0
    """Weight of the cycle's loss on the source, at least 0."""
    entropy: NonNegative = 0.1
    """Weight of the target's Tsallis entropy, at least 0."""
    order: Annotated[float, Bounds(ge=1, le=2)] = 1.9
    """α of the Tsallis entropy, in [1, 2]; 1 is Shannon's."""
    ridge: Positive = 0.1
    """λ of the target classifier, above 0, for features of length 1."""
    rising: bool = True
    """Whether both weights rise with progress p as 2 / (1 + exp(−10 p)) − 1."""
    batch_norm: BatchNorms = "joint"
    """Which samples share batch norm's statistics: see `passes.both`."""

    def loss(self, networks: AdaptedClassifier, state: Tree, batch: DomainBatch) -> Loss:
        """Cross-entropy of the source (nats) + cycle's squared error + Tsallis entropy."""
        source, target = both(networks, batch, self.batch_norm)
        value = cross_entropy(source.logits, batch.source_y)
        labels = target.logits.detach().argmax(1)
        classes = target.logits.shape[1]
        cycle = cycle_loss(source.z, batch.source_y, target.z, labels, classes, self.ridge)
        entropy = tsallis_entropies(target.logits, self.order).mean()
        factor = reversal_strength(batch.progress) if self.rising else 1.0
        return Loss(
            value + factor * (self.strength * cycle + self.entropy * entropy),
            {"cross_entropy": value, "cycle": cycle, "tsallis": entropy},
        )
