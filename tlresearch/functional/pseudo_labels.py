"""Which pseudo-labels are kept, and labels by centroids: pure functions of predictions."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

_ROUNDING = 1e-9
"""Of a share times a number of samples: .1 · 30 shall be 3 and not 4."""


def above_threshold(confidence: Float[Tensor, " n"], threshold: float) -> Int64[Tensor, " kept"]:
    """{i : cᵢ > τ}, in rising order; none at τ = 1, all samples at τ < 1/classes.

    Args:
        confidence: c, the largest probability of each sample.
        threshold: τ.
    """
    return (confidence > threshold).nonzero().squeeze(1)


def most_confident(
    confidence: Float[Tensor, " n"],
    predicted: Int64[Tensor, " n"],
    classes: int,
    share: float,
    count: int | None = None,
) -> Int64[Tensor, " kept"]:
    """Of each predicted class its ⌈q · nₖ⌉, or `count`, most confident samples, in rising order.

    Equal confidences keep their order. A class that is not predicted has none.

    Args:
        confidence: of each sample.
        predicted: its class.
        classes: how many there are; 1 makes one pool of all samples, if all of it are class 0.
        share: q in [0, 1].
        count: samples of a class in place of the share; all where it has fewer.
    """
    kept = []
    for label in range(classes):
        members = (predicted == label).nonzero().squeeze(1)
        number = part_of(share, len(members)) if count is None else count
        order = confidence[members].argsort(descending=True, stable=True)
        kept.append(members[order[:number]])
    return torch.cat(kept).sort().values


def part_of(share: float, size: int) -> int:
    """⌈q · n⌉, the product rounded to nine digits first."""
    return math.ceil(share * size - _ROUNDING)


def growing_share(number: int, rounds: int, first: float, last: float) -> float:
    """q_r = first + (last − first) · (r − 1) / (R − 1) for round r of R; `last` where R = 1.

    Raises:
        ValueError: r is not within 1 … R.
    """
    if not 1 <= number <= rounds:
        raise ValueError(f"round {number} is not within 1 to {rounds}")
    return last if rounds == 1 else first + (last - first) * (number - 1) / (rounds - 1)


def centroid_labels(
    z: Float[Tensor, "n dim"], p: Float[Tensor, "n classes"], repeats: int = 1
) -> Int64[Tensor, " n"]:
    """argminₖ D(zᵢ, cₖ), D the cosine distance (Liang et al., arXiv:2002.08546, eqs. (4) to (6)).

    First cₖ = Σᵢ pᵢₖ zᵢ / Σᵢ pᵢₖ, the mean weighted by predictions (eq. (4)); then, `repeats`
    times, the mean of the samples that have the label k (eq. (6)). A class that has none of them
    is out of reach, as no sample says where it lies.

    Args:
        z: features.
        p: predicted probabilities.
        repeats: how often centroids are made of labels; 1 in the paper.
    """
    labels = _nearest(z, p)
    for _ in range(repeats):
        labels = _nearest(z, F.one_hot(labels, p.shape[1]).to(p.dtype))
    return labels


def _nearest(z: Tensor, weight: Tensor) -> Tensor:
    """Labels by the centroids of such weights; the length of a centroid has no effect."""
    similarity = F.normalize(z, dim=1) @ F.normalize(weight.mT @ z, dim=1).mT
    empty = weight.sum(0) == 0
    return similarity.masked_fill(empty, -float("inf")).argmax(1)
