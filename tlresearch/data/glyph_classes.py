"""Glyphs for zero-shot learning: characters as classes, and synthetic attributes of them.

The attributes are computed (`data.glyph_attributes`), not observed by people: they are a test of
the methods, not of what people know. The class splits are those of few-shot learning: classes of
its test part are unseen, those of its training and validation parts are seen, and a selection takes
the validation part for unseen.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from tlresearch.data.checksums import tensor_digest
from tlresearch.data.class_sets import ClassSet, class_splits
from tlresearch.data.glyph_attributes import glyph_attributes
from tlresearch.data.glyphs import NAMES
from tlresearch.data.zero_shot import ZeroShotData, ZeroShotSplit, check_split, divide

GLYPHS = "glyphs"
TEST_FRACTION = 0.2
"""Of the images of each seen class; the rest is trained on."""


def of_class_sets(
    name: str,
    sets: Sequence[ClassSet],
    values: Sequence[Tensor],
    attribute_names: tuple[str, ...],
    found: str,
) -> ZeroShotData:
    """Training, validation and test classes as one data set.

    Args:
        name: of the data set.
        sets: of training, validation and test classes; a class is in one of them.
        values: attributes of their classes, (classes, attributes) each.
        attribute_names: of the columns.
        found: where they are from.

    Raises:
        UserError: a set is empty, or a seen class has one image only.
    """
    numbers, images, labels = [], [], []
    for part in sets:
        first = sum(map(len, numbers))
        numbers.append(range(first, first + len(part.names)))
        for number, start, count in zip(
            numbers[-1], part.first.tolist(), part.count.tolist(), strict=True
        ):
            images.append(part.images[start : start + count])
            labels.append(torch.full((count,), number, dtype=torch.int64))
    inputs, of = torch.cat(images).cpu(), torch.cat(labels)
    _, validation, test_classes = numbers
    seen = (of < test_classes.start).nonzero().squeeze(1)
    train, test_seen = divide(of, seen, TEST_FRACTION, f"{name} zero-shot test")
    split = ZeroShotSplit(train, test_seen, (of >= test_classes.start).nonzero().squeeze(1))
    check_split(of, split, tuple(validation), name)
    attributes = torch.cat(list(values)).double()
    return ZeroShotData(
        name=name,
        inputs=inputs,
        labels=of,
        attributes=attributes,
        class_names=tuple(n for part in sets for n in part.names),
        attribute_names=attribute_names,
        split=split,
        validation_classes=tuple(validation),
        found=found,
        fingerprint=tensor_digest(inputs, of, attributes, *split),
    )


@functools.cache
def glyphs() -> ZeroShotData:
    """Letters of five scripts, and their synthetic attributes; drawn once."""
    splits = class_splits(GLYPHS, None, None, False)
    table = glyph_attributes()
    row_of = {name: i for i, name in enumerate(NAMES)}
    sets = (splits.train, splits.validation, splits.test)
    values = [table.values[[row_of[name] for name in part.names]] for part in sets]
    return of_class_sets(GLYPHS, sets, values, table.names, "matplotlib")


def glyph_fingerprint() -> str:
    """SHA-256 of images, labels, attributes and split."""
    return glyphs().fingerprint


def glyph_sizes() -> tuple[tuple[int, int, int], int]:
    """Shape of an image, and how many classes there are."""
    data = glyphs()
    return data.shape, len(data.attributes)
