"""Baseline: classification of all training classes, then a new linear head in each episode.

Chen et al., "A closer look at few-shot classification", ICLR 2019, arXiv:1904.04232, section 3.2:
training minimises the cross-entropy of W'f(x) over all training classes; in the test f is frozen
and a new classifier is trained on the support set, by SGD with learning rate .01, momentum .9,
dampening .9, weight decay .001 and batches of 4 for 100 iterations.

Differs from the paper: each step of the new head takes the whole support set and not 4 random
images, and there are `head.steps` of them (100, where the authors' code goes 100 times through the
support set: 200 steps for 5 ways and 1 shot, 700 for 5 shots). The head starts at 0 and not at
random weights, so a prediction depends on the episode alone.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.data.episodes import labels
from tlresearch.fewshot.classes import ClassifierMethod
from tlresearch.fewshot.heads import HeadTraining, Weights
from tlresearch.functional.losses import cross_entropy
from tlresearch.training.tree import Tree


@dataclass(frozen=True)
class Baseline(ClassifierMethod):
    """Softmax regression on the frozen features of the support set."""

    evaluation_fields: ClassVar[tuple[str, ...]] = ("head",)

    head: HeadTraining = field(default_factory=HeadTraining)
    """How the new head is trained."""

    def compare(
        self,
        networks: nn.Module,
        state: Tree,
        support: Float[Tensor, "ways shots dim"],
        query: Float[Tensor, "queries dim"],
    ) -> Float[Tensor, "queries ways"]:
        """W'f(x̂) + b, W and b trained on the support set."""
        ways, shots, dim = support.shape
        x, y = support.flatten(0, 1), labels(ways, shots, support.device)

        def loss(weights: Weights) -> Tensor:
            return cross_entropy(x @ weights["w"] + weights["b"], y)

        start = {"w": support.new_zeros(dim, ways), "b": support.new_zeros(ways)}
        trained = self.head.descend(loss, start)
        return query @ trained["w"] + trained["b"]
