"""Distances and similarities between two sets of vectors; they map, differentiate and compile."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Matrix = Float[Tensor, "first second"]


def squared_euclidean(a: Float[Tensor, "first dim"], b: Float[Tensor, "second dim"]) -> Matrix:
    """‖aᵢ − bⱼ‖², by ‖a‖² − 2ab + ‖b‖² around the mean of b.

    The shift changes no distance, and keeps the difference of large squares from eating digits.
    """
    centre = b.mean(0, keepdim=True)
    a, b = a - centre, b - centre
    squares = a.square().sum(1, keepdim=True) + b.square().sum(1)
    return (squares - 2 * a @ b.T).clamp_min(0)


def euclidean(a: Float[Tensor, "first dim"], b: Float[Tensor, "second dim"]) -> Matrix:
    """‖aᵢ − bⱼ‖; its gradient is finite at 0, where it is that of √(‖·‖² + ε)."""
    squared = squared_euclidean(a, b)
    return (squared + torch.finfo(squared.dtype).eps).sqrt()


def cosine_similarity(a: Float[Tensor, "first dim"], b: Float[Tensor, "second dim"]) -> Matrix:
    """aᵢ · bⱼ / (‖aᵢ‖ ‖bⱼ‖); 0 for a vector of zeros."""
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
