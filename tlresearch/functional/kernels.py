"""How far apart two samples are: kernel mean embeddings (MMD) and covariances (CORAL).

Gretton et al., "A kernel two-sample test", JMLR 13 (2012), and for several kernels Gretton et al.,
NeurIPS 2012, and Long et al., "Learning transferable features with deep adaptation networks", ICML
2015, arXiv:1502.02791; Sun and Saenko, "Deep CORAL", ECCV workshops 2016, arXiv:1607.01719.

All of primitives, so that they map over seeds, differentiate and compile. Kernels are functions of
squared distances, whose gradient is finite where two points are equal.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.functional.distances import squared_euclidean

Samples = Float[Tensor, "_ dim"]
Scalar = Float[Tensor, ""]


def gaussian_kernel(
    squares: Float[Tensor, "first second"], bandwidth: Scalar | float, factors: Sequence[float]
) -> Float[Tensor, "first second"]:
    """(1/U) Σᵤ exp(−d² / (fᵤ γ)): a mean of U Gaussian kernels, each with bandwidth fᵤ γ.

    Long et al., arXiv:1502.02791, eq. (2), with equal weights βᵤ = 1/U. Gretton et al. write
    γ = 2σ².

    Args:
        squares: d², squared distances.
        bandwidth: γ > 0, in units of squared distances.
        factors: fᵤ > 0.
    """
    kernels = [torch.exp(-squares / (factor * bandwidth)) for factor in factors]
    return torch.stack(kernels).mean(0)


def median_bandwidth(x: Samples, y: Samples) -> Scalar:
    """γ, the median of ‖a − b‖² over all pairs of different samples of both; a constant.

    The heuristic of Gretton et al., JMLR 2012, section 8; of an even number of pairs, the mean of
    the two in the middle. No gradient flows through it.
    """
    squares = _pairs(x, y).sort().values
    count = len(squares)
    return _positive((squares[(count - 1) // 2] + squares[count // 2]) / 2)


def mean_bandwidth(x: Samples, y: Samples) -> Scalar:
    """γ, the mean of ‖a − b‖² over all pairs of different samples of both; a constant."""
    return _positive(_pairs(x, y).mean())


def _pairs(x: Samples, y: Samples) -> Float[Tensor, " pairs"]:
    """‖a − b‖² of each pair of different samples, once."""
    both = torch.cat([x, y]).detach()
    i, j = torch.triu_indices(len(both), len(both), 1, device=both.device)
    return squared_euclidean(both, both)[i, j]


def _positive(bandwidth: Scalar) -> Scalar:
    """Where all points are equal any bandwidth gives the same, but 0."""
    return torch.where(bandwidth > 0, bandwidth, torch.ones_like(bandwidth))


def biased_mmd(
    x: Float[Tensor, "first dim"],
    y: Float[Tensor, "second dim"],
    bandwidth: Scalar | float,
    factors: Sequence[float] = (1.0,),
) -> Scalar:
    """MMD² = (1/m²) Σᵢⱼ k(xᵢ, xⱼ) + (1/n²) Σᵢⱼ k(yᵢ, yⱼ) − (2/mn) Σᵢⱼ k(xᵢ, yⱼ), i = j too.

    Gretton et al., JMLR 2012, eq. (5) squared: at least 0, and too large by O(1/m + 1/n).

    Args:
        x: m samples.
        y: n samples.
        bandwidth: γ, see `gaussian_kernel`.
        factors: of γ, one for each kernel.
    """
    within_x, within_y, across = _kernels(x, y, bandwidth, factors)
    return within_x.mean() + within_y.mean() - 2 * across.mean()


def unbiased_mmd(
    x: Float[Tensor, "first dim"],
    y: Float[Tensor, "second dim"],
    bandwidth: Scalar | float,
    factors: Sequence[float] = (1.0,),
) -> Scalar:
    """MMD² as in `biased_mmd`, less the pairs i = j: 1/(m(m − 1)) Σᵢ≠ⱼ k(xᵢ, xⱼ) + … − (2/mn) ….

    Gretton et al., JMLR 2012, eq. (3): its mean is the true one, so it is below 0 at times.

    Args:
        x: m samples, at least 2.
        y: n samples, at least 2.
        bandwidth: γ, see `gaussian_kernel`.
        factors: of γ, one for each kernel.
    """
    within_x, within_y, across = _kernels(x, y, bandwidth, factors)
    return _mean_of_others(within_x) + _mean_of_others(within_y) - 2 * across.mean()


def _kernels(
    x: Samples, y: Samples, bandwidth: Scalar | float, factors: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """k within x, within y, and between them."""
    pairs = ((x, x), (y, y), (x, y))
    within_x, within_y, across = (
        gaussian_kernel(squared_euclidean(a, b), bandwidth, factors) for a, b in pairs
    )
    return within_x, within_y, across


def _mean_of_others(kernel: Float[Tensor, "count count"]) -> Scalar:
    """Of all but the diagonal."""
    count = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1))


def covariance(x: Float[Tensor, "count dim"]) -> Float[Tensor, "dim dim"]:
    """C = (XᵀX − (1/n) (1ᵀX)ᵀ(1ᵀX)) / (n − 1), of n ≥ 2 samples."""
    centred = x - x.mean(0, keepdim=True)
    return centred.T @ centred / (len(x) - 1)


def coral_loss(x: Float[Tensor, "first dim"], y: Float[Tensor, "second dim"]) -> Scalar:
    """‖C(x) − C(y)‖²_F / (4 d²), d the dimension; `covariance` of each.

    Sun and Saenko, arXiv:1607.01719, eqs. (1) to (3).

    Args:
        x: features of the source, at least 2 samples.
        y: features of the target, likewise.
    """
    difference = covariance(x) - covariance(y)
    return difference.square().sum() / (4 * x.shape[1] ** 2)
