"""w ← w · min(1, c / ‖w‖) for the incoming weights w of each unit, after a step of the optimiser.

Hinton, Srivastava, Krizhevsky, Sutskever and Salakhutdinov, arXiv:1207.0580, section on MNIST:
instead of a penalty on the weights, an upper bound c of the length of each unit's incoming weights,
without its bias. Here of every linear and convolutional layer, the output's, too.
"""

import torch
from torch import nn

from tlresearch.training.stack import SeedStack


@torch.no_grad()
def bound_weights(stack: SeedStack, longest: float) -> None:
    """Shortens the incoming weights of each unit to at most `longest`, of all seeds, in place.

    Args:
        stack: whose weights; a unit is a row of a linear layer or a filter of a convolution.
        longest: c, above 0.
    """
    for name in _weights(stack.module):
        weight = stack.params[name]  # (S, units, inputs…); shares memory with the leaves
        lengths = weight.flatten(2).norm(dim=2)
        factor = longest / lengths.clamp(min=longest)
        weight.mul_(factor.view(*lengths.shape, *[1] * (weight.dim() - 2)))


def _weights(module: nn.Module) -> list[str]:
    """Names of the weights that are bounded."""
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    return [
        f"{name}.weight" if name else "weight"
        for name, layer in module.named_modules()
        if isinstance(layer, kinds) and layer.weight.requires_grad
    ]
