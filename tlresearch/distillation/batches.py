"""The batches of a stack of students: images, labels and the teachers' answers, for all seeds."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tlresearch.data.sampler import EpochSampler
from tlresearch.distillation.images import Images
from tlresearch.distillation.live_teacher import Teacher
from tlresearch.distillation.views import Views
from tlresearch.functional import random
from tlresearch.training.settings import Train


class TaughtBatches:
    """By step, the fields of a `TaughtBatch`, each with the seeds first.

    Step t sees view t of its images where views are fresh; of K fixed views, for each image one
    that is drawn by (seed, step).
    """

    def __init__(
        self,
        images: Images,
        pools: Sequence[Tensor],
        views: Sequence[Views],
        teachers: Sequence[Sequence[Teacher]],
        train: Train,
        seeds: list[int],
        purpose: str,
        fresh: bool,
        taps: Sequence[str] = (),
    ) -> None:
        """Draws nothing yet.

        Args:
            images: what the views and pools are of.
            pools: places of each seed's images.
            views: of each seed.
            teachers: of each seed, those that answer; none where nobody is asked.
            train: batch size, steps, accumulation.
            seeds: of the stack.
            purpose: names the stream of batches.
            fresh: whether each step has views of its own.
            taps: paths of the teachers' features that are wanted, in their order; one may be there
                more than once.
        """
        self.images, self.pools, self.views, self.teachers = images, pools, views, teachers
        self.seeds, self.fresh, self.taps = seeds, fresh, taps
        self.steps = train.steps * train.accumulate
        sizes = [len(pool) for pool in pools]
        self.sampler = EpochSampler(seeds, sizes, train.batch_size, purpose)
        self._first, self._positions, self._places = 0, torch.empty(0), torch.empty(0)

    def batch(self, step: int) -> tuple[Tensor | None, ...]:
        """The batches of all seeds at a step, from 0."""
        if not self._first <= step < self._first + len(self._positions):
            self._draw(step)
        positions, places = self._positions[step - self._first], self._places[step - self._first]
        rows = [self._of_seed(i, places[i], step) for i in range(len(self.seeds))]
        logits = [row[1] for row in rows]
        answers = torch.stack(logits) if self.teachers[0] else None
        taps = [torch.stack([row[2][k] for row in rows]) for k in range(len(rows[0][2]))]
        x = torch.stack([row[0] for row in rows])
        progress = x.new_full((len(rows),), step / self.steps)
        return (x, self.images.labels[places], answers, positions, progress, *taps)

    def _of_seed(self, i: int, places: Tensor, step: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Inputs, the teachers' logits (M, B, C) and features of one seed."""
        view = self._view(i, step, len(places))
        x = self.views[i].inputs(places, view)
        if not self.teachers[i]:
            return x, x.new_empty(0), []
        said = [teacher.outputs(places, view) for teacher in self.teachers[i]]
        features = [said[0].features[path] for path in self.taps]
        return x, torch.stack([one.logits for one in said]), features

    def _view(self, i: int, step: int, count: int) -> int | Tensor:
        views = self.views[i]
        if views.augment is None:
            return 0
        if self.fresh:
            return step
        drawn = views.which(random.make_key(self.seeds[i], "which view", step), (count,))
        return drawn.to(self.images.labels.device)

    def _draw(self, step: int) -> None:
        """Draws the block of steps that begins at `step`."""
        steps = min(self.sampler.block_steps, self.steps - step)
        positions = self.sampler.block(step, steps).to(self.images.labels.device)
        chosen = [pool[positions[:, i]] for i, pool in enumerate(self.pools)]
        self._first, self._positions, self._places = step, positions, torch.stack(chosen, 1)
