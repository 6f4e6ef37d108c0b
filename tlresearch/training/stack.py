"""Seeds as a tensor dimension: the networks of S seeds as one program.

Parameters and buffers live stacked, with the seed first. With S > 1 a function written for one
network is mapped over them (`vmap` of `functional_call`); with S = 1 the same function is called
directly on a module whose parameters share memory with the stack.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils import _pytree as pytree

from tlresearch.backbones.layers import set_dropout_part
from tlresearch.training.distributed import ALONE, Processes
from tlresearch.training.tree import Tree, take

PerSeed = Callable[..., tuple[Tensor, ...]]
"""A function (networks, *constants, *tensors) of one seed."""

Mapped = Callable[..., tuple[Tensor, ...]]
"""The same for all seeds of a stack, its constants filled in."""


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
    leaves: dict[str, Tensor]
    """What the optimiser steps, sharing memory with `params`: with S = 1 the module's parameters;
    with S > 1 stacked, and the weight of a linear layer as (S, in, out). So does the gradient of a
    mapped linear layer lie in memory: any other order would be copied at each step."""
    size: int
    processes: Processes = ALONE
    """Who trains the stack, each on its part of the batch; several only with S = 1."""
    _wrapped: nn.Module | None = None

    @property
    def direct(self) -> bool:
        """Whether functions are called on the module itself instead of being mapped."""
        return self.size == 1

    def train(self, mode: bool = True) -> None:
        """Training or evaluation mode, for all seeds."""
        self.module.train(mode)

    def bind(self, function: PerSeed, constants: Sequence[Tree], compile: bool = False) -> Mapped:
        """`function` for all seeds, some of its arguments fixed.

        Everything that can be done once is done here and not at each step: a step of a small
        network takes less time than flattening its arguments.

        Args:
            function: takes (networks, *constants, *tensors) of one seed and returns a tuple of
                0-dimensional tensors.
            constants: stacked trees that stay the same objects, such as a method's state.
            compile: through `torch.compile`.

        Returns:
            A function of the remaining arguments, stacked tensors or None, that returns the
            results: (S,) each, or () each where the stack is `direct`. Among several processes,
            which give their parts of the batch, it returns the mean results of all; the first
            carries the gradient, averaged in the backward pass.
        """
        if self.direct:
            own = [take(constant, 0) for constant in constants]
            plain = torch.compile(function) if compile else function
            if self.processes.size > 1:
                return self._bind_part(plain, own)
            return lambda *args: plain(
                self.module, *own, *(None if a is None else a[0] for a in args)
            )
        named = self.leaves | self.buffers
        turned = _linear_weights(self.module)
        leaves, spec = pytree.tree_flatten(list(constants))
        fixed = [*named.values(), *(leaf for leaf in leaves if isinstance(leaf, Tensor))]
        bound = _Bound(self.module, function)

        def one(given: tuple[bool, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
            rest = iter(tensors)
            networks = {
                f"networks.{name}": next(rest).T if name in turned else next(rest) for name in named
            }
            filled = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            args = [next(rest) if there else None for there in given]
            return functional_call(bound, networks, (*pytree.tree_unflatten(filled, spec), *args))

        @cache
        def mapped(given: tuple[bool, ...]) -> Mapped:
            call = vmap(partial(one, given), in_dims=0, randomness="error")
            return torch.compile(call) if compile else call

        def call(*args: Tensor | None) -> tuple[Tensor, ...]:
            given = tuple(a is not None for a in args)
            return mapped(given)(*fixed, *(a for a in args if a is not None))

        return call

    def _bind_part(self, function: PerSeed, constants: Sequence[Tree]) -> Mapped:
        """`function` on this process's part of a batch.

        The wrapped module's forward is `function` itself: DistributedDataParallel averages only
        what goes through its forward, and nothing, without a word, if it is called otherwise.
        """

        def on_part(networks: nn.Module, *args: Any) -> tuple[Tensor, ...]:
            first, *rest = function(networks, *constants, *args)
            return (first, *(value.detach() for value in rest))

        wrapped = self._wrapped = self.processes.wrap(_Bound(self.module, on_part))

        def call(*args: Tensor | None) -> tuple[Tensor, ...]:
            first, *rest = wrapped(*(None if a is None else a[0] for a in args))
            mean, *means = self.processes.average([first.detach(), *rest])
            return (mean + (first - first.detach()), *means)

        return call

    def local_gradients(self, enabled: bool = True) -> AbstractContextManager[None]:
        """Within it (forward and backward) gradients add up in each process, not averaged.

        For all but the last part of an accumulated step, whose backward averages the sum.
        """
        if not enabled or self._wrapped is None:
            return nullcontext()
        return self.processes.unsynchronised(self._wrapped)

    def average_buffers(self) -> None:
        """Running statistics averaged over processes, each of which saw its part of the batch."""
        floats = [b for b in self.buffers.values() if b.is_floating_point()]
        if self.processes.size > 1 and floats:
            for buffer, mean in zip(floats, self.processes.average(floats), strict=True):
                buffer.copy_(mean)

    def one(self, index: int) -> nn.Module:
        """The module with the weights of one seed (shared memory; valid until the next call)."""
        if self.direct:
            return self.module
        for name, parameter in self.module.named_parameters():
            parameter.data = self.params[name].detach()[index]
        for name, buffer in self.module.named_buffers():
            buffer.data = self.buffers[name][index]
        return self.module


def stack_networks(
    networks: Sequence[nn.Module],
    device: torch.device | str = "cpu",
    processes: Processes = ALONE,
) -> SeedStack:
    """Stacks the networks of S seeds on a device; S = 1 keeps the module's own tensors.

    Args:
        networks: one module per seed, equal in structure.
        device: where the stack lies.
        processes: who trains it.

    Raises:
        ValueError: several networks and several processes.
    """
    module = networks[0].to(device)
    if processes.size > 1:
        if len(networks) > 1:
            raise ValueError(f"{processes.size} processes train one network, not {len(networks)}")
        set_dropout_part(module, processes.rank)
    if len(networks) == 1:
        leaves: dict[str, Tensor] = {k: p for k, p in module.named_parameters()}
        params = {k: p.detach().unsqueeze(0) for k, p in leaves.items()}
        buffers = {k: b.unsqueeze(0) for k, b in module.named_buffers()}
        return SeedStack(module, params, buffers, leaves, 1, processes)
    stacked, buffers = stack_module_state([network.to(device) for network in networks])
    turned = _linear_weights(module)
    trained = {k for k, p in module.named_parameters() if p.requires_grad}
    leaves = {
        k: (p.detach().transpose(1, 2) if k in turned else p.detach())
        .clone(memory_format=torch.contiguous_format)
        .requires_grad_(k in trained)
        for k, p in stacked.items()
    }
    params = {
        k: p.detach().transpose(1, 2) if k in turned else p.detach() for k, p in leaves.items()
    }
    buffers = {k: b.clone() for k, b in buffers.items()}
    return SeedStack(module, params, buffers, leaves, len(networks))


def _linear_weights(module: nn.Module) -> set[str]:
    """Names of the weights of linear layers."""
    layers = [(name, m) for name, m in module.named_modules() if isinstance(m, nn.Linear)]
    return {f"{name}.weight" if name else "weight" for name, _ in layers}
