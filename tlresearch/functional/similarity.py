"""Similarity-preserving distillation (SP): which samples of a batch a layer finds alike.

Tung and Mori, "Similarity-preserving knowledge distillation", ICCV 2019, arXiv:1907.09682,
eqs. (1) to (4), of one pair of layers.
"""

from jaxtyping import Float
from torch import Tensor

from tlresearch.functional.features import full_precision, prepared, scaled, unit


def similarities(feature: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch batch"]:
    """G with rows G̃ᵢ / ‖G̃ᵢ‖₂, G̃ = QQᵀ, Q the features as rows; eqs. (1) to (3).

    The scale of the features and a rotation of them have no effect. A row of a sample whose
    feature is 0 is 0.
    """
    rows = scaled(feature.flatten(1))
    return unit(rows @ rows.T)


def similarity_loss(
    student: Float[Tensor, "batch *student"], teacher: Float[Tensor, "batch *teacher"]
) -> Float[Tensor, ""]:
    """‖G_s − G_t‖²_F / B², eq. (4) of one pair of layers; G is `similarities`.

    Args:
        student: B features of any shape.
        teacher: B features of any shape, of the same samples; no gradient flows to it.
    """
    with full_precision(student):
        s, t = prepared(student, teacher)
        return (similarities(s) - similarities(t)).square().mean()
