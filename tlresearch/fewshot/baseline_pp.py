"""Baseline++: as Baseline, with cosines in the place of the linear heads' products.

Chen et al., "A closer look at few-shot classification", ICLR 2019, arXiv:1904.04232, section 3.2:
the score of class j is the cosine of f(x) and w_j, both in training and in the test; a softmax
follows.

Differs from the paper: nothing in the score, whose factor stands in the authors' code only (2, and
10 where there are more than 200 classes, so in training on Omniglot); that code also learns a norm
for each class, which is no cosine any more, and which ours leaves out. The new head is trained as
that of Baseline. It starts at the means of the classes' normalised features and not at random
weights: a cosine with 0 has no gradient.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.backbones import Backbone
from tlresearch.data.episodes import labels
from tlresearch.fewshot.classes import ClassifierMethod
from tlresearch.fewshot.heads import HeadTraining, Weights
from tlresearch.functional.distances import cosine_similarity
from tlresearch.functional.losses import cross_entropy
from tlresearch.training.method import Labelled, Loss
from tlresearch.training.settings import Positive
from tlresearch.training.tree import Tree


class CosineClassifier(nn.Module):
    """cos(backbone(x), w_j) for each class j.

    Args:
        backbone: gives the features.
        classes: how many.
    """

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.width, classes, bias=False)

    def features(self, x: Tensor) -> Float[Tensor, "batch width"]:
        """The feature vector of each image of the batch."""
        return self.backbone(x)

    def forward(self, x: Tensor) -> Float[Tensor, "batch classes"]:
        return cosine_similarity(self.features(x), self.head.weight)


@dataclass(frozen=True)
class BaselinePP(ClassifierMethod):
    """A classifier by cosines, on the frozen features of the support set."""

    training_kind: ClassVar[str] = "cosine classifier"
    evaluation_fields: ClassVar[tuple[str, ...]] = ("test_scale", "head")

    scale: Positive = 10.0
    """Factor on the cosines in training, above 0."""
    test_scale: Positive = 2.0
    """Factor on the cosines of the new head, above 0."""
    head: HeadTraining = field(default_factory=HeadTraining)
    """How the new head is trained."""

    def networks(
        self, backbone: Any, shape: tuple[int, int, int], classes: int, seed: int
    ) -> CosineClassifier:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return CosineClassifier(backbone.build(shape), classes)

    def loss(self, networks: nn.Module, state: Tree, batch: Labelled) -> Loss:
        """Mean cross-entropy of s cos(f(x), w_j) over the training classes, in nats."""
        value = cross_entropy(self.scale * networks(batch.x), batch.y)
        return Loss(value, {"cross_entropy": value})

    def compare(
        self,
        networks: nn.Module,
        state: Tree,
        support: Float[Tensor, "ways shots dim"],
        query: Float[Tensor, "queries dim"],
    ) -> Float[Tensor, "queries ways"]:
        """s cos(f(x̂), w_j), the w_j trained on the support set."""
        ways, shots, _ = support.shape
        x, y = support.flatten(0, 1), labels(ways, shots, support.device)

        def loss(weights: Weights) -> Tensor:
            return cross_entropy(self.test_scale * cosine_similarity(x, weights["w"]), y)

        start = {"w": F.normalize(support, dim=-1).mean(1)}
        trained = self.head.descend(loss, start)
        return self.test_scale * cosine_similarity(query, trained["w"])
