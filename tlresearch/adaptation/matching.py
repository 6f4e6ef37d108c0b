"""Which layers of the two domains a discrepancy is measured on."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.adaptation.passes import Passed

Layer = Literal["features", "logits", "probabilities"]

Discrepancy = Callable[[Tensor, Tensor], Tensor]
"""(source, target), a row for each sample, to a scalar."""


def layers_problem(layers: tuple[Layer, ...]) -> str | None:
    """What is wrong with a setting `layers`, or None."""
    if not layers or len(set(layers)) < len(layers):
        return (
            "layers: expected some of features, logits and probabilities, each once, not "
            f"{list(layers)}"
        )
    return None


def discrepancies(
    source: Passed, target: Passed, layers: tuple[Layer, ...], of: Discrepancy
) -> Float[Tensor, ""]:
    """Sum over the layers of a discrepancy between source and target.

    In float32 at least: differences of large sums, of which half precision leaves nothing.
    """
    with torch.autocast(source.z.device.type, enabled=False):
        pairs = ((_layer(source, name), _layer(target, name)) for name in layers)
        return torch.stack([of(*pair) for pair in pairs]).sum()


def _layer(passed: Passed, name: Layer) -> Tensor:
    tensor = passed.z if name == "features" else passed.logits
    tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    return tensor.softmax(1) if name == "probabilities" else tensor
