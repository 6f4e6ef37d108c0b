"""Seeds as a tensor dimension: the networks of S seeds as one program.

Parameters and buffers live stacked, with the seed first. With S > 1 a function written for one
network is mapped over them (`vmap` of `functional_call`); with S = 1 the same function is called
directly on a module whose parameters share memory with the stack.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils import _pytree as pytree

from tlresearch.training.tree import take

PerSeed = Callable[..., Any]
"""A function (networks, *args) of one seed's networks."""


class _Bound(nn.Module):
    """Lets `functional_call` reach any function of a network."""

    def __init__(self, networks: nn.Module, function: PerSeed) -> None:
        super().__init__()
        self.networks = networks
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(self.networks, *args)


@dataclass
class SeedStack:
    """The networks of S seeds. `params` and `buffers` have shape (S, …) by name.

    `module` is the network of one seed: with S = 1 its tensors *are* the stack's (they share
    memory), with S > 1 it only gives the structure.
    """

    module: nn.Module
    params: dict[str, Tensor]
    buffers: dict[str, Tensor]
    size: int

    @property
    def direct(self) -> bool:
        """Whether functions are called on the module itself instead of being mapped."""
        return self.size == 1

    def leaves(self) -> dict[str, Tensor]:
        """The tensors that the optimiser steps: (…) with S = 1, else (S, …)."""
        return dict(self.module.named_parameters()) if self.direct else self.params

    def train(self, mode: bool = True) -> None:
        """Training or evaluation mode, for all seeds."""
        self.module.train(mode)

    def bind(self, function: PerSeed, compile: bool = False) -> Callable[..., Any]:
        """`function` for all seeds: takes its arguments stacked, returns its results stacked.

        Args:
            function: takes (networks, *args) of one seed and returns a tree of tensors.
            compile: through `torch.compile`.
        """
        if self.direct:
            return self._bind_direct(function, compile)
        bound = _Bound(self.module, function)

        def one(params: dict[str, Tensor], buffers: dict[str, Tensor], *args: Any) -> Any:
            named = {f"networks.{k}": v for k, v in (params | buffers).items()}
            return functional_call(bound, named, args)

        def call(params: dict[str, Tensor], buffers: dict[str, Tensor], *args: Any) -> Any:
            dims = pytree.tree_map(_seed_dim, (params, buffers, *args))
            return vmap(one, in_dims=dims, randomness="error")(params, buffers, *args)

        mapped = torch.compile(call) if compile else call
        return lambda *args: mapped(self.params, self.buffers, *args)

    def _bind_direct(self, function: PerSeed, compile: bool) -> Callable[..., Any]:
        plain = torch.compile(function) if compile else function

        def call(*args: Any) -> Any:
            result = plain(self.module, *(take(a, 0) for a in args))
            return pytree.tree_map(lambda leaf: leaf.unsqueeze(0), result)

        return call

    def one(self, index: int) -> nn.Module:
        """The module with the weights of one seed (shared memory; valid until the next call)."""
        if self.direct:
            return self.module
        for name, parameter in self.module.named_parameters():
            parameter.data = self.params[name].detach()[index]
        for name, buffer in self.module.named_buffers():
            buffer.data = self.buffers[name][index]
        return self.module


def _seed_dim(leaf: Any) -> int | None:
    """0 for a stacked tensor; None for a leaf that has no seed dimension, such as no mask."""
    return 0 if isinstance(leaf, Tensor) else None


def stack_networks(networks: Sequence[nn.Module], device: torch.device | str = "cpu") -> SeedStack:
    """Stacks the networks of S seeds on a device; S = 1 keeps the module's own tensors.

    Args:
        networks: one module per seed, equal in structure.
    """
    module = networks[0].to(device)
    if len(networks) == 1:
        params = {k: p.detach().unsqueeze(0) for k, p in module.named_parameters()}
        buffers = {k: b.unsqueeze(0) for k, b in module.named_buffers()}
        return SeedStack(module, params, buffers, 1)
    params, buffers = stack_module_state([network.to(device) for network in networks])
    params = {k: p.detach().clone().requires_grad_() for k, p in params.items()}
    return SeedStack(module, params, {k: b.clone() for k, b in buffers.items()}, len(networks))
