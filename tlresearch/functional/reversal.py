"""Gradient reversal."""

from jaxtyping import Float
from torch import Tensor


def reverse_gradient(
    x: Float[Tensor, "*shape"], scale: Float[Tensor, ""] | float = 1.0
) -> Float[Tensor, "*shape"]:
    """x itself, whose gradient is multiplied by −`scale`.

    The layer of Ganin et al., JMLR 2016, eqs. (15) and (16). Of primitives: maps, differentiates
    twice and compiles. In the value x − 0 the zero is exact where x is finite.

    Args:
        x: any shape.
        scale: λ ≥ 0; no gradient reaches it.
    """
    still = x.detach()
    return still - scale * (x - still)
