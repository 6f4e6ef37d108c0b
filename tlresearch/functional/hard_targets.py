"""Smoothed labels: the control of distillation, soft targets that no teacher gave.

Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, arXiv:1512.00567, section 7;
Müller, Kornblith and Hinton, "When does label smoothing help?", NeurIPS 2019, arXiv:1906.02629.
"""

from jaxtyping import Float, Int64
from torch import Tensor

from tlresearch.functional.losses import cross_entropy
from tlresearch.functional.precision import at_least_float32


def smoothed_cross_entropy(
    logits: Float[Tensor, "batch classes"],
    y: Int64[Tensor, " batch"],
    smoothing: Tensor | float,
) -> Float[Tensor, ""]:
    """−(1/N) Σₙ Σₖ qₙₖ log softmax(zₙ)ₖ with qₙₖ = (1 − α) · 1[k = yₙ] + α / K.

    Müller et al., section 1. It is `cross_entropy` for α = 0, and up to a constant
    (1 − α) · cross_entropy + α · KL(uniform ‖ softmax(z)): a teacher that knows nothing.

    Args:
        logits: z.
        y: labels in [0, K).
        smoothing: α in [0, 1); .1 in both papers.

    Returns:
        Nats, in float32 at least; its minimum is the entropy of q.
    """
    z = at_least_float32(logits)
    uniform = -z.log_softmax(-1).mean()
    return (1 - smoothing) * cross_entropy(z, y) + smoothing * uniform
