"""Sinusoids as what a few-shot run trains on and is measured on."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tlresearch.data.episodes import Episodes, evaluation_keys
from tlresearch.data.sinusoids import sinusoid_episodes, with_task
from tlresearch.fewshot.batches import Batch, episode_sizes
from tlresearch.fewshot.evaluation import DrawnEpisodes
from tlresearch.fewshot.method import FewShotMethod
from tlresearch.fewshot.settings import FewShotSettings
from tlresearch.functional import random
from tlresearch.training.settings import Train
from tlresearch.training.tree import Tree

_BLOCK = 256
"""Steps whose tasks are drawn at once; a matter of speed, not of results."""


@dataclass
class SinusoidTasks:
    """Functions on a device; there are endlessly many, so each seed has its own stream."""

    benchmark: FewShotSettings
    device: torch.device
    dtype: torch.dtype
    regression = True

    def units(self, method: FewShotMethod) -> int:
        """Outputs of a network."""
        return 1

    def shape_for(self, method: FewShotMethod) -> tuple[int, int, int]:
        """x; for a method that is told the task, amplitude and phase, too."""
        return (1, 1, 3) if method.sees_task else (1, 1, 1)

    def training(self, method: FewShotMethod, train: Train, seeds: list[int]) -> Batch:
        """The training episodes by step."""
        return _SinusoidBatches(self, method, seeds).batch

    def draw(self, keys: Tensor, shots: int, queries: int, told: bool) -> Episodes:
        """The episodes of some keys, on the device."""
        episodes, task = sinusoid_episodes(keys.to(self.device), shots, queries, self.dtype)
        return with_task(episodes, task) if told else episodes

    def episodes(self, method: FewShotMethod, which: str | None = None) -> DrawnEpisodes:
        """The functions that methods are measured on: `validation` or `test`."""
        settings = self.benchmark
        keys = evaluation_keys(f"{which or settings.evaluate} sinusoids", settings.episodes)
        return DrawnEpisodes(self.draw(keys, settings.shots, settings.queries, method.sees_task))

    def batches(
        self, samples: int | None = None, multiple: int = 1
    ) -> Iterator[tuple[Tensor, Tensor, None]]:
        """None: there is no finite set of functions to look at after training."""
        return iter(())

    def places(self, samples: int | None = None, multiple: int = 1) -> range:
        """None; see `batches`."""
        return range(0)

    def average(self, tree: Tree, weight: float, /) -> Tree:
        """The tree itself, of one process."""
        return tree

    def key(self, purpose: str) -> Tensor:
        """The same for all seeds: what is done after training draws nothing by seed."""
        return random.make_key(0, purpose)


class _SinusoidBatches:
    """The training episodes of S seeds; `batch(step)` returns (S, E, 1, K, …) tensors."""

    def __init__(self, tasks: SinusoidTasks, method: FewShotMethod, seeds: list[int]) -> None:
        self.tasks, self.method, self.seeds = tasks, method, torch.tensor(seeds)
        self.first, self.block = -1, ()

    def batch(self, step: int) -> tuple[Tensor | None, ...]:
        """The episodes of a step, a pure function of seed and step."""
        first = step - step % _BLOCK
        if first != self.first:
            self.first, self.block = first, self._draw(first)
        return tuple(tensor[step - first] for tensor in self.block)

    def _draw(self, first: int) -> tuple[Tensor, ...]:
        """A block of steps, these first: slices of it are contiguous."""
        steps = torch.arange(first, first + _BLOCK).unsqueeze(1)
        keys = random.make_key(self.seeds, "training sinusoids", steps)
        keys = random.fold(keys.unsqueeze(-1), torch.arange(self.method.tasks))
        _, shots, queries = episode_sizes(self.tasks.benchmark, self.method)
        episodes = self.tasks.draw(keys, shots, queries, self.method.sees_task)
        return tuple(t.contiguous() for t in episodes if t is not None)
