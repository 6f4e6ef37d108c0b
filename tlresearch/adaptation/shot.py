"""Source hypothesis transfer (SHOT).

Liang, Hu and Feng, "Do we really need to access the source data? Source hypothesis transfer for
unsupervised domain adaptation", ICML 2020, arXiv:2002.08546. A round on the source with smoothed
labels (eq. (2)); then rounds on the target alone, the classifier frozen and everything below it
trained by information maximisation (eqs. (3)) and by pseudo-labels of centroids (eqs. (4) to (6)),
with eq. (7). Bottleneck and weight-normalised classifier as in section 3.4.

Differs from the paper: the backbone learns at the rate of the new layers (the paper's pretrained
ones at a tenth of it); pseudo-labels are made anew in each round, whose steps are counted, and the
schedule of the learning rate begins anew with it; the optimiser goes on from the source's, unless
`train.reset_optimizer`. The authors' code appends a 1 to the features in front of the cosine
distance and takes 30 epochs and β = .1 for digits; here the distance is the paper's.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from tlresearch.adaptation.method import AdaptationMethod, Chosen, DomainBatch, DomainData, Round
from tlresearch.adaptation.networks import AdaptedClassifier
from tlresearch.backbones.layers import BatchNorm1d
from tlresearch.functional.entropies import diversity, entropies
from tlresearch.functional.losses import cross_entropy
from tlresearch.functional.pseudo_labels import centroid_labels
from tlresearch.training.method import Loss
from tlresearch.training.settings import Count, Fraction, NonNegative, Train
from tlresearch.training.tree import Tree


def smoothed_cross_entropy(
    logits: Float[Tensor, "batch classes"],
    y: Int64[Tensor, " batch"],
    smoothing: Tensor | float,
) -> Float[Tensor, ""]:
    """−(1/N) Σₙ Σₖ qₙₖ log softmax(zₙ)ₖ with q = (1 − α) · 1[k = yₙ] + α / K, eq. (2).

    Args:
        logits: z.
        y: labels.
        smoothing: α in [0, 1).
    """
    uniform = -logits.log_softmax(-1).mean()
    return (1 - smoothing) * cross_entropy(logits, y) + smoothing * uniform


class WeightNormLinear(nn.Module):
    """zₖ = gₖ vₖ·x / ‖vₖ‖ + bₖ (Salimans and Kingma, arXiv:1602.07868), at first with gₖ = ‖vₖ‖."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.xavier_normal_(self.direction)
        self.length = nn.Parameter(self.direction.detach().norm(dim=1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        scale = self.length / self.direction.square().sum(1).sqrt()
        return x @ (self.direction * scale.unsqueeze(1)).mT + self.bias


@dataclass(frozen=True)
class SHOT(AdaptationMethod):
    """Source first, then the target alone with the source's classifier: nobody sees both."""

    rounds: Count = 15
    """Rounds on the target; each begins with new pseudo-labels."""
    round_steps: Count | None = None
    """Steps of each of them; null: train.steps / rounds, rounded up."""
    smoothing: Fraction = 0.1
    """α of the source's smoothed labels, in [0, 1)."""
    pseudo: NonNegative = 0.3
    """β, weight of the pseudo-labels, at least 0; the paper takes .3, and .1 for digits."""
    entropy: NonNegative = 1.0
    """Weight of the mean entropy of predictions."""
    diversity: NonNegative = 1.0
    """Weight of the entropy of the mean prediction, which is enlarged."""
    bottleneck: Count | None = 256
    """Units of the linear layer with batch norm below the classifier; null: there is none."""
    weight_norm: bool = True
    """Whether the classifier is weight-normalised."""

    def problem(self) -> str | None:
        if self.head:
            return "head: the classifier of shot is one layer; use `bottleneck` and leave head out"
        return None

    def extend(self, networks: AdaptedClassifier, classes: int) -> None:
        """Bottleneck, and the classifier on it."""
        width = self.bottleneck or networks.backbone.width
        if self.bottleneck:
            below = nn.Linear(networks.backbone.width, width, bias=False)  # the norm has a shift
            networks.bottleneck = nn.Sequential(below, BatchNorm1d(width))
        networks.head = (
            WeightNormLinear(width, classes) if self.weight_norm else nn.Linear(width, classes)
        )

    def parts(self, train: Train) -> tuple[Round, ...]:
        steps = self.round_steps or -(-train.steps // self.rounds)
        return (Round(train.steps, target=False), *[Round(steps, source=False)] * self.rounds)

    def before_round(
        self, networks: AdaptedClassifier, state: Tree, number: int, data: DomainData
    ) -> tuple[Tree, Chosen | None]:
        """All of the target, labelled by centroids of its features."""
        if number == 0:
            return state, None
        z = torch.cat([networks.features(x) for x in data.target()])
        labels = centroid_labels(z, networks.head(z).softmax(-1))
        return state, Chosen(torch.arange(len(labels), device=z.device), labels, labels)

    def loss(self, networks: AdaptedClassifier, state: Tree, batch: DomainBatch) -> Loss:
        """Eq. (2) in the round on the source; eq. (7) in those on the target, in nats."""
        if batch.target_y is None:
            logits = networks(batch.source_x)
            value = smoothed_cross_entropy(logits, batch.source_y, self.smoothing)
            return Loss(value, {"cross_entropy": value})
        # No gradient reaches the classifier, so that the optimiser passes over it: a gradient of 0
        # would let momentum and weight decay go on.
        frozen = {name: p.detach() for name, p in networks.head.named_parameters()}
        logits = functional_call(networks.head, frozen, (networks.features(batch.target_x),))
        mean, spread = entropies(logits).mean(), diversity(logits)
        labels = cross_entropy(logits, batch.target_y)
        return Loss(
            self.entropy * mean - self.diversity * spread + self.pseudo * labels,
            {"entropy": mean, "diversity": spread, "pseudo": labels},
        )
