"""What a network costs: parameters, and floating-point operations of one sample.

A multiply-add counts as 2 operations. Counted by `torch.utils.flop_counter.FlopCounterMode`:
matrix products, convolutions and attention; not biases, norms, activations and pooling. So a linear
layer costs 2 · inputs · outputs, a convolution 2 · k² · (inputs / groups) · outputs · pixels of its
output. Papers that count multiply-adds ("MACs", or FLOPs of the ResNet papers) report half of it.
"""

from typing import NamedTuple

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tlresearch.functional.dry_run import dry_run


class Parameters(NamedTuple):
    """How many numbers a network has, each shared tensor counted once."""

    all: int
    trainable: int
    """Of those that require a gradient."""


def count_parameters(model: nn.Module) -> Parameters:
    """Σ sizes of the parameters; running statistics and other buffers are not parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return Parameters(sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained))


def forward_flops(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Floating-point operations of a forward pass of one sample in evaluation mode.

    The model stays as it is.

    Args:
        model: on any device.
        input_shape: of one sample, without the batch.
    """
    with FlopCounterMode(display=False) as counter:
        dry_run(model, (1, *input_shape))
    return counter.get_total_flops()
