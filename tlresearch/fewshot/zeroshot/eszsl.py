"""ESZSL, an embarrassingly simple approach to zero-shot learning.

Romera-Paredes and Torr, "An embarrassingly simple approach to zero-shot learning", ICML 2015:
`bilinear_map` is their one-line solution (section 3). In their symbols X is (dim, n), Y is
(n, classes) with entries in {−1, 1}, S is (attributes, classes); here samples and classes are rows.

Differs from the paper: nothing in the method. γ and λ are chosen by the experiment file's `select`
on validation classes, with the metric that it names.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tlresearch.fewshot.zeroshot.method import ZeroShotMethod
from tlresearch.settings import Bounds

Positive = Annotated[float, Bounds(gt=0)]


def bilinear_map(
    features: Float[Tensor, "n dim"],
    labels: Int64[Tensor, " n"],
    attributes: Float[Tensor, "classes attributes"],
    feature_ridge: float,
    attribute_ridge: float,
) -> Float[Tensor, "dim attributes"]:
    """V = (X Xᵀ + γ I)⁻¹ X Y Sᵀ (S Sᵀ + λ I)⁻¹.

    It minimises ‖XᵀVS − Y‖² + γ ‖VS‖² + λ ‖XᵀV‖² + γ λ ‖V‖²: the paper's loss
    with its regulariser and its choice β = γ λ, all norms Frobenius's.

    Args:
        features: Xᵀ.
        labels: rows of `attributes`; Y is 1 at a sample's class and −1 elsewhere.
        attributes: Sᵀ, of the classes that are trained on.
        feature_ridge: γ > 0.
        attribute_ridge: λ > 0.

    Raises:
        torch.linalg.LinAlgError: a matrix is singular, which rounding does to a tiny γ or λ.
    """
    # X Y: with one 1 in a row of −1, column c is twice the class's sum less the sum of all.
    sums = features.new_zeros(len(attributes), features.shape[1]).index_add(0, labels, features)
    signed = (2 * sums - features.sum(0)).T
    left = _regularised(features.T @ features, feature_ridge)
    right = _regularised(attributes.T @ attributes, attribute_ridge)
    visual = torch.linalg.solve(left, signed @ attributes)
    return torch.linalg.solve(right, visual, left=False)


def _regularised(square: Float[Tensor, "a a"], strength: float) -> Float[Tensor, "a a"]:
    return square + strength * torch.eye(len(square), dtype=square.dtype, device=square.device)


class ESZSLFit(NamedTuple):
    """V, (dim, attributes)."""

    weights: Tensor


@dataclass(frozen=True)
class ESZSL(ZeroShotMethod):
    """Scores xᵀ V s_c, bilinear in features and attributes, with V in closed form."""

    feature_ridge: Positive = 1.0
    """γ, above 0; comparable with eigenvalues of X Xᵀ, so what is best grows with n."""
    attribute_ridge: Positive = 1.0
    """λ, above 0; comparable with eigenvalues of S Sᵀ."""

    def fit(self, features: Tensor, labels: Tensor, attributes: Tensor, seed: int) -> ESZSLFit:
        ridges = self.feature_ridge, self.attribute_ridge
        return ESZSLFit(bilinear_map(features, labels, attributes, *ridges))

    def scores(
        self, fitted: ESZSLFit, features: Tensor, attributes: Tensor
    ) -> Float[Tensor, "n classes"]:
        return features @ fitted.weights @ attributes.T
