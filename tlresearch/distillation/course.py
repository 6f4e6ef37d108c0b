"""A stack of networks from their initialisation to their last weights, students or teachers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlresearch.distillation.batches import TaughtBatches
from tlresearch.distillation.images import Images
from tlresearch.errors import UserError
from tlresearch.training import checkpoint, tree
from tlresearch.training.device import dtype_of
from tlresearch.training.evaluation import accuracy_per_seed
from tlresearch.training.loop import Training, start
from tlresearch.training.observer import CHECKPOINT_SECONDS, RunFiles, RunObserver
from tlresearch.training.settings import Train
from tlresearch.training.stack import stack_networks
from tlresearch.training.stage import Stage

CHUNK = 1000
"""Images per chunk where a whole set is predicted; a matter of memory, not of results."""


@dataclass(frozen=True)
class Watch:
    """Who is told of the steps."""

    progress: Callable[[int], None] = lambda steps: None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    track: Callable[[dict[str, Any]], None] = lambda entry: None


def one_by_one(progress: Callable[[int], None], seeds: int) -> Callable[[int], None]:
    """Takes the steps of seeds that train one after another, and tells of those of the stack."""
    done = 0

    def told(steps: int) -> None:
        nonlocal done
        before, done = done, done + steps
        progress(done // seeds - before // seeds)

    return told


def begin(
    backbone: Any,
    method: Any,
    fields: dict[str, list[float]],
    train: Train,
    seeds: list[int],
    images: Images,
    teachers: Sequence[Sequence[nn.Module]] | None = None,
    count: int | None = None,
) -> Training:
    """The networks of all seeds at initialisation, where the images are.

    Args:
        backbone: the students'.
        method: of all seeds.
        fields: numbers that differ between them.
        train: of all seeds.
        seeds: of the stack.
        images: whose shape and classes count.
        teachers: of each seed, for a method whose students are made of them.
        count: images that each seed is trained on; None: those that teachers are.
    """
    dtype, device = dtype_of(train.precision), images.train.device
    networks = [
        method.networks_from(of_seed, backbone, images.shape, images.classes, seed)
        for seed, of_seed in zip(seeds, teachers or [()] * len(seeds), strict=True)
    ]
    for network in networks:
        method.make_room(network, len(images.kept) if count is None else count)
        network.to(dtype)
    if train.batch_size < 2 and any(isinstance(m, _BatchNorm) for m in networks[0].modules()):
        raise UserError("train.batch_size: batch norm needs at least 2 samples in a batch, not 1")
    if train.channels_last:
        networks = [network.to(memory_format=torch.channels_last) for network in networks]
    state = tree.stack([method.init(network.to(device)) for network in networks])
    given = {
        name: torch.tensor(values, dtype=dtype, device=device) for name, values in fields.items()
    }
    return start(seeds, stack_networks(networks, device), method, given, train, state)


class Course:
    """One stack on its way."""

    def __init__(
        self,
        training: Training,
        batches: TaughtBatches,
        images: Images,
        files: RunFiles,
        watch: Watch,
    ) -> None:
        self.training, self.batches, self.images = training, batches, images
        self.files, self.learning = files, Stage(training)
        self.seconds = 0.0
        self.began: float | None = None
        self.observer = RunObserver(
            training,
            files,
            self.place,
            watch.progress,
            watch.checkpoint_seconds,
            track=watch.track,
        )

    @property
    def elapsed(self) -> float:
        """Seconds of the training so far, those before a checkpoint too."""
        return self.seconds + (0.0 if self.began is None else time.monotonic() - self.began)

    def place(self, step: int) -> dict[str, Any]:
        """What a checkpoint says of the way so far."""
        return {"step": step, "seconds": self.elapsed} | self.learning.place()

    def travel(self) -> None:
        """Trains from the checkpoint, if there is one, to the end."""
        self.began = time.monotonic()
        place = checkpoint.resume(self.files.checkpoint, self.training, self._fits)
        if place is not None:
            self.seconds = place["seconds"]
            self.learning.go_to(place)
        self.files.log_lines_before(0, self.learning.step)
        self.observer.progress(self.learning.step)
        if self.learning.step == 0:
            self.learning.begin(0)
        self.learning.learn(self.batches.batch, self.observer, self._scores, "training")
        self.seconds, self.began = self.elapsed, None

    def _fits(self, place: dict[str, Any]) -> bool:
        return place["seconds"] >= 0 and self.learning.fits(place)

    def _scores(self) -> Tensor:
        """Accuracy on the held-out part."""
        held_out = self.images.held_out
        chunks = [
            (self.images.train[some], self.images.labels[some], None)
            for some in held_out.split(CHUNK)
        ]
        return accuracy_per_seed(self.training, [chunks] * len(self.training.seeds))

    def network(self, place: int) -> nn.Module:
        """One seed's networks in evaluation mode (shared memory; valid until the next call)."""
        return self.training.one(place)[1].eval()
