"""Relational knowledge distillation (RKD): distances and angles within a batch.

Park et al., "Relational knowledge distillation", CVPR 2019, arXiv:1904.05068, eqs. (5) to (9).

Differs from the paper by default (`form="code"`): eqs. (7) and (9) sum over pairs and triples, the
authors' code divides by B² and B³ (also of those that are no pair or triple, with 0), and so the
weights mean the same for any batch. Their code divides distances by the mean of those above 0; ours
by the mean over all pairs of different samples, eq. (6), also if two samples coincide.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from tlresearch.functional.features import (
    Form,
    full_precision,
    length,
    prepared,
    scaled,
    unit,
)

Differences = Float[Tensor, "batch batch dim"]


def relative_distances(feature: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch batch"]:
    """ψ_D(xᵢ, xⱼ) = ‖xᵢ − xⱼ‖ / μ, μ the mean over all pairs i ≠ j; eqs. (5) and (6).

    0 where two samples coincide, with gradient 0 there; all 0 if all do. Needs two samples.
    """
    distances = length(_differences(feature))
    count = len(distances)
    mean = distances.sum() / (count * (count - 1))  # the diagonal is 0
    return distances / torch.where(mean > 0, mean, 1.0)


def angles(feature: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch batch batch"]:
    """[j, i, k]: cos ∠ xᵢxⱼxₖ, eq. (8); 0 where xᵢ or xₖ coincides with xⱼ."""
    directions = unit(_differences(feature))
    return directions @ directions.mT


def _differences(feature: Float[Tensor, "batch *shape"]) -> Differences:
    """[j, i]: xᵢ − xⱼ, up to a factor; B² times the memory of a feature."""
    rows = scaled(feature.flatten(1))
    return rows[None] - rows[:, None]


def distance_loss(
    student: Float[Tensor, "batch *student"],
    teacher: Float[Tensor, "batch *teacher"],
    form: Form = "code",
) -> Float[Tensor, ""]:
    """(1/B²) Σ over i ≠ j of l(ψ_D(tᵢ, tⱼ) − ψ_D(sᵢ, sⱼ)); without 1/B² as in the paper, eq. (7).

    l is Huber's: ½x² for |x| ≤ 1, |x| − ½ beyond.

    Args:
        student: s, B ≥ 2 features of any shape.
        teacher: t, likewise; no gradient flows to it.
        form: mean over B² or sum.
    """
    with full_precision(student):
        s, t = prepared(student, teacher)
        losses = _huber(relative_distances(s) - relative_distances(t))
        return losses.mean() if form == "code" else losses.sum()


def angle_loss(
    student: Float[Tensor, "batch *student"],
    teacher: Float[Tensor, "batch *teacher"],
    form: Form = "code",
) -> Float[Tensor, ""]:
    """(1/B³) Σ l(cos ∠ tᵢtⱼtₖ − cos ∠ sᵢsⱼsₖ), i, j, k different; the paper's eq. (9) is the sum.

    Args:
        student: s, B features of any shape; 0 for fewer than three.
        teacher: t, likewise; no gradient flows to it.
        form: mean over B³ or sum.
    """
    with full_precision(student):
        s, t = prepared(student, teacher)
        losses = torch.where(_triples(len(s), s), _huber(angles(s) - angles(t)), 0.0)
        return losses.mean() if form == "code" else losses.sum()


def _triples(count: int, like: Tensor) -> Bool[Tensor, "batch batch batch"]:
    """Where i, j and k are three samples."""
    other = ~torch.eye(count, dtype=torch.bool, device=like.device)
    return other[:, :, None] & other[:, None, :] & other[None, :, :]


def _huber(x: Tensor) -> Tensor:
    return F.huber_loss(x, torch.zeros_like(x), reduction="none")


def relational_loss(
    student: Float[Tensor, "batch *student"],
    teacher: Float[Tensor, "batch *teacher"],
    distance: Tensor | float = 25.0,
    angle: Tensor | float = 50.0,
    form: Form = "code",
) -> Float[Tensor, ""]:
    """λ_D · `distance_loss` + λ_A · `angle_loss`.

    Args:
        student: B ≥ 2 features of any shape.
        teacher: likewise; no gradient flows to it.
        distance: λ_D ≥ 0; 25 for classification, 1 for metric learning.
        angle: λ_A ≥ 0; 50 for classification, 2 for metric learning.
        form: of both.
    """
    of_distances = distance_loss(student, teacher, form)
    return distance * of_distances + angle * angle_loss(student, teacher, form)
