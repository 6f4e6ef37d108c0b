"""Ridge regression in closed form."""

import torch
from jaxtyping import Float
from torch import Tensor


def ridge_regression(
    x: Float[Tensor, "rows dim"], y: Float[Tensor, "rows outputs"], ridge: Tensor | float
) -> Float[Tensor, "dim outputs"]:
    """W = argmin ‖XW − Y‖² + λ‖W‖² = Xᵀ (XXᵀ + λI)⁻¹ Y.

    In this form the system has as many rows as there are samples. Differentiable in all three.

    Args:
        x: inputs, a sample a row.
        y: outputs.
        ridge: λ > 0, in squared units of X.
    """
    kernel = x @ x.mT
    return x.mT @ torch.linalg.solve(kernel + ridge * torch.eye(len(x)).to(kernel), y)
