"""What the probe tries: a method with its networks, and the noise that it is given."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlresearch.functional import random
from tlresearch.training.device import dtype_of
from tlresearch.training.method import Labelled, Method
from tlresearch.training.settings import Train
from tlresearch.training.tree import Tree

_BATCH = 4


@dataclass(frozen=True)
class Trial:
    """How a method is tried that is no classifier of labelled images."""

    networks: Callable[[int], nn.Module]
    """Its networks of a seed, as the trial needs them."""
    batch: Callable[[int], Any] | None
    """A small batch of noise by seed, such as its loss is given; None: nothing is trained."""
    predict: Callable[[nn.Module, Tree], Any]
    """What networks in evaluation mode and a state make of further noise."""
    shape: Mapping[str, int | None]
    """Of the prediction: each dimension's name, and its size where that is known."""
    name: str
    """Of the function that predicts."""

    def fits(self, found: tuple[int, ...] | str) -> bool:
        """Whether a prediction has the right shape; a text stands for something else."""
        sizes = list(self.shape.values())
        return len(found) == len(sizes) and all(
            size in (None, one) for size, one in zip(sizes, found, strict=True)
        )


@dataclass(frozen=True)
class Case:
    """What is tried."""

    label: str
    """What it is, for people; opens the sentences."""
    method: Method
    networks: Callable[[int], nn.Module]
    """The networks of a seed at initialisation."""
    shape: tuple[int, int, int]
    """(channels, rows, columns) of an image."""
    classes: int
    """Units of the head."""
    masked: bool
    """Whether the loss is given active classes."""
    train: Train
    fields: tuple[str, ...] = ()
    """Numeric settings of the method that will be tensors over the stack."""
    trial: Trial | None = None
    """None: as a classifier of labelled images."""

    @property
    def is_trained(self) -> bool:
        """Whether there are steps to try."""
        return self.trial is None or self.trial.batch is not None

    def batch(self, seed: int) -> Any:
        """What the loss is given; labelled images where nothing is trained."""
        if self.trial is None or self.trial.batch is None:
            return images_of(self, seed)
        return self.trial.batch(seed)


@dataclass(frozen=True)
class Noise:
    """A few images as the data of a task."""

    images: Labelled

    def batches(
        self, samples: int | None = None, multiple: int = 1
    ) -> Iterator[tuple[Tensor, Tensor, Any]]:
        yield self.images.x, self.images.y, self.images.mask

    def places(self, samples: int | None = None, multiple: int = 1) -> range:
        return range(len(self.images.y))

    def average(self, tree: Tree, weight: float, /) -> Tree:
        return tree

    def key(self, purpose: str) -> Tensor:
        return random.make_key(0, purpose)


def images_of(case: Case, seed: int) -> Labelled:
    """Noise in [0, 1), labels 0 and 1."""
    size = min(_BATCH, case.train.batch_size)
    key = random.make_key(seed, "probe")
    x = random.uniform(key, (size, *case.shape), dtype_of(case.train.precision))
    mask = torch.arange(case.classes) < 2 if case.masked else None
    return Labelled(x, torch.arange(size) % min(2, case.classes), mask)


def classification(case: Case, images: Labelled) -> Trial:
    """Scores of each of some images."""

    @torch.no_grad()
    def predict(network: nn.Module, state: Tree) -> Any:
        return case.method.predict(network, state, images.x, images.mask)

    shape = {"batch": len(images.x), "classes": None}
    return Trial(case.networks, None, predict, shape, "predict")


def told(batch: Any) -> str:
    """What a batch is, for people."""
    if isinstance(batch, Labelled):
        return f"{len(batch.x)} images of noise"
    return f"{len(batch[0])} {type(batch).__name__.lower()} of noise"
