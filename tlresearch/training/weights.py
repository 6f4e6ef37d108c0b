"""The weights of one network, as they are handed out."""

import torch
from torch import Tensor, nn


def weights_of(networks: nn.Module) -> dict[str, Tensor]:
    """A copy of the `state_dict` on the CPU: parameters and persistent buffers, by name.

    No tensor shares memory with another or with the networks, not even tied ones, and each lies
    in memory row by row, whatever the order in which the stack keeps it.
    """
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in networks.state_dict().items()
    }
