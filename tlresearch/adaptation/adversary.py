"""What a discriminator of domains minimises, and how often it is right."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Weights = Float[Tensor, " samples"]


def domain_loss(
    source: Float[Tensor, "source 1"],
    target: Float[Tensor, "target 1"],
    weights: tuple[Float[Tensor, " source"], Float[Tensor, " target"]] | None = None,
) -> Float[Tensor, ""]:
    """½ (mean −log σ(d) over the source + mean −log(1 − σ(d)) over the target), in nats.

    Both domains count the same, whatever their sizes.

    Args:
        source: logits d of "this is source".
        target: likewise.
        weights: w of each sample of the two, for weighted means Σ w ℓ / Σ w, in which Σ w counts
            as a constant; None: 1.
    """
    of_source, of_target = F.softplus(-source[:, 0]), F.softplus(target[:, 0])
    if weights is None:
        return 0.5 * (of_source.mean() + of_target.mean())
    pairs = zip(weights, (of_source, of_target), strict=True)
    return 0.5 * torch.stack([(w * loss).sum() / w.sum().detach() for w, loss in pairs]).sum()


def domain_accuracy(
    source: Float[Tensor, "source 1"], target: Float[Tensor, "target 1"]
) -> Float[Tensor, ""]:
    """Mean over the two domains of the fraction of their samples that are told right."""
    right = ((logits > 0).to(logits.dtype).mean() for logits in (source, -target))
    return 0.5 * torch.stack(list(right)).sum()
