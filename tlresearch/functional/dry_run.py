"""A pass that leaves no trace: for shapes and costs of a network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within: every module in evaluation mode; afterwards each in the mode it was found in."""
    before = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in before:
            module.training = mode


@torch.no_grad()
def dry_run(model: nn.Module, shape: tuple[int, ...]) -> Any:
    """f(0) in evaluation mode; weights, buffers, modes and random state stay as they are.

    Args:
        model: on any device, of any one type.
        shape: of the input, the batch included.
    """
    tensors = [*model.parameters(), *model.buffers()]
    like = next((t for t in tensors if t.is_floating_point()), torch.zeros(()))
    x = torch.zeros(shape, dtype=like.dtype, device=like.device)
    # What a module writes into a buffer goes into a copy of it.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = [like.device] if like.device.type == "cuda" else []
    with evaluating(model), torch.random.fork_rng(devices=devices):
        return functional_call(model, buffers, (x,))
