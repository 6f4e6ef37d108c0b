"""Entropies of predicted distributions, of logits and safe where a probability is 0."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def entropies(logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
    """H(p) = −Σₖ pₖ log pₖ of each row, p = softmax(z), in nats; between 0 and log(classes)."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def diversity(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
    """H(p̄) of the mean p̄ of the rows' softmax, in nats: log(classes) where all are predicted alike.

    −L_div of Liang et al., arXiv:2002.08546, eq. (3).
    """
    log_mean = torch.logsumexp(logits.log_softmax(-1), 0) - math.log(len(logits))
    return -(log_mean.exp() * log_mean).sum()


def tsallis_entropies(
    logits: Float[Tensor, "*batch classes"], order: Tensor | float
) -> Float[Tensor, "*batch"]:
    """S_α(p) = (1 − Σₖ pₖ^α) / (α − 1) of each row, p = softmax(z) (Tsallis, 1988).

    For α → 1 it is Shannon's entropy in nats, and for α = 2 Gini's impurity 1 − Σₖ pₖ². Written as
    −Σₖ pₖ · expm1((α − 1) log pₖ) / (α − 1), which stays exact near α = 1.

    Args:
        logits: z.
        order: α > 0; at α = 1 exactly the limit is taken.
    """
    log_p = logits.log_softmax(-1)
    above = torch.as_tensor(order, dtype=logits.dtype, device=logits.device) - 1
    at_one = above == 0
    slope = torch.where(at_one, torch.ones_like(above), above)
    ratio = torch.where(at_one, log_p, torch.expm1(slope * log_p) / slope)
    return -(log_p.exp() * ratio).sum(-1)
