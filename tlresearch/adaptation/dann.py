"""Domain-adversarial neural networks (DANN).

Ganin et al., "Domain-adversarial training of neural networks", JMLR 17(59), 2016,
arXiv:1505.07818. A discriminator G_d tells the domain from the features, and the features are
trained to deceive it: eq. (18) of the pseudo-objective, whose gradient is reversed between the
two (eqs. (15), (16)). λ rises with the training's progress (section 5.2.2) and scales the gradient
that reaches the features alone; the discriminator learns with 1.

Differs from the paper: nothing but what the experiment files say of their networks.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tlresearch.adaptation.method import AdaptationMethod, DomainBatch
from tlresearch.adaptation.networks import AdaptedClassifier, perceptron
from tlresearch.adaptation.passes import BatchNorms, both
from tlresearch.functional.losses import cross_entropy
from tlresearch.functional.reversal import reverse_gradient
from tlresearch.functional.schedules import reversal_strength
from tlresearch.training.method import Loss
from tlresearch.training.settings import Count, Fraction, NonNegative
from tlresearch.training.tree import Tree


def domain_loss(
    source: Float[Tensor, "source 1"], target: Float[Tensor, "target 1"]
) -> Float[Tensor, ""]:
    """½ (mean −log σ(d) over the source + mean −log(1 − σ(d)) over the target), in nats.

    Args:
        source: logits d of "this is source".
        target: likewise.
    """
    return 0.5 * (F.softplus(-source).mean() + F.softplus(target).mean())


@dataclass(frozen=True)
class DANN(AdaptationMethod):
    """Features that a discriminator cannot tell the domain from."""

    strength: NonNegative = 1.0
    """Factor on λ, at least 0; with 0 the features are those of source-only training."""
    schedule: Literal["rising", "constant"] = "rising"
    """λ: 2 / (1 + exp(−10 p)) − 1 over the progress p, or 1 throughout."""
    discriminator: tuple[Count, ...] = (500, 500)
    """Units of the discriminator's hidden layers; none makes it linear."""
    dropout: Fraction = 0.0
    """Probability to drop a hidden unit of the discriminator."""
    batch_norm: BatchNorms = "joint"
    """Which samples share batch norm's statistics: see `passes.both`."""

    def extend(self, networks: AdaptedClassifier, classes: int) -> None:
        """The discriminator, last, so that backbone and head start as without it."""
        width = networks.backbone.width
        networks.discriminator = perceptron(width, self.discriminator, 1, self.dropout)

    def loss(self, networks: AdaptedClassifier, state: Tree, batch: DomainBatch) -> Loss:
        """Cross-entropy of the source + domain loss, in nats, its gradient reversed."""
        source, target = both(networks, batch, self.batch_norm)
        scale = self.strength * self.factor(batch.progress)
        logits = networks.discriminator(reverse_gradient(torch.cat([source.z, target.z]), scale))
        of_source, of_target = logits.tensor_split([len(source.z)])
        adversarial = domain_loss(of_source, of_target)
        right = 0.5 * (
            (of_source > 0).to(logits.dtype).mean() + (of_target <= 0).to(logits.dtype).mean()
        )
        value = cross_entropy(source.logits, batch.source_y)
        return Loss(
            value + adversarial,
            {"cross_entropy": value, "domain": adversarial, "domain_accuracy": right},
        )

    def domain_logits(
        self, networks: AdaptedClassifier, x: Tensor
    ) -> Float[Tensor, " batch"] | None:
        return networks.discriminator(networks.features(x)).squeeze(1)

    def factor(self, progress: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """λ without `strength`."""
        return reversal_strength(progress) if self.schedule == "rising" else progress * 0 + 1
