"""Conditional domain-adversarial networks (CDAN, and CDAN+E with entropy conditioning).

Long et al., "Conditional adversarial domain adaptation", NeurIPS 2018, arXiv:1705.10667. As DANN,
but the discriminator sees the features z together with the predictions p, as their outer product
(`multilinear`), or where that is too wide as products of random projections (`RandomMaps`).
CDAN+E weights each sample by 1 + exp(−H(p)): what is predicted with certainty counts more.

Differs from the paper: as in the authors' code, p counts as a constant in the product, and the
weights of each domain are divided by their sum. The gradient of the weights is reversed with that
of the features, in code and paper: the certain samples become more certain. From the code differ
three things. There the digits' product of 500 · 10 numbers is not projected (set `widest: 5000`
for it), the first epoch has no adversary, and λ reaches 1 after 10,000 steps of any training.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

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


def multilinear(
    z: Float[Tensor, "batch width"], p: Float[Tensor, "batch classes"]
) -> Float[Tensor, "batch product"]:
    """p ⊗ z of each sample, flattened: all products p_c z_i, class by class; eq. (3)."""
    return (p.unsqueeze(2) * z.unsqueeze(1)).flatten(1)


class RandomMaps(nn.Module):
    """(R_z z) ⊙ (R_p p) / √d with fixed standard normal R_z and R_p; eq. (6).

    Products of two have the mean of the products of two multilinear maps:
    E⟨T(z, p), T(z′, p′)⟩ = ⟨z, z′⟩ ⟨p, p′⟩.

    Args:
        width: of z.
        classes: of p.
        dim: d, numbers that come out.
    """

    of_z: Tensor
    of_p: Tensor

    def __init__(self, width: int, classes: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("of_z", torch.randn(width, dim))
        self.register_buffer("of_p", torch.randn(classes, dim))

    def forward(
        self, z: Float[Tensor, "batch width"], p: Float[Tensor, "batch classes"]
    ) -> Float[Tensor, "batch dim"]:
        return (z @ self.of_z) * (p @ self.of_p) / self.of_z.shape[1] ** 0.5


def certainty_weights(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, " batch"]:
    """1 + exp(−H(softmax(logits))), H in nats: 2 where certain, 1 + 1/classes where uniform."""
    p = logits.log_softmax(1)
    return 1 + torch.exp((p.exp() * p).sum(1))


@dataclass(frozen=True)
class CDAN(AdaptationMethod):
    """Features whose domain cannot be told even by one who knows the predictions."""

    entropy: bool = False
    """Whether samples are weighted by the certainty of their predictions (CDAN+E)."""
    strength: NonNegative = 1.0
    """Factor on λ, at least 0; with 0 the features are those of source-only training."""
    schedule: Schedules = "rising"
    """λ: 2 / (1 + exp(−10 p)) − 1 over the progress p, or 1 throughout."""
    discriminator: tuple[Count, ...] = (500, 500)
    """Units of the discriminator's hidden layers; none makes it linear."""
    dropout: Dropped = 0.5
    """Probability to drop a hidden unit of the discriminator."""
    widest: Count = 4096
    """Largest width · classes whose products the discriminator sees one by one."""
    projections: Count = 1024
    """d, random products that it sees where there are more."""
    batch_norm: BatchNorms = "joint"
    """Which samples share batch norm's statistics: see `passes.BatchNorms`."""

    def problem(self) -> str | None:
        if not self.discriminator and "dropout" in changed(self):
            return "dropout: a linear discriminator has no hidden units; remove one of them"
        return None

    def extend(self, networks: AdaptedClassifier, classes: int) -> None:
        """The discriminator and its random maps, last: backbone and head start as without."""
        width = networks.backbone.width
        inputs = width * classes
        if inputs > self.widest:
            inputs = self.projections
            networks.maps = RandomMaps(width, classes, inputs)
        networks.discriminator = perceptron(inputs, self.discriminator, 1, self.dropout)

    def loss(self, networks: AdaptedClassifier, state: Tree, batch: DomainBatch) -> Loss:
        """Cross-entropy of the source + domain loss, in nats, its gradient reversed."""
        source, target = both(networks, batch, self.batch_norm)
        scale = self.strength * factor(self.schedule, batch.progress)
        z, logits = (torch.cat(pair) for pair in zip(source, target, strict=True))
        domains = networks.discriminator(
            self.joined(networks, reverse_gradient(z, scale), logits.detach().softmax(1))
        )
        count = [len(source.z)]
        of_source, of_target = domains.tensor_split(count)
        weights = None
        if self.entropy:
            of_all = certainty_weights(reverse_gradient(logits, scale))
            weights = (of_all[: count[0]], of_all[count[0] :])
        adversarial = domain_loss(of_source, of_target, weights)
        value = cross_entropy(source.logits, batch.source_y)
        right = domain_accuracy(of_source, of_target)
        return Loss(
            value + adversarial,
            {"cross_entropy": value, "domain": adversarial, "domain_accuracy": right},
        )

    def domain_logits(
        self, networks: AdaptedClassifier, x: Tensor
    ) -> Float[Tensor, " batch"] | None:
        z = networks.features(x)
        p = networks.head(z).softmax(1)
        return networks.discriminator(self.joined(networks, z, p)).squeeze(1)

    def joined(
        self,
        networks: AdaptedClassifier,
        z: Float[Tensor, "batch width"],
        p: Float[Tensor, "batch classes"],
    ) -> Float[Tensor, "batch inputs"]:
        """What the discriminator is given."""
        if z.shape[1] * p.shape[1] > self.widest:
            return networks.maps(z, p)
        return multilinear(z, p)
