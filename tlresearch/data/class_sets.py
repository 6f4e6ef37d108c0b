"""Data sets seen as pools of classes: what few-shot episodes are drawn from.

`class_splits("omniglot", "vinyals", size=28, rotations=True)` is three pools with no class in
common: to train on, to choose by, to test on. What a split is, is in `class_tables`; here are the
pools themselves: images as uint8 on the CPU, sorted by class, resized and rotated once.

Resizing: bilinear with antialiasing (a pixel of 105 → 28 averages its whole footprint), in float32,
rounded to uint8. Rotations: every class c becomes four, 4c + r being its images turned by r · 90°
counter-clockwise, after resizing, as in Santoro et al. (2016) and all who followed.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor

from tlresearch.data import catalogue, class_tables
from tlresearch.data.checksums import tensor_digest
from tlresearch.data.sources import data_root
from tlresearch.errors import UserError

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""
_CHUNK = 1024  # images resized at a time: 45 MB of float32 at 105 × 105
_TURNS = 4


@dataclass(frozen=True, eq=False)
class ClassSet:
    """A pool of classes, all images of a class side by side. It is shared: do not write into it."""

    images: UInt8[Tensor, "images channels rows columns"]
    """On the CPU; those of class c are `images[first[c] : first[c] + count[c]]`."""
    first: Int64[Tensor, " classes"]
    count: Int64[Tensor, " classes"]
    names: tuple[str, ...]
    groups: Int64[Tensor, " classes"]
    """What the class belongs to, such as its alphabet: an index into `group_names`."""
    group_names: tuple[str, ...]

    @property
    def classes(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns of an image."""
        channels, rows, columns = self.images.shape[1:]
        return channels, rows, columns


@dataclass(frozen=True, eq=False)
class ClassSplits:
    """Pools for training, validation and test; no class is in two of them.

    Raises:
        UserError: some class is.
    """

    train: ClassSet
    validation: ClassSet
    test: ClassSet
    fingerprint: str
    """SHA-256 of the images and the class sizes of the three pools."""

    def __post_init__(self) -> None:
        check_disjoint(self.train.names, self.validation.names, self.test.names)


def check_disjoint(train: Sequence[str], validation: Sequence[str], test: Sequence[str]) -> None:
    """Refuses a split that has a class in two of its parts.

    Raises:
        UserError: names the two parts, how many classes they share, and one of them.
    """
    parts = {"train": set(train), "validation": set(validation), "test": set(test)}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared = parts[one] & parts[other]
        if shared:
            raise UserError(
                f"the {one} and {other} classes of the split overlap: {len(shared)} in both, such "
                f"as {min(shared)!r}; few-shot learning is tested on classes that were never "
                "trained on, so each class may be in one part only"
            )


def class_splits(
    dataset: str,
    split: str | None,
    size: int | None,
    rotations: bool,
    root: Path | None = None,
    channels: int | None = None,
) -> ClassSplits:
    """The pools of a split of a data set, kept in memory for the next call.

    Args:
        dataset: a name of the catalogue.
        split: one of `class_tables.split_names(dataset)`; None for the first of them.
        size: rows and columns of the images; None leaves them as they are.
        rotations: whether the turns by 90°, 180° and 270° are classes of their own.
        root: the data root, as for `catalogue.load`.
        channels: 3 repeats a grey image, 1 makes a coloured one grey; None leaves them.

    Raises:
        UserError: no such data set or split, images that cannot be turned, data not to be had.
    """
    name = class_tables.check(dataset, split)
    class_tables.facts(dataset, name, size, rotations, channels)  # refuses what has no meaning
    return _class_splits(dataset, name, size, rotations, data_root(root), channels)


@functools.lru_cache(maxsize=4)
def _class_splits(
    dataset: str,
    split: str,
    size: int | None,
    rotations: bool,
    root: Path | None,
    channels: int | None,
) -> ClassSplits:
    pool = _pool(dataset, size, root, channels)
    parts = [select(pool, part) for part in class_tables.parts(dataset, split, root)]
    train, validation, test = (with_rotations(part) if rotations else part for part in parts)
    digest = tensor_digest(*(t for part in (train, validation, test) for t in _content(part)))
    return ClassSplits(train, validation, test, digest)


