"""How exactly a loss computes where activations are in half precision."""

import torch
from jaxtyping import Float
from torch import Tensor


def at_least_float32(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """x in float32, or in its own type where that is wider.

    Logarithms and differences of large sums keep nothing in half precision; what is made of the
    result elementwise and by sums stays wide under autocast too (a matrix product does not).
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
