"""Which samples form which batch: a pure function of (seed, purpose, step)."""

import torch
from jaxtyping import Int64
from torch import Tensor

from tlresearch.functional import random

BLOCK_POSITIONS = 2**17
"""About how many positions are drawn at once for one seed; drawing them step by step would cost
more than a small network's step."""


class EpochSampler:
    """Samples without replacement: every epoch is a fresh permutation, batch follows batch.

    Position t·B + j of the endless row of permutations is element j of batch t, so a batch may
    reach over the end of an epoch and every sample is seen once an epoch. Seeds may have pools
    of different sizes.
    """

    def __init__(self, seeds: list[int], sizes: list[int], batch_size: int, purpose: str) -> None:
        """Draws nothing yet.

        Args:
            seeds: the seeds of the stack.
            sizes: number of samples of each seed's pool, at least 1.
            batch_size: B.
            purpose: names the stream, e.g. `"task 3"`; another purpose, other permutations.
        """
        self.seeds, self.sizes, self.batch_size, self.purpose = seeds, sizes, batch_size, purpose
        self._epochs: dict[int, tuple[int, int, Tensor]] = {}

    @property
    def block_steps(self) -> int:
        """How many steps a block should cover."""
        return max(1, BLOCK_POSITIONS // self.batch_size)

    def block(self, first_step: int, steps: int) -> Int64[Tensor, "steps seeds batch"]:
        """Positions in each seed's pool for `steps` batches from `first_step` on."""
        first, last = first_step * self.batch_size, (first_step + steps) * self.batch_size
        rows = [self._positions(i, first, last) for i in range(len(self.seeds))]
        return torch.stack(rows).view(len(rows), steps, self.batch_size).transpose(0, 1)

    def _positions(self, i: int, first: int, last: int) -> Tensor:
        size = self.sizes[i]
        low, high = first // size, -(-last // size)
        start, end, pool = self._epochs.get(i, (0, 0, torch.empty(0)))
        if not start <= low <= high <= end:
            key = random.make_key(self.seeds[i], self.purpose, torch.arange(low, high))
            start, end, pool = low, high, random.permutation(key, size).flatten()
            self._epochs[i] = (start, end, pool)
        return pool[first - start * size : last - start * size]
