"""The batches that few-shot methods train on: episodes, or images of all training classes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tlresearch.data.episodes import EpisodeBatches, Pool
from tlresearch.data.sampler import EpochSampler
from tlresearch.fewshot.method import FewShotMethod
from tlresearch.fewshot.settings import SINUSOID
from tlresearch.training.settings import Train

Batch = Callable[[int], tuple[Tensor | None, ...]]


def episode_sizes(benchmark: Any, method: Any) -> tuple[int, int, int]:
    """(ways, shots, queries) of a training episode; a regression has one way."""
    return (
        1 if benchmark.dataset == SINUSOID else method.train_ways or benchmark.ways,
        method.train_shots or benchmark.shots,
        method.train_queries or benchmark.queries,
    )


def training_batches(
    pool: Pool,
    benchmark: Any,
    method: FewShotMethod,
    train: Train,
    seeds: list[int],
    scale: Tensor,
) -> Batch:
    """The training batches of S seeds by step, as the method's `trains_on` says."""
    if method.trains_on == "classes":
        return ClassBatches(pool, seeds, train, scale).batch
    ways, shots, queries = episode_sizes(benchmark, method)
    return EpisodeBatches(pool, seeds, ways, shots, queries, method.tasks, scale).batch


class ClassBatches:
    """Batches of images and their classes for S seeds, by step; each epoch is shuffled anew."""

    def __init__(self, pool: Pool, seeds: list[int], train: Train, scale: Tensor) -> None:
        """Draws nothing yet."""
        self.pool, self.scale = pool, scale
        self.classes = torch.repeat_interleave(
            torch.arange(pool.classes, device=pool.first.device), pool.count
        )
        sizes = [len(pool.images)] * len(seeds)
        self.sampler = EpochSampler(seeds, sizes, train.batch_size, "images of all classes")
        self.first, self.block = 0, torch.empty(0)

    def batch(self, step: int) -> tuple[Tensor | None, ...]:
        """(x, y, None) of a step: (S, B, …) and (S, B)."""
        steps = self.sampler.block_steps
        if not len(self.block) or step // steps * steps != self.first:
            self.first = step // steps * steps
            self.block = self.sampler.block(self.first, steps).to(self.classes.device)
        places = self.block[step - self.first]
        return self.pool.gather(places, self.scale), self.classes[places], None
