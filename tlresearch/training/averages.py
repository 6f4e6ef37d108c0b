"""Exponential averages of the weights, one for each seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tlresearch.training.stack import SeedStack


@dataclass
class Average:
    """w̄ ← d · w̄ + (1 − d) · w after each step, of weights and of running statistics.

    Polyak and Juditsky, SIAM J. Control Optim. 30 (1992), with exponential instead of equal
    weights, as is usual in deep learning. It begins at the weights themselves, so there is no bias
    towards 0 to correct.
    """

    decay: float
    """d, in [0, 1)."""
    values: dict[str, Tensor]
    """w̄ by name, with the seeds first."""

    @staticmethod
    def start(stack: SeedStack, decay: float) -> "Average":
        """The average of no step: the weights as they are."""
        values = {k: t.detach().clone() for k, t in _floating(stack).items()}
        return Average(decay, values)

    def update(self, stack: SeedStack, active: Sequence[bool]) -> None:
        """One more step, of the seeds that took it."""
        device = next(iter(self.values.values())).device
        weight = (1 - self.decay) * torch.tensor(active, dtype=torch.float64, device=device)
        for name, now in _floating(stack).items():
            average = self.values[name]
            share = weight.to(average.dtype).view(-1, *[1] * (average.dim() - 1))
            average.lerp_(now.detach(), share)

    def swap(self, stack: SeedStack) -> None:
        """Exchanges the averages with what the stack holds, in place."""
        with torch.no_grad():
            for name, now in _floating(stack).items():
                kept = now.detach().clone()
                now.copy_(self.values[name])
                self.values[name].copy_(kept)


def _floating(stack: SeedStack) -> dict[str, Tensor]:
    """What can be averaged: all weights, and buffers that are no counters and no keys."""
    buffers = {k: b for k, b in stack.buffers.items() if b.is_floating_point()}
    return stack.params | buffers
