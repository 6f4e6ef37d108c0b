"""Prototypical networks.

Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017,
arXiv:1703.05175. A class's prototype is the mean of its support features (eq. 1), a query's class
has the probability softmax(−d(z, cₖ)) (eq. 2), and the loss is −log of it (section 2.2).

Differs from the paper: nothing with `distance: squared`, its choice; the others are for ablations.
The authors train with more ways than they test with, 60 on Omniglot: `train_ways`.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.fewshot.method import MetricMethod
from tlresearch.functional.distances import cosine_similarity, euclidean, squared_euclidean
from tlresearch.training.tree import Tree


@dataclass(frozen=True)
class PrototypicalNetwork(MetricMethod):
    """Classifies by the nearest mean of a class's support features."""

    distance: Literal["squared", "euclidean", "cosine"] = "squared"
    """d: the squared Euclidean distance, its root, or 1 − cosine similarity."""

    def compare(
        self,
        networks: nn.Module,
        state: Tree,
        support: Float[Tensor, "ways shots dim"],
        query: Float[Tensor, "queries dim"],
    ) -> Float[Tensor, "queries ways"]:
        """−d(z, cₖ) with cₖ the mean of class k's support, eqs. (1) and (2)."""
        return -distance(self.distance, query, support.mean(1))


def distance(
    kind: str, query: Float[Tensor, "queries dim"], prototypes: Float[Tensor, "ways dim"]
) -> Float[Tensor, "queries ways"]:
    """d between queries and prototypes; `kind` is a value of `PrototypicalNetwork.distance`."""
    if kind == "squared":
        return squared_euclidean(query, prototypes)
    if kind == "euclidean":
        return euclidean(query, prototypes)
    return 1 - cosine_similarity(query, prototypes)
