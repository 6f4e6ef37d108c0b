"""The best weights of each seed, so far."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tlresearch.training.stack import SeedStack


@dataclass
class Best:
    """Snapshot of each seed at its own best score; ties keep the earlier one."""

    score: Float[Tensor, " seeds"]
    params: dict[str, Tensor]
    buffers: dict[str, Tensor]

    @staticmethod
    def start(stack: SeedStack) -> "Best":
        """Before any score: −∞, and the weights as they are."""
        device = next(iter(stack.params.values())).device
        score = torch.full((stack.size,), -float("inf"), dtype=torch.float64, device=device)
        return Best(score, _copy(stack.params), _copy(stack.buffers))

    def update(self, stack: SeedStack, score: Float[Tensor, " seeds"]) -> Bool[Tensor, " seeds"]:
        """Takes the weights of the seeds whose score is above their best; says which."""
        better = score > self.score
        self.score = torch.where(better, score, self.score)
        for kept, now in ((self.params, stack.params), (self.buffers, stack.buffers)):
            for name, value in now.items():
                seeds = better.view(-1, *[1] * (value.dim() - 1))
                kept[name] = torch.where(seeds, value.detach(), kept[name])
        return better

    def restore(self, stack: SeedStack) -> None:
        """Writes the best weights into the stack."""
        with torch.no_grad():
            for kept, now in ((self.params, stack.params), (self.buffers, stack.buffers)):
                for name, value in now.items():
                    value.copy_(kept[name])


def _copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}
