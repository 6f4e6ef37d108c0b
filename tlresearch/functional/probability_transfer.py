"""Probabilistic knowledge transfer (PKT): a neighbour's probability by cosine similarity.

Passalis and Tefas, "Learning deep representations with probabilistic knowledge transfer", ECCV
2018, arXiv:1803.10837, with the cosine kernel and the Kullback-Leibler divergence.

Differs from the paper by default (`form="code"`): in the authors' code a sample is its own
neighbour too, and the sum over all pairs is divided by B². And always by ε = 1e-7 in the kernel
(the authors' code has it inside the logarithm): else the loss is infinite where the student sees
two opposite vectors.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.functional.features import Form, full_precision, prepared, unit

_FLOOR = 1e-7


def log_neighbours(
    feature: Float[Tensor, "batch *shape"], form: Form = "code"
) -> Float[Tensor, "batch batch"]:
    """[i, j]: log p(j | i), p(j | i) = K(xᵢ, xⱼ) / Σₖ K(xᵢ, xₖ), K = ½ (1 + cos) + ε.

    The cosine with a feature of zeros is 0.

    Args:
        feature: x, any shape.
        form: `paper` leaves out k = i, and p(i | i) is 0.
    """
    directions = unit(feature.flatten(1))
    # Rounding may put a cosine below -1.
    kernel = (0.5 * (1 + directions @ directions.T)).clamp_min(0) + _FLOOR
    if form == "paper":
        kernel = kernel.masked_fill(_diagonal(kernel), 0)
    return kernel.log() - kernel.sum(1, keepdim=True).log()


def _diagonal(kernel: Tensor) -> Tensor:
    return torch.eye(len(kernel), dtype=torch.bool, device=kernel.device)


def probability_transfer_loss(
    student: Float[Tensor, "batch *student"],
    teacher: Float[Tensor, "batch *teacher"],
    form: Form = "code",
) -> Float[Tensor, ""]:
    """(1/B²) Σᵢ KL(p(· | i) ‖ q(· | i)) in nats, p the teacher's `log_neighbours`, q the student's.

    With `form="paper"` Σᵢ KL, neither a sample among its own neighbours. RepDistiller's weight of
    30,000 belongs to `code`.

    Args:
        student: B ≥ 2 features of any shape.
        teacher: likewise, of the same samples; no gradient flows to it.
        form: as said.
    """
    with full_precision(student):
        s, t = prepared(student, teacher)
        log_p, log_q = log_neighbours(t, form), log_neighbours(s, form)
        if form == "code":
            return (log_p.exp() * (log_p - log_q)).mean()
        own = _diagonal(log_p)
        log_p, log_q = (log.masked_fill(own, 0) for log in (log_p, log_q))
        return (log_p.exp() * (log_p - log_q)).sum()
