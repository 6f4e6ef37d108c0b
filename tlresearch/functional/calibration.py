"""How far confidences are from accuracies, and the temperature that brings them nearer.

Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017,
arXiv:1706.04599.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

LOWEST, HIGHEST = 1e-3, 1e3
"""Temperatures that are looked at; where all predictions are right, the best one would be 0."""
_HALVINGS = 80


def expected_calibration_error(
    probabilities: Float[Tensor, "batch classes"], y: Int64[Tensor, " batch"], bins: int = 15
) -> Float[Tensor, ""]:
    """ECE = Σₘ (|Bₘ| / n) |acc(Bₘ) − conf(Bₘ)|, eq. (3).

    Bin m of M holds the samples whose largest probability is in ((m − 1) / M, m / M]: all bins are
    equally wide. acc is the fraction of right predictions, conf the mean of the largest
    probabilities.

    Args:
        probabilities: rows that sum to 1.
        y: labels.
        bins: M, at least 1; 15 in the paper.

    Returns:
        In [0, 1], float64.

    Raises:
        ValueError: there is no sample, or no bin.
    """
    if not len(y) or bins < 1:
        raise ValueError(f"calibration needs samples and bins, but got {len(y)} and {bins}")
    confidence, predicted = probabilities.double().max(-1)
    gap = (predicted == y).double() - confidence
    inner = torch.arange(1, bins, device=y.device, dtype=torch.float64) / bins
    sums = torch.zeros(bins, dtype=torch.float64, device=y.device)
    return sums.index_add(0, torch.bucketize(confidence, inner), gap).abs().sum() / len(y)


def best_temperature(
    logits: Float[Tensor, "batch classes"], y: Int64[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """T* = argmin over T of −(1/N) Σₙ log softmax(zₙ / T)[yₙ] (section 4.2, temperature scaling).

    In β = 1/T the mean is convex with the slope (1/N) Σₙ (E[z] − zₙ[yₙ]), E under softmax(β zₙ),
    so its sign is halved for in log β: no step size, and exact to float64.

    Args:
        logits: z of held-out samples; finite, of any size.
        y: their labels.

    Returns:
        T* within [LOWEST, HIGHEST], float64; 1 where all logits of each sample are equal.

    Raises:
        ValueError: there is no sample, or a logit that is not finite.
    """
    if not len(y) or not bool(logits.isfinite().all()):
        raise ValueError("temperature scaling needs held-out samples with finite logits")
    z = logits.double()
    z = z - z.amax(-1, keepdim=True)
    of_label = z.gather(1, y.unsqueeze(1)).squeeze(1)
    if not bool(z.any()):
        return torch.ones((), dtype=torch.float64, device=z.device)
    ends = torch.tensor([LOWEST, HIGHEST], dtype=torch.float64, device=z.device).log()
    low, high = ends[0], ends[1]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = ((z / middle.exp()).softmax(-1) * z).sum(-1)
        too_cold = (expected - of_label).mean() > 0  # less β would lower the loss
        low, high = torch.where(too_cold, middle, low), torch.where(too_cold, high, middle)
    return ((low + high) / 2).exp()