def _content(part: ClassSet) -> tuple[Tensor, Tensor]:
    return part.images, part.count


@functools.lru_cache(maxsize=2)
def _pool(dataset: str, size: int | None, root: Path | None, channels: int | None) -> ClassSet:
    """Every class of a data set, images of its training set before those of its test set."""
    data = catalogue.load(dataset, root, keep=False)
    offset = len(data.class_names) - catalogue.entry(dataset).test_classes
    if offset == len(data.class_names):
        offset = 0  # train and test have the same classes
    splits = ((data.train, 0), (data.test, offset))
    images = torch.cat([resize(recolour(s.images, channels), size) for s, _ in splits])
    labels = torch.cat([s.labels + shift for s, shift in splits])
    groups, group_names = class_tables.groups(dataset)
    return by_class(images, labels, data.class_names, groups, group_names)


def by_class(
    images: UInt8[Tensor, "images channels rows columns"],
    labels: Int64[Tensor, " images"],
    names: tuple[str, ...],
    groups: Sequence[int] | None = None,
    group_names: tuple[str, ...] = ("all",),
) -> ClassSet:
    """The pool of labelled images; those of a class stay in their order."""
    count = labels.bincount(minlength=len(names))
    order = labels.argsort(stable=True)
    group = torch.tensor(groups or [0] * len(names), dtype=torch.int64)
    return ClassSet(images[order], count.cumsum(0) - count, count, names, group, group_names)


def select(pool: ClassSet, classes: Sequence[int]) -> ClassSet:
    """The pool of some of a pool's classes, in the order in which they are given."""
    chosen = torch.tensor(classes, dtype=torch.int64)
    count = pool.count[chosen]
    first = count.cumsum(0) - count
    within = torch.arange(int(count.sum())) - first.repeat_interleave(count)
    rows = pool.first[chosen].repeat_interleave(count) + within
    names = tuple(pool.names[c] for c in classes)
    return replace(
        pool,
        images=pool.images[rows],
        first=first,
        count=count,
        names=names,
        groups=pool.groups[chosen],
    )


def with_rotations(pool: ClassSet) -> ClassSet:
    """Class 4c + r: the images of class c turned by r · 90° counter-clockwise."""
    label = torch.arange(pool.classes).repeat_interleave(pool.count)
    turned = torch.cat([pool.images.rot90(turn, (2, 3)) for turn in range(_TURNS)])
    labels = torch.cat([_TURNS * label + turn for turn in range(_TURNS)])
    names = tuple(f"{name}/rot{90 * turn:03d}" for name in pool.names for turn in range(_TURNS))
    groups = pool.groups.repeat_interleave(_TURNS).tolist()
    return by_class(turned, labels, names, groups, pool.group_names)


def resize(
    images: UInt8[Tensor, "images channels _rows _columns"], size: int | None
) -> UInt8[Tensor, "images channels rows columns"]:
    """To size × size, bilinear with antialiasing, rounded to the nearest; None changes nothing."""
    if size is None or images.shape[2:] == (size, size):
        return images
    parts = [
        F.interpolate(
            chunk.float(), size=(size, size), mode="bilinear", align_corners=False, antialias=True
        )
        .round_()
        .clamp_(0, 255)
        .byte()
        for chunk in images.split(_CHUNK)
    ]
    return torch.cat(parts)


def recolour(
    images: UInt8[Tensor, "images _channels rows columns"], channels: int | None
) -> UInt8[Tensor, "images channels rows columns"]:
    """1 → 3 channels by repetition, 3 → 1 by luminance; None changes nothing."""
    if channels is None or images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.repeat(1, channels, 1, 1)
    weights = torch.tensor(LUMINANCE).view(1, 3, 1, 1)
    parts = [(c * weights).sum(1, keepdim=True).round_().byte() for c in images.split(_CHUNK)]
    return torch.cat(parts)
