"""Episodes: N ways, K shots and Q queries, drawn by index arithmetic and gathered on the device.

An episode's label is the place of the class among its ways, so classification needs no label
tensors, and N, K and Q are shapes. Which episode is drawn is a pure function of a key.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from tlresearch.errors import UserError
from tlresearch.functional import random


class Episodes(NamedTuple):
    """E episodes of one seed; one episode is the same without its first dimension."""

    support_x: Float[Tensor, "..."]
    """(E, ways, shots, channels, rows, columns)."""
    query_x: Float[Tensor, "..."]
    """(E, ways, queries, channels, rows, columns)."""
    support_y: Float[Tensor, "..."] | None = None
    """Regression only, (E, 1, shots, outputs); None: the label is the place of the class."""
    query_y: Float[Tensor, "..."] | None = None
    """Regression only, (E, 1, queries, outputs)."""

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(ways, shots, queries) of a batch of episodes."""
        return self.support_x.shape[1], self.support_x.shape[2], self.query_x.shape[2]

    def take(self, part: slice | int) -> "Episodes":
        """Some of them; a single one, without the first dimension, by its index."""
        support_y = None if self.support_y is None else self.support_y[part]
        query_y = None if self.query_y is None else self.query_y[part]
        return Episodes(self.support_x[part], self.query_x[part], support_y, query_y)


def labels(ways: int, each: int, device: torch.device | None = None) -> Int64[Tensor, " samples"]:
    """0, …, 0, 1, …, 1, … of `each` samples a class, the order in which a class's are flattened."""
    return torch.arange(ways, device=device).repeat_interleave(each)


@runtime_checkable
class Classes(Protocol):
    """Classes whose images lie side by side, such as a `class_sets.ClassSet`."""

    @property
    def images(self) -> UInt8[Tensor, "images channels rows columns"]:
        """Of all classes."""
        ...

    @property
    def first(self) -> Int64[Tensor, " classes"]:
        """Where a class's images begin."""
        ...

    @property
    def count(self) -> Int64[Tensor, " classes"]:
        """How many a class has."""
        ...


@dataclass(frozen=True)
class Pool:
    """Classes on a device, from which episodes are drawn."""

    images: UInt8[Tensor, "images channels rows columns"]
    first: Int64[Tensor, " classes"]
    count: Int64[Tensor, " classes"]

    @staticmethod
    def of(classes: Classes, device: torch.device | str = "cpu") -> "Pool":
        """The classes of a set on a device."""
        tensors = (classes.images, classes.first, classes.count)
        return Pool(*(tensor.to(device) for tensor in tensors))

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.first)

    def draw(
        self, keys: Tensor, ways: int, samples: int
    ) -> Int64[Tensor, "*episodes ways samples"]:
        """Indices of images: `ways` distinct classes, of each `samples` distinct images.

        Args:
            keys: one for each episode, of any shape.
            ways: N.
            samples: shots + queries of a class, in random order.
        """
        chosen = random.distinct(random.fold(keys, 0), self.classes, ways)
        return self.draw_images(keys, chosen, samples)

    def draw_images(
        self, keys: Tensor, chosen: Int64[Tensor, "*episodes ways"], samples: int
    ) -> Int64[Tensor, "*episodes ways samples"]:
        """Indices of `samples` distinct images of each chosen class, in random order."""
        ways = torch.arange(chosen.shape[-1], device=chosen.device)
        of_class = random.fold(random.fold(keys, 1).unsqueeze(-1), ways)
        within = random.distinct(of_class, self.count[chosen], samples)
        return self.first[chosen].unsqueeze(-1) + within

    def gather(
        self, indices: Int64[Tensor, "*places"], scale: Float[Tensor, ""]
    ) -> Float[Tensor, "*places channels rows columns"]:
        """Images times `scale`, in its dtype, for indices of any shape."""
        picked = self.images.index_select(0, indices.reshape(-1))
        scaled = picked.to(scale.dtype).mul_(scale)  # in place: memory is what limits it
        return scaled.view(*indices.shape, *self.images.shape[1:])


BLOCK = 1 << 16
"""Images of which the indices are drawn at once; a matter of speed, not of results. A draw takes
.4 ms whatever its size, and 90 ns an image."""


class EpisodeBatches:
    """The training episodes of S seeds, by step.

    `batch(step)` returns the fields of `Episodes`: (S, E, N, K, …) and (S, E, N, Q, …).
    """

    def __init__(
        self,
        pool: Pool,
        seeds: list[int],
        ways: int,
        shots: int,
        queries: int,
        episodes: int,
        scale: Float[Tensor, ""],
    ) -> None:
        """Draws nothing yet.

        Args:
            pool: classes to draw from.
            seeds: one stream of episodes for each.
            ways: N.
            shots: K.
            queries: Q.
            episodes: E, of a step.
            scale: what a pixel is multiplied by; its dtype is that of the inputs.
        """
        self.pool, self.seeds, self.scale = pool, torch.tensor(seeds), scale
        self.ways, self.shots, self.queries, self.episodes = ways, shots, queries, episodes
        drawn = len(seeds) * episodes * ways * (shots + queries)
        self.steps = max(1, BLOCK // drawn)
        self.first_step = -1
        self.block = torch.empty(0)

    def batch(self, step: int) -> tuple[Tensor | None, ...]:
        """The episodes of a step, a pure function of seed and step."""
        first = step - step % self.steps
        if first != self.first_step:
            self.first_step, self.block = first, self._draw(first)
        images = self.pool.gather(self.block[:, step - first], self.scale)
        return images[:, :, :, : self.shots], images[:, :, :, self.shots :], None, None

    def _draw(self, first: int) -> Int64[Tensor, "seeds steps episodes ways samples"]:
        """Indices of a block of steps."""
        steps = torch.arange(first, first + self.steps)
        keys = random.make_key(self.seeds.unsqueeze(1), "training episodes", steps)
        keys = random.fold(keys.unsqueeze(-1), torch.arange(self.episodes))
        keys = keys.to(self.pool.images.device)
        return self.pool.draw(keys, self.ways, self.shots + self.queries)


def evaluation_keys(purpose: str, episodes: int) -> Int64[Tensor, " episodes"]:
    """The keys of the episodes on which all methods and all seeds are measured."""
    return random.fold(random.make_key(0, f"{purpose} episodes"), torch.arange(episodes))


def check_sizes(
    classes: int, images: int, sizes: tuple[int, int, int], what: str, keys: tuple[str, str, str]
) -> None:
    """Refuses episodes that the classes cannot give.

    Args:
        classes: how many there are.
        images: of the smallest class.
        sizes: ways N, shots K, queries Q.
        what: where the classes are from, for the sentence.
        keys: the settings that give N, K and Q, for the sentence.

    Raises:
        UserError: more ways than classes, or more shots and queries than images.
    """
    ways, shots, queries = sizes
    if ways > classes:
        raise UserError(
            f"{keys[0]}: {ways} ways, but {what} has {classes} classes; ask for at most {classes}"
        )
    if shots + queries > images:
        raise UserError(
            f"{keys[1]}, {keys[2]}: {shots} shots and {queries} queries of a class, but {what} has "
            f"{images} images a class; ask for at most {images} together"
        )
