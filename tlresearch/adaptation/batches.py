"""The batches of one round: each domain's drawn by itself, for all seeds at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tlresearch.adaptation.method import CHUNK, Chosen, Round
from tlresearch.data.domains import Pair
from tlresearch.data.sampler import EpochSampler
from tlresearch.functional import random
from tlresearch.training.settings import Train


class _Places:
    """Places of a seed's pool by step, (S, B), drawn in blocks; each epoch is shuffled anew."""

    def __init__(
        self, seeds: list[int], pools: Sequence[Tensor], batch_size: int, purpose: str
    ) -> None:
        self.device = pools[0].device
        self.sampler = EpochSampler(seeds, [len(p) for p in pools], batch_size, purpose)
        self.first, self.block = 0, torch.empty(0)

    def at(self, step: int) -> Tensor:
        steps = self.sampler.block_steps
        if not len(self.block) or step // steps * steps != self.first:
            self.first = step // steps * steps
            self.block = self.sampler.block(self.first, steps).to(self.device)
        return self.block[step - self.first]


class RoundBatches:
    """`batch(step)` returns the fields of a `DomainBatch`, each with the seeds first."""

    def __init__(
        self,
        pair: Pair,
        number: int,
        part: Round,
        chosen: Sequence[Chosen | None],
        train: Train,
    ) -> None:
        """Draws nothing yet.

        Args:
            pair: of domains.
            number: of the round, from 0; another round draws other batches.
            part: the round.
            chosen: of each seed, what of the target it trains on; None: all of it. A seed that is
                done beside others gets batches too, which no weight of it will see.
            train: `batch_size` samples of each domain.
        """
        self.pair, self.part, self.train = pair, part, train
        size, seeds = train.batch_size, pair.seeds
        self.target_pools = [
            pool if one is None or not len(one.places) else pool[one.places]
            for pool, one in zip(pair.target_pools, chosen, strict=True)
        ]
        self.labels = _labels(chosen, self.target_pools)
        purpose = f"round {number}"
        self.source = _Places(seeds, pair.source_pools, size, f"source, {purpose}")
        self.target = _Places(seeds, self.target_pools, size, f"target, {purpose}")

    def batch(self, step: int) -> tuple[Tensor | None, ...]:
        """Of the given pass, counted from 0."""
        pair = self.pair
        source = source_y = target = target_y = None
        if self.part.source:
            places = _chosen(pair.source_pools, self.source.at(step))
            source = self._inputs(pair.source.images, places)
            source_y = pair.labels_at(places)
        if self.part.target:
            positions = self.target.at(step)
            places = _chosen(self.target_pools, positions)
            target = self._inputs(pair.target.images, places)
            if self.labels:
                target_y = torch.stack(
                    [of_seed[row] for of_seed, row in zip(self.labels, positions, strict=True)]
                )
        done = step // self.train.accumulate / self.part.steps
        progress = torch.full((len(pair.seeds),), done, dtype=pair.scale.dtype)
        return source, source_y, target, target_y, progress.to(pair.scale.device)

    def _inputs(self, images: Tensor, places: Tensor) -> Tensor:
        """What the networks are given for the samples at places (S, B)."""
        x = self.pair.inputs(images.index_select(0, places.flatten()))
        if self.train.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return x.unflatten(0, places.shape)


def _labels(chosen: Sequence[Chosen | None], pools: Sequence[Tensor]) -> list[Tensor]:
    """Pseudo-labels of each seed's pool, zeros for one that is done; none where no seed has any."""
    own = [one.labels if one is not None and len(one.places) else None for one in chosen]
    given = [labels for labels in own if labels is not None]
    return [
        given[0].new_zeros(len(pool), *given[0].shape[1:]) if labels is None else labels
        for labels, pool in zip(own, pools, strict=True)
        if given
    ]


def _chosen(pools: Sequence[Tensor], positions: Tensor) -> Tensor:
    """pool[position] of each seed: (S, B)."""
    return torch.stack([pool[row] for pool, row in zip(pools, positions, strict=True)])


class SeedData:
    """A `DomainData`: one seed's view of the pair."""

    def __init__(self, pair: Pair, place: int, number: int, before: Chosen | None = None) -> None:
        self.pair, self.place, self.number, self.before = pair, place, number, before

    def target(self) -> list[Tensor]:
        """Inputs of the target pool in chunks, in order."""
        pool = self.pair.target_pools[self.place]
        return [self.pair.inputs(self.pair.target.images[part]) for part in pool.split(CHUNK)]

    def source(self) -> list[tuple[Tensor, Tensor]]:
        """Inputs and labels of the source pool in chunks, in order."""
        return self._labelled(self.pair.source_pools[self.place])

    def held_out(self) -> list[tuple[Tensor, Tensor]]:
        """Inputs and labels of the held-out source samples in chunks, in order."""
        return self._labelled(self.pair.held_out_pools[self.place])

    def _labelled(self, pool: Tensor) -> list[tuple[Tensor, Tensor]]:
        images, labels = self.pair.source.images, self.pair.labels(self.place)
        return [
            (self.pair.inputs(images[part]), labels[part])
            for part in pool.split(CHUNK)
            if len(part)
        ]

    def previous(self) -> Chosen | None:
        """What the round before this one chose."""
        return self.before

    def key(self, purpose: str) -> Tensor:
        """A random key for this seed, round and purpose."""
        return random.make_key(self.pair.seeds[self.place], purpose, self.number)
