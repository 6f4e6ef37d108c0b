"""Batches of a stream, gathered on the device for all seeds at once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tlresearch.data.parts import WHOLE, Part
from tlresearch.data.sampler import EpochSampler
from tlresearch.data.streaming import StreamedImages, gather
from tlresearch.data.tasks import Pool, TaskStream
from tlresearch.functional import random

CHUNK = 2000
"""Samples per chunk where a whole pool is read; a matter of memory, not of results."""


class StageBatches:
    """The training batches of one stage (one task, or several jointly), by step.

    `batch(step)` returns (x, y, mask): (S, B, …), (S, B), and (S, units) or (S, B, units) or None.
    Of several parts each returns its places of the same batch.
    """

    def __init__(
        self,
        stream: TaskStream,
        pools: list[Pool],
        stage: int,
        batch_size: int,
        steps: int,
        part: Part = WHOLE,
    ) -> None:
        """Draws nothing yet.

        Args:
            stream: where images, labels and masks come from.
            pools: one per seed.
            stage: index of the task after which the stage's active classes are counted.
            batch_size: B.
            steps: how many batches will be asked for.
            part: which part of each batch is gathered.
        """
        self.steps = steps
        sizes = [len(pool.images) for pool in pools]
        self.stream, self.pools = stream, pools
        self.sampler = EpochSampler(stream.seeds, sizes, batch_size, f"batches of stage {stage}")
        self._mask = _StageMask(stream, stage, pools)
        self._places = torch.arange(len(pools), device=stream.unit_of.device)
        self._first, self._steps = 0, 0
        places = part.places(batch_size)
        self._part = slice(places.start, places.stop)
        self._streamed: StreamedImages | None = None
        if stream.streamed:
            purpose = self.sampler.purpose
            ahead = EpochSampler(stream.seeds, sizes, batch_size, purpose)
            numbers = _Numbers([pool.images.cpu() for pool in pools], ahead, steps, self._part)
            device = stream.unit_of.device
            self._streamed = StreamedImages(stream.train.images, numbers, steps, device)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """The batches of all seeds at a step of the stage, from 0."""
        if not self._first <= step < self._first + self._steps:
            self._draw(step)
        k = step - self._first
        images, tasks = self._images[k], self._tasks[k]
        if self._streamed:
            raw = self._streamed.batch(step)
        else:
            raw = self.stream.train.images.index_select(0, images.flatten())
        x = self.stream.inputs(raw.view(*images.shape, *raw.shape[1:]), tasks, self._places)
        return x, self._labels[k], self._mask.of(tasks, self._places)

    def _draw(self, step: int) -> None:
        """Draws the block of steps that begins at `step`."""
        self._first, self._steps = step, min(self.sampler.block_steps, self.steps - step)
        positions = self.sampler.block(step, self._steps).to(self._places.device)
        positions = positions[:, :, self._part]
        columns = range(len(self.pools))
        images = [pool.images[positions[:, s]] for s, pool in enumerate(self.pools)]
        tasks = [pool.tasks[positions[:, s]] for s, pool in enumerate(self.pools)]
        self._images, self._tasks = torch.stack(images, 1), torch.stack(tasks, 1)
        labels = self.stream.train.labels[self._images]
        units = [self.stream.unit_of[s][self._tasks[:, s], labels[:, s]] for s in columns]
        self._labels = torch.stack(units, 1)


class _Numbers:
    """The images of each step, (S, B), drawn on the host, so that no device is waited for."""

    def __init__(self, pools: list[Tensor], sampler: EpochSampler, steps: int, part: slice) -> None:
        self.pools, self.sampler, self.steps, self.part = pools, sampler, steps, part
        self._block, self._images = range(0), torch.empty(0)

    def __call__(self, step: int) -> Tensor:
        if step not in self._block:
            count = min(self.sampler.block_steps, self.steps - step)
            self._block = range(step, step + count)
            positions = self.sampler.block(step, count)[:, :, self.part]
            columns = [pool[positions[:, s]] for s, pool in enumerate(self.pools)]
            self._images = torch.stack(columns, 1)
        return self._images[step - self._block.start]


class _StageMask:
    """The active units of a stage: one row per seed where all its samples share it."""

    def __init__(self, stream: TaskStream, stage: int, pools: list[Pool]) -> None:
        self._table = stream.active(stage)
        one_task = all(bool((pool.tasks == pool.tasks[:1]).all()) for pool in pools)
        self._single = stream.settings.scenario == "class" or one_task

    def of(self, tasks: Tensor, places: Tensor) -> Tensor | None:
        """(S, units), or (S, B, units) where samples of several tasks differ; None: all active."""
        if self._table is None:
            return None
        if self._single:
            return self._table[places, tasks[:, 0]]
        return self._table[places.unsqueeze(1), tasks]


@dataclass(frozen=True)
class PoolData:
    """One seed's pool as whole tensors in chunks: for evaluation, and for `after_task`."""

    stream: TaskStream
    place: int
    """Which seed of the stream, by its place."""
    pool: Pool
    stage: int
    evaluation: bool = False
    part: Part = WHOLE
    """What one of several processes sees of the pool."""
    average: Callable[[Any, float], Any] = lambda tree, weight: tree
    """Weighted mean of a tree of tensors over processes."""

    def places(self, samples: int | None = None, multiple: int = 1) -> range:
        """Places of the own part among the samples that all parts together have."""
        total = len(self.pool.images)
        return self.part.places(total if samples is None else min(samples, total), multiple)

    def batches(
        self, samples: int | None = None, multiple: int = 1
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """(x, y, mask) in chunks: the pool in order, or `samples` without replacement.

        Args:
            samples: how many are drawn for all parts together; None: the whole pool.
            multiple: the own part begins at a multiple of it.
        """
        chosen = torch.arange(len(self.pool.images), device=self.pool.images.device)
        if samples is not None and samples < len(chosen):
            chosen = random.permutation(self.key("subset").to(chosen.device), len(chosen))[:samples]
        split = self.stream.evaluation if self.evaluation else self.stream.train
        mask = _StageMask(self.stream, self.stage, [self.pool])
        place = torch.tensor([self.place], device=chosen.device)
        places = self.places(samples, multiple)
        chosen = chosen[places.start : places.stop]
        for part in chosen.split(CHUNK) if places else ():
            images, tasks = self.pool.images[part], self.pool.tasks[part]
            raw = gather(split.images, images).unsqueeze(0)
            x = self.stream.inputs(raw, tasks.unsqueeze(0), place)[0]
            y = self.stream.unit_of[self.place][tasks, split.labels[images]]
            active = mask.of(tasks.unsqueeze(0), place)
            yield x, y, None if active is None else active[0]

    def key(self, purpose: str) -> Tensor:
        """A random key for this seed, stage and purpose."""
        return random.make_key(self.stream.seeds[self.place], purpose, self.stage)


def joint_pool(pools: list[Pool]) -> Pool:
    """All samples of several tasks in one pool."""
    return Pool(torch.cat([p.images for p in pools]), torch.cat([p.tasks for p in pools]))
