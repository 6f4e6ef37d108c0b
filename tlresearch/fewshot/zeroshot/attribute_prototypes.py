"""Attribute prototypes: attributes are predicted from features, the nearest class is chosen.

Palatucci, Pomerleau, Hinton and Mitchell, "Zero-shot learning with semantic output codes",
NIPS 2009: a linear map with an L2 penalty from inputs to semantic features, then the
class whose semantic features are the nearest.

Differs from the paper: the cosine may take the distance's place, as is usual where attribute
vectors are normalised; the intercept is not penalised; the penalty comes from the experiment
file's `select` on validation classes and not from generalised cross-validation.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from tlresearch.fewshot.zeroshot.method import ZeroShotMethod
from tlresearch.settings import Bounds


class AttributeHead(NamedTuple):
    """a(x) = a̅ + Wᵀ (x − x̅)."""

    weights: Float[Tensor, "dim attributes"]
    feature_mean: Float[Tensor, " dim"]
    attribute_mean: Float[Tensor, " attributes"]


def ridge_head(
    features: Float[Tensor, "n dim"], targets: Float[Tensor, "n attributes"], ridge: float
) -> AttributeHead:
    """Minimises Σᵢ ‖a(xᵢ) − aᵢ‖² + r ‖W‖²: W = (X̃ᵀX̃ + r I)⁻¹ X̃ᵀÃ, with X̃ and Ã centred.

    Args:
        features: xᵢ.
        targets: aᵢ, the attributes of each sample's class.
        ridge: r > 0; the intercept is free of it.

    Raises:
        torch.linalg.LinAlgError: the matrix is singular, which rounding does to a tiny r.
    """
    centre, middle = features.mean(0), targets.mean(0)
    x, a = features - centre, targets - middle
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return AttributeHead(torch.linalg.solve(x.T @ x + ridge * identity, x.T @ a), centre, middle)


def predict_attributes(
    head: AttributeHead, features: Float[Tensor, "n dim"]
) -> Float[Tensor, "n attributes"]:
    """a(x)."""
    return head.attribute_mean + (features - head.feature_mean) @ head.weights


def negative_squared_distance(
    predicted: Float[Tensor, "n attributes"], prototypes: Float[Tensor, "classes attributes"]
) -> Float[Tensor, "n classes"]:
    """−‖a − s_c‖² = 2 aᵀs_c − ‖s_c‖² − ‖a‖²."""
    cross = 2 * predicted @ prototypes.T
    return cross - prototypes.square().sum(1) - predicted.square().sum(1, keepdim=True)


@dataclass(frozen=True)
class AttributePrototypes(ZeroShotMethod):
    """Predicts the attributes of an image by ridge regression; the nearest class's are chosen."""

    ridge: Annotated[float, Bounds(gt=0)] = 1.0
    """r, above 0; comparable with eigenvalues of X̃ᵀX̃, so what is best grows with n."""
    nearest: Literal["cosine", "squared"] = "cosine"
    """By the cosine of predicted and class attributes, or by their squared distance."""

    def fit(
        self,
        features: Tensor,
        labels: Int64[Tensor, " n"],
        attributes: Float[Tensor, "classes attributes"],
        seed: int,
    ) -> AttributeHead:
        return ridge_head(features, attributes[labels], self.ridge)

    def scores(
        self, fitted: AttributeHead, features: Tensor, attributes: Tensor
    ) -> Float[Tensor, "n classes"]:
        predicted = predict_attributes(fitted, features)
        if self.nearest == "squared":
            return negative_squared_distance(predicted, attributes)
        return F.normalize(predicted, dim=1) @ F.normalize(attributes, dim=1).T
