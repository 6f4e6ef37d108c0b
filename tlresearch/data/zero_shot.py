"""Data of zero-shot learning: inputs with labels, attributes of classes, and who is unseen.

A test measures on images of unseen classes and on images of seen classes that were not trained on.
A selection looks at training images only: some of the seen classes play the unseen ones, as Xian
et al. (arXiv:1707.00600) choose hyperparameters.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tlresearch.errors import UserError
from tlresearch.functional import random
from tlresearch.functional.zero_shot import distinguishable

Images = Int64[Tensor, " images"]


class ZeroShotSplit(NamedTuple):
    """Which images are trained on, and which are measured on; indices."""

    train: Images
    """Of seen classes."""
    test_seen: Images
    """Of seen classes, none of them in `train`."""
    test_unseen: Images
    """Of classes without an image in `train`."""


@dataclass(frozen=True, eq=False)
class ZeroShotData:
    """A data set in memory. It may be shared by all who loaded it: do not write into it."""

    name: str
    inputs: Tensor
    """Images, uint8 (n, channels, height, width), or features, float32 (n, dim, 1, 1)."""
    labels: Int64[Tensor, " n"]
    """Rows of `attributes`."""
    attributes: Float[Tensor, "classes attributes"]
    """float64, as the source has them."""
    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    split: ZeroShotSplit
    """Of the test."""
    validation_classes: tuple[int, ...]
    """Seen classes that a selection takes for unseen."""
    found: str
    """The folder, or the package, that it was read from."""
    fingerprint: str
    """SHA-256 of all of it."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an input."""
        channels, height, width = self.inputs.shape[1:]
        return channels, height, width


def classes_in(labels: Int64[Tensor, " n"], images: Images) -> Int64[Tensor, " classes"]:
    """The classes of some images, rising."""
    return labels[images].unique()


def divide(
    labels: Int64[Tensor, " n"], images: Images, fraction: float, purpose: str
) -> tuple[Int64[Tensor, " first"], Int64[Tensor, " second"]]:
    """The first and the second part of images: `fraction` of each class, rounded, is the second.

    At least one image of each class is in each part. The parts depend on labels, order and purpose
    alone, not on a run's seed: no seed trains on what another is tested on.

    Raises:
        UserError: a class has one image only.
    """
    order = images[random.permutation(random.make_key(0, purpose), len(images))]
    second = torch.zeros(len(order), dtype=torch.bool)
    for c in classes_in(labels, order).tolist():
        places = (labels[order] == c).nonzero().squeeze(1)
        if len(places) < 2:
            raise UserError(
                f"class {c} has one image only, which leaves none to train on or to measure on; "
                "leave the class out or give it more images"
            )
        count = min(max(round(fraction * len(places)), 1), len(places) - 1)
        second[places[:count]] = True
    return order[~second].sort().values, order[second].sort().values


def validation_split(data: ZeroShotData, fraction: float) -> ZeroShotSplit:
    """The split of a selection, made of training images only.

    The validation classes are unseen; of every other class a `fraction` is measured on as seen.
    """
    of = data.labels[data.split.train]
    unseen = torch.isin(of, torch.tensor(data.validation_classes, dtype=torch.int64))
    train, test_seen = divide(
        data.labels, data.split.train[~unseen], fraction, "zero-shot validation"
    )
    return ZeroShotSplit(train, test_seen, data.split.train[unseen])


def check_split(
    labels: Int64[Tensor, " n"],
    split: ZeroShotSplit,
    validation_classes: tuple[int, ...],
    where: str,
) -> None:
    """Refuses a split by which a test would measure what was trained on, or nothing.

    Raises:
        UserError: one sentence that begins with `where`.
    """
    for name, part in split._asdict().items():
        if not len(part):
            raise UserError(f"{where}: the part {name} has no image; each part needs some")
        if len(part.unique()) < len(part):
            raise UserError(f"{where}: the part {name} names an image twice; use each once")
    both = torch.isin(split.test_seen, split.train).sum().item()
    if both:
        raise UserError(
            f"{where}: {both} images are in the parts train and test_seen; expected none in both"
        )
    seen = set(classes_in(labels, split.train).tolist())
    leaked = seen & set(classes_in(labels, split.test_unseen).tolist())
    if leaked:
        raise UserError(
            f"{where}: class {min(leaked)} (counted from 0) has images in train and in "
            "test_unseen; an unseen class must not be trained on"
        )
    strange = set(classes_in(labels, split.test_seen).tolist()) - seen
    if strange:
        raise UserError(
            f"{where}: class {min(strange)} (counted from 0) has images in test_seen but none in "
            "train; a seen class needs images to train on"
        )
    validation = set(validation_classes)
    if not validation < seen or not validation:
        raise UserError(
            f"{where}: of {len(validation)} validation classes {len(validation & seen)} are among "
            f"the {len(seen)} seen ones; expected all, at least one and not every seen class"
        )


def ceiling(data: ZeroShotData, split: ZeroShotSplit) -> float:
    """The highest accuracy among unseen classes that their attributes allow."""
    unseen = classes_in(data.labels, split.test_unseen)
    return distinguishable(data.attributes[unseen]).item()
