"""The images of an experiment of distillation on the device, and who may see which of them."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tlresearch.backbones.cifar_resnet import CHECKPOINT_MEAN, CHECKPOINT_STD
from tlresearch.data import catalogue, subsets
from tlresearch.distillation.settings import DistillationSettings
from tlresearch.distillation.views import Augment, Views
from tlresearch.errors import UserError
from tlresearch.functional import random
from tlresearch.functional.augmentation import mirrored, shifted
from tlresearch.functional.random import Key

FIXED = 0
"""Seed of what is drawn once for all runs: the subset and its held-out part."""
_CHUNK = 10_000


@dataclass(frozen=True)
class Images:
    """What is trained and measured on; images are normalised already."""

    name: str
    train: Float[Tensor, "n channels rows columns"]
    labels: Int64[Tensor, " n"]
    test: Float[Tensor, "m channels rows columns"]
    test_labels: Int64[Tensor, " m"]
    kept: Int64[Tensor, " kept"]
    """Places of the training images that teachers learn from."""
    held_out: Int64[Tensor, " held_out"]
    """The others, of which no network learns."""
    black: Tensor
    """What 0 became, (channels, 1, 1)."""
    classes: int
    recipe: str
    """How images were normalised, in words."""
    fingerprint: str
    """Of the data set and of the part of it that there is."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image."""
        channels, rows, columns = self.train.shape[1:]
        return channels, rows, columns

    def views(self, shift: int, flip: bool, seed: int, count: int = 1) -> Views:
        """The training images as a network sees them; the same object for equal arguments."""
        if not (shift or flip):
            return Views(self.train, self.fingerprint, recipe=self.recipe)
        words = f"{self.recipe}; moved by up to {shift}{', half mirrored' if flip else ''}"
        augment: Augment = partial(_augmented, shift=shift, flip=flip, black=self.black)
        return Views(self.train, self.fingerprint, None, augment, words, seed, count)

    def pool(self, settings: DistillationSettings, seed: int) -> Int64[Tensor, " pool"]:
        """Places of the images that a student of that seed is taught with, in rising order.

        Raises:
            UserError: more are asked for than there are, or a class has none.
        """
        kept, labels = self.kept, self.labels
        if settings.transfer_classes:
            self._check_classes(settings)
            chosen = torch.tensor(settings.transfer_classes, device=labels.device)
            kept = kept[torch.isin(labels[kept], chosen)]
        if settings.transfer_samples is None:
            return kept
        if settings.transfer_samples > len(kept):
            raise UserError(
                f"benchmark.transfer_samples: {settings.transfer_samples} were asked for, and of "
                f"{self.name} {len(kept)} training images may be taken"
            )
        key = random.make_key(seed, "transfer samples")
        some = subsets.evenly(labels[kept].cpu(), settings.transfer_samples, key)
        return kept[some.to(kept.device)]

    def _check_classes(self, settings: DistillationSettings) -> None:
        """Refuses classes to teach with, or to be found, of which there are no images."""
        chosen = set(settings.transfer_classes)
        there = set(self.labels[self.kept].tolist())
        if chosen - there:
            raise UserError(
                f"benchmark.transfer_classes: of class {min(chosen - there)} {self.name} has no "
                "training image that is not held out; choose others, or more samples"
            )
        on = self.test_labels if settings.evaluate == "test" else self.labels[self.held_out]
        if not there - chosen or not set(on.tolist()) - chosen:
            raise UserError(
                f"benchmark.transfer_classes: {self.name} has no images of the classes beside "
                f"{sorted(chosen)} to teach the teacher or to be measured on; leave more classes "
                "out, or take more samples"
            )


def _augmented(keys: Key, x: Tensor, shift: int, flip: bool, black: Tensor) -> Tensor:
    """Moved, then mirrored."""
    x = shifted(keys, x, shift, black)
    return mirrored(keys, x) if flip else x


def load_images(
    settings: DistillationSettings, device: torch.device, dtype: torch.dtype, root: Any = None
) -> Images:
    """The images of a benchmark.

    Raises:
        UserError: the data set is missing or damaged, or too small for what is asked of it.
    """
    data = catalogue.load(settings.dataset, root)
    total = len(data.train.labels)
    if settings.samples is not None and settings.samples > total:
        raise UserError(
            f"benchmark.samples: {settings.samples} were asked for, and {data.name} has {total} "
            "training images"
        )
    images, labels = data.train.images, data.train.labels
    if settings.samples is not None:
        key = random.make_key(FIXED, "samples of distillation")
        some = subsets.evenly(labels, settings.samples, key)
        images, labels = images[some], labels[some]
    kept, held_out = torch.arange(len(labels)), torch.arange(0)
    if settings.validation:
        key = random.make_key(FIXED, "validation of distillation")
        kept, held_out = subsets.split(labels, settings.validation, key)
        if not len(kept) or not len(held_out):
            raise UserError(
                f"benchmark.validation: {settings.validation:g} of {len(labels)} images of "
                f"{data.name} leaves none to train on or to be held out; choose another fraction"
            )
    factor, shift = _normalisation(settings.normalise, data.train.images, dtype)
    return Images(
        name=data.name,
        train=_prepared(images, factor, shift, device),
        labels=labels.to(device),
        test=_prepared(data.test.images, factor, shift, device),
        test_labels=data.test.labels.to(device),
        kept=kept.to(device),
        held_out=held_out.to(device),
        black=-shift.to(device),
        classes=len(data.class_names),
        recipe=f"{settings.normalise}, {dtype}",
        fingerprint=f"{data.fingerprint}, {settings.samples or 'all'} samples",
    )


def _prepared(images: Tensor, factor: Tensor, shift: Tensor, device: torch.device) -> Tensor:
    """images · factor − shift, in chunks, so that no second large array is made."""
    made = torch.empty(images.shape, dtype=factor.dtype, device=device)
    for some, rows in zip(images.split(_CHUNK), made.split(_CHUNK), strict=True):
        rows.copy_(some.to(factor.dtype) * factor - shift)
    return made


def _normalisation(kind: str, images: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Factor and shift of each channel, (channels, 1, 1), computed in float64."""
    channels = images.shape[1]
    mean, deviation = torch.zeros(channels).double(), torch.ones(channels).double()
    if kind == "imagenet":
        if channels != 3:
            raise UserError(
                f"benchmark.normalise: 'imagenet' is of 3 channels, and these images have "
                f"{channels}; use unit or standard"
            )
        mean, deviation = (
            torch.tensor(CHECKPOINT_MEAN).double(),
            torch.tensor(CHECKPOINT_STD).double(),
        )
    elif kind == "standard":
        mean, deviation = _moments(images)
    view = (channels, 1, 1)
    factor, shift = 1 / (255 * deviation), mean / deviation
    return factor.view(view).to(dtype), shift.view(view).to(dtype)


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel of pixels in [0, 1], in float64."""
    count = images[:, 0].numel()
    total = squares = torch.zeros(images.shape[1]).double()
    for part in images.split(_CHUNK):
        pixels = part.double() / 255
        total, squares = total + pixels.sum((0, 2, 3)), squares + pixels.square().sum((0, 2, 3))
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=1e-8)
