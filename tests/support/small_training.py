"""A small training on optdigits and its batches, for several test files."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tlresearch.backbones.mlp import MLP
from tlresearch.continual import Naive
from tlresearch.continual.protocol import StackRun, begin
from tlresearch.data import catalogue
from tlresearch.data.batches import StageBatches
from tlresearch.data.tasks import StreamSettings, make_stream
from tlresearch.training.loop import Training
from tlresearch.training.method import Labelled, Loss
from tlresearch.training.settings import Train

STREAM = StreamSettings("optdigits", tasks=2, scenario="class")
TRAIN = Train(steps=30, batch_size=16, precision="fp64", lr=0.01)
Batch = Callable[[int], tuple[Any, ...]]


@dataclass(frozen=True)
class Scaled(Naive):
    """Naive with a loss that a stacked field can blow up."""

    scale: float = 1.0

    def loss(self, networks, state, batch: Labelled) -> Loss:
        loss = super().loss(networks, state, batch)
        return Loss(loss.total * self.scale, loss.terms)


def prepare(
    seeds: list[int],
    train: Train = TRAIN,
    backbone: MLP | None = None,
    method: Naive | None = None,
    fields: dict[str, list[float]] | None = None,
) -> tuple[Training, Batch]:
    """A training at step 0 and the batches of the first task."""
    backbone = backbone or MLP(hidden=(12, 8))
    run = StackRun(STREAM, backbone, method or Naive(), train, seeds, fields or {})
    dtype = torch.float64 if train.precision == "fp64" else torch.float32
    stream = make_stream(STREAM, catalogue.load("optdigits"), seeds, dtype=dtype)
    pools = [row[0] for row in stream.train_pools]
    batches = StageBatches(stream, pools, 0, train.batch_size, train.steps)
    return begin(run, stream, torch.device("cpu")), batches.batch


def snapshot(training: Training, place: int) -> list[Tensor]:
    """Weights and moments of one seed."""
    return [t[place].clone() for t in training.step_tensors()]


def assert_bits(ours: list[Tensor], others: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(ours, others, strict=True))


def poisoned(batch: Batch, place: int, at: int) -> Batch:
    """The batches, one seed's input infinite at one step only."""

    def with_poison(step: int) -> tuple[Tensor, ...]:
        x, *rest = batch(step)
        if step == at:
            x = x.clone()
            x[place] = float("inf")
        return (x, *rest)

    return with_poison
