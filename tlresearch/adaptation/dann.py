"""Domain-adversarial neural networks (DANN).

Ganin et al., "Domain-adversarial training of neural networks", JMLR 17(59), 2016,
arXiv:1505.07818. A discriminator G_d tells the domain from the features, and the features are
trained to deceive it: eq. (18) of the pseudo-objective, whose gradient is reversed between the
two (eqs. (15), (16)). λ rises with the training's progress (section 5.2.2) and scales the gradient
that reaches the features alone; the discriminator learns with 1.

Differs from the paper: the domain loss is the mean of both domains' means, as in its authors' code
for images, and so half the sum of eqs. (9) and (18): the λ of these equations is half of
`strength`, and the discriminator learns at half the rate.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.adaptation.adversary import domain_accuracy, domain_loss
from tlresearch.adaptation.method import AdaptationMethod, DomainBatch, changed
from tlresearch.adaptation.networks import AdaptedClassifier, Dropped, perceptron
from tlresearch.adaptation.passes import BatchNorms, both
from tlresearch.adaptation.strengths import Schedules, factor
from tlresearch.functional.losses import cross_entropy
from tlresearch.functional.reversal import reverse_gradient
from tlresearch.training.method import Loss
from tlresearch.training.settings import Count, NonNegative
from tlresearch.training.tree import Tree


@dataclass(frozen=True)
class DANN(AdaptationMethod):
    """Features that a discriminator cannot tell the domain from."""

    strength: NonNegative = 1.0
    """Factor on λ, at least 0; with 0 (and without `train.clip`, whose norm is over the
    discriminator, too) the features are those of source-only training."""
    schedule: Schedules = "rising"
    """λ: 2 / (1 + exp(−10 p)) − 1 over the progress p, or 1 throughout."""
    discriminator: tuple[Count, ...] = (500, 500)
    """Units of the discriminator's hidden layers; none makes it linear."""
    dropout: Dropped = 0.0
    """Probability to drop a hidden unit of the discriminator."""
    batch_norm: BatchNorms = "joint"
    """Which samples share batch norm's statistics: see `passes.BatchNorms`."""

    def problem(self) -> str | None:
        if not self.discriminator and "dropout" in changed(self):
            return "dropout: a linear discriminator has no hidden units; remove one of them"
        return None

    def extend(self, networks: AdaptedClassifier, classes: int) -> None:
        """The discriminator, last, so that backbone and head start as without it."""
        width = networks.backbone.width
        networks.discriminator = perceptron(width, self.discriminator, 1, self.dropout)

    def loss(self, networks: AdaptedClassifier, state: Tree, batch: DomainBatch) -> Loss:
        """Cross-entropy of the source + domain loss, in nats, its gradient reversed."""
        source, target = both(networks, batch, self.batch_norm)
        scale = self.strength * factor(self.schedule, batch.progress)
        logits = networks.discriminator(reverse_gradient(torch.cat([source.z, target.z]), scale))
        of_source, of_target = logits.tensor_split([len(source.z)])
        adversarial = domain_loss(of_source, of_target)
        right = domain_accuracy(of_source, of_target)
        value = cross_entropy(source.logits, batch.source_y)
        return Loss(
            value + adversarial,
            {"cross_entropy": value, "domain": adversarial, "domain_accuracy": right},
        )

    def domain_logits(
        self, networks: AdaptedClassifier, x: Tensor
    ) -> Float[Tensor, " batch"] | None:
        return networks.discriminator(networks.features(x)).squeeze(1)
