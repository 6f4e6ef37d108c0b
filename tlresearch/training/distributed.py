"""Several processes that train one network: each on its part of every batch.

`torchrun --standalone --nproc-per-node 2 -m tlresearch run FILE` starts them; Lightning Fabric
joins them (gloo on CPUs, NCCL on CUDA) and wraps the loss in DistributedDataParallel, which
averages the gradients. Every process holds the same weights, state and running statistics at
every step, so whatever one of them measures or saves is what any other would.
"""

import inspect
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tlresearch.data.parts import Part
from tlresearch.errors import AgreedError, UserError
from tlresearch.training.tree import Tree, tensors

_SENTENCE_BYTES = 4096
"""How much of an error's sentence the other processes are told."""


@dataclass(frozen=True)
class Processes:
    """This process among those of a run; alone unless `join` says otherwise.

    What is not a property has to be called by all processes, in the same order.
    """

    rank: int = 0
    size: int = 1
    fabric: Any = None
    """The Lightning Fabric that joined them; None where there is one process."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    @property
    def part(self) -> Part:
        """Which of the equal parts of a batch, or of a pool, is this process's."""
        return Part(self.rank, self.size)

    def device(self, chosen: torch.device) -> torch.device:
        """The device of this process, of the chosen kind."""
        return chosen if self.fabric is None else self.fabric.device

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module with the same forward, whose gradients are averaged over processes.

        Only what is computed in `forward` is averaged: so the forward is the loss.
        """
        if self.fabric is None:
            return module
        # Where no parameter is unused, torch advises against `find_unused_parameters`; this is.
        module.register_parameter("unused", nn.Parameter(torch.zeros(())))
        return self.fabric.setup_module(module)

    def unsynchronised(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """Within it, passes through a wrapped module leave each process its own gradient."""
        return nullcontext() if self.fabric is None else self.fabric.no_backward_sync(wrapped)

    def average(self, tree: Tree, weight: float = 1.0) -> Tree:
        """Σ_p w_p t_p / Σ_p w_p over the processes p, for every floating-point tensor t of a tree.

        Args:
            tree: the same structure and shapes everywhere; other leaves stay as they are.
            weight: w ≥ 0 of this process, e.g. how many samples its statistic is a mean of.

        Raises:
            ValueError: all weights are 0.
        """
        if self.size == 1:
            return tree
        own = [t for t in tensors(tree) if t.is_floating_point()]
        weights = torch.tensor([weight], dtype=torch.float64)
        flat = self._flat([*(t * weight for t in own), weights])
        torch.distributed.all_reduce(flat)
        *sums, total = flat.split([*(t.numel() for t in own), 1])
        if total.item() == 0:
            raise ValueError("the average over processes of no samples is not defined")
        means = iter([(s / total).view(t.shape).to(t) for s, t in zip(sums, own, strict=True)])
        return pytree.tree_map(
            lambda leaf: (
                next(means) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
            ),
            tree,
        )

    def from_main(self, tensor: Tensor) -> Tensor:
        """The main process's tensor, of the same shape and dtype everywhere."""
        if self.size == 1:
            return tensor
        sent = tensor.detach().to(self.fabric.device, copy=True).contiguous()
        torch.distributed.broadcast(sent, 0)
        return sent.to(tensor.device)

    def same(self, tree: Tree) -> bool:
        """Whether the tensors of a tree have the same numbers in all processes."""
        if self.size == 1 or not tensors(tree):
            return True
        flat = self._flat(tensors(tree)).nan_to_num()
        extremes = torch.stack([flat, -flat])
        torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX)
        return bool((extremes[0] == -extremes[1]).all())

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.fabric is not None:
            self.fabric.barrier()

    @contextmanager
    def alike(self) -> Iterator[None]:
        """What stands within succeeds in all processes, or is refused in all of them.

        Raises:
            AgreedError: the first `UserError` that one of them met.
        """
        if self.size == 1:
            yield
            return
        sentence = ""
        try:
            yield
        except UserError as error:
            sentence = str(error)
        sentence = self._first(sentence)
        if sentence:
            raise AgreedError(sentence)

    def _first(self, sentence: str) -> str:
        """The sentence of the first process that has one."""
        device = self.fabric.device
        speaker = torch.tensor(self.rank if sentence else self.size, device=device)
        torch.distributed.all_reduce(speaker, torch.distributed.ReduceOp.MIN)
        if speaker.item() == self.size:
            return ""
        said = sentence.encode()[:_SENTENCE_BYTES]
        letters = torch.tensor([*said.ljust(_SENTENCE_BYTES, b"\0")], dtype=torch.uint8)
        letters = letters.to(device)
        torch.distributed.broadcast(letters, int(speaker))
        return bytes(letters.tolist()).rstrip(b"\0").decode(errors="ignore")

    def _flat(self, values: Sequence[Tensor]) -> Tensor:
        """All numbers in one float64 vector, so that one message carries them."""
        device = self.fabric.device
        return torch.cat([t.detach().to(device, torch.float64).flatten() for t in values])


ALONE = Processes()
"""The only process of its run."""


def join(device: torch.device) -> Processes:
    """The processes that torchrun started, joined; or this one alone.

    Args:
        device: of which kind each process's device is.

    Raises:
        UserError: something else set WORLD_SIZE, Lightning Fabric is not installed, or there are
            fewer CUDA devices than processes.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return ALONE
    if not torch.distributed.is_torchelastic_launched():
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} in the environment, but torchrun did not "
            "start this process; unset it, or start with "
            "torchrun --standalone --nproc-per-node N -m tlresearch run FILE"
        )
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    if device.type == "cuda" and torch.cuda.device_count() < here:
        raise UserError(
            f"--nproc-per-node {here}: torch sees {torch.cuda.device_count()} CUDA devices, and "
            "each process needs its own; start fewer processes, or give --device cpu"
        )
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError:
        raise UserError(
            "several processes are joined by Lightning Fabric, which is not installed; "
            "pip install 'tlresearch[distributed]'"
        ) from None
    known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    settings: dict[str, Any] = {
        "process_group_backend": "nccl" if device.type == "cuda" else "gloo",
        "find_unused_parameters": True,  # a loss need not reach every parameter
        buffers: False,  # `SeedStack.average_buffers` averages them instead
    }
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    nodes = int(os.environ["WORLD_SIZE"]) // here
    fabric = Fabric(
        accelerator=device.type,
        devices=here,
        num_nodes=nodes,
        strategy=DDPStrategy(**settings),
    )
    fabric.launch()
    return Processes(fabric.global_rank, fabric.world_size, fabric)


class Onlooker:
    """The observer of a process that is not the main one: writes and reports nothing."""

    stage = 0
    track: Any = None

    def after_step(self, step: int, loss: Any) -> None:
        """Does nothing."""

    def progress(self, steps: int) -> None:
        """Does nothing."""

    def flush(self) -> None:
        """Does nothing."""

    def save_if_due(self, next_step: int) -> None:
        """Does nothing."""
