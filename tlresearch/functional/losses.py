"""Classification losses that can be mapped over seeds, differentiated twice and compiled."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def mask_logits(
    logits: Float[Tensor, "*batch classes"], mask: Bool[Tensor, "*active"] | None
) -> Float[Tensor, "*batch classes"]:
    """z with −∞ where a class is not active, so that softmax gives it probability 0.

    Args:
        logits: z, any batch shape.
        mask: True where a class is active, shape (classes,) or (batch, classes); None: all are.
    """
    return logits if mask is None else logits.masked_fill(~mask, -float("inf"))


def cross_entropy(
    logits: Float[Tensor, "batch classes"],
    y: Int64[Tensor, " batch"],
    mask: Bool[Tensor, "*active"] | None = None,
) -> Float[Tensor, ""]:
    """−(1/N) Σₙ log softmax(zₙ)[yₙ], the softmax over the active classes only.

    Args:
        logits: z, unnormalised log-probabilities.
        y: labels in [0, classes); each must be active.
        mask: as in `mask_logits`.

    Returns:
        Mean over the batch, in nats; infinite if a label is not active.
    """
    return F.cross_entropy(mask_logits(logits, mask), y)
