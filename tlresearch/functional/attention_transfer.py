"""Attention transfer (AT): where a layer is active, whatever its channels are.

Zagoruyko and Komodakis, "Paying more attention to attention", ICLR 2017, arXiv:1612.03928,
section 3.1, activation-based, F^p_sum; `attention_transfer_loss` is the term of eq. (2) of one
pair of layers.

Differs from the paper by default (`form="code"`): the paper has the norm of the difference of two
maps, the authors' code and the benchmarks that follow it the mean of its squares over samples and
places. Neither has the factor β/2. Of different sizes the larger feature map is average-pooled
first, as in RepDistiller; the paper would interpolate attention maps.
"""

from jaxtyping import Float
from torch import Tensor

from tlresearch.functional.features import (
    Form,
    full_precision,
    length,
    pooled_alike,
    prepared,
    scaled,
    unit,
)

Maps = Float[Tensor, "batch channels rows columns"]


def attention(feature: Maps, power: Tensor | float = 2.0) -> Float[Tensor, "batch places"]:
    """Q / ‖Q‖₂ with Q = Σ_c |F_c|^p at each place, flattened; 0 for a map of zeros.

    Whether channels are summed or averaged, and the scale of F, has no effect.

    Args:
        feature: F.
        power: p ≥ 1; 2 in the paper's experiments.
    """
    return unit(scaled(feature, each=True).abs().pow(power).sum(1).flatten(1))


def attention_transfer_loss(
    student: Maps,
    teacher: Float[Tensor, "batch teacher_channels teacher_rows teacher_columns"],
    power: Tensor | float = 2.0,
    form: Form = "code",
) -> Float[Tensor, ""]:
    """(1/BP) Σ (q_s − q_t)², or with `form="paper"` (1/B) Σ ‖q_s − q_t‖₂; q is `attention`.

    P is the number of places. Published weights β are 1,000 in the authors' code and RepDistiller
    (`code`); the paper's eq. (2) has β/2 before the norm.

    Args:
        student: maps, of any number of channels.
        teacher: likewise; no gradient flows to it.
        power: p of `attention`.
        form: mean of squares or norm.
    """
    with full_precision(student):
        s, t = pooled_alike(*prepared(student, teacher))
        difference = attention(s, power) - attention(t, power)
        return difference.square().mean() if form == "code" else length(difference).mean()
