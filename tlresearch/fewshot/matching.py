"""Matching networks.

Vinyals et al., "Matching networks for one shot learning", NeurIPS 2016, arXiv:1606.04080: eq. (1),
P(ŷ | x̂, S) = Σᵢ a(x̂, xᵢ) yᵢ, with the attention of section 2.1.1,
a(x̂, xᵢ) = exp c(f(x̂), g(xᵢ)) / Σⱼ exp c(f(x̂), g(xⱼ)), c the cosine.

Differs from the paper: f = g, one network, without full context embeddings (the LSTMs of section
2.1.2; the rows of its tables that say "Fce: N"). `scale` lets the attention be sharper than the
paper's: with the plain cosine the winner of N ways gets less than e² / (e² + N − 1).
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.fewshot.method import MetricMethod
from tlresearch.functional.distances import cosine_similarity
from tlresearch.training.settings import Positive
from tlresearch.training.tree import Tree


def log_attention_by_class(
    similarity: Float[Tensor, "queries ways shots"],
) -> Float[Tensor, "queries ways"]:
    """log Σ_k a(x̂, x_ck), a the softmax over all ways · shots: log-probabilities of the classes.

    By log-sum-exp: finite wherever the similarities are.
    """
    attention = similarity.flatten(-2).log_softmax(-1)
    return attention.unflatten(-1, similarity.shape[-2:]).logsumexp(-1)


@dataclass(frozen=True)
class MatchingNetwork(MetricMethod):
    """A query's label is the attention-weighted mean of the support's labels."""

    scale: Positive = 1.0
    """Factor on the cosine in the attention, above 0; 1 in the paper."""

    def compare(
        self,
        networks: nn.Module,
        state: Tree,
        support: Float[Tensor, "ways shots dim"],
        query: Float[Tensor, "queries dim"],
    ) -> Float[Tensor, "queries ways"]:
        """log P(ŷ | x̂, S) of eq. (1): its cross-entropy is the −log of the class's attention."""
        cosine = cosine_similarity(query, support.flatten(0, 1))
        return log_attention_by_class(self.scale * cosine.unflatten(-1, support.shape[:2]))
