"""Splits of zero-shot data: no image and no class where it must not be."""

from dataclasses import replace

import pytest
import torch

from tlresearch.data.class_sets import by_class
from tlresearch.data.glyph_classes import TEST_FRACTION, of_class_sets
from tlresearch.data.zero_shot import (
    ZeroShotSplit,
    check_split,
    classes_in,
    divide,
    validation_split,
)
from tlresearch.errors import UserError


def class_set(first: int, classes: int, each: int):
    """Image i of class c has the pixel value 10 · (first + c) + i."""
    labels = torch.arange(classes).repeat(each)
    values = 10 * (first + labels) + torch.arange(each).repeat_interleave(classes)
    images = values.to(torch.uint8).view(-1, 1, 1, 1)
    return by_class(images, labels, tuple(f"class {first + c}" for c in range(classes)))


@pytest.fixture
def data():
    """Five training, two validation and three test classes, of ten images each."""
    sets = [class_set(0, 5, 10), class_set(5, 2, 10), class_set(7, 3, 10)]
    values = [torch.full((len(s.names), 2), float(i)) for i, s in enumerate(sets)]
    return of_class_sets("toy", sets, values, ("a", "b"), "here")


def values_of(data, images):
    return set(data.inputs[images].flatten().tolist())


def test_class_sets_become_one_data_set(data):
    """Labels, pixels, names and attributes of a class stay together."""
    assert (data.labels == data.inputs.flatten() // 10).all()
    assert data.class_names == tuple(f"class {c}" for c in range(10))
    assert data.attributes[:, 0].tolist() == [0] * 5 + [1] * 2 + [2] * 3
    assert data.shape == (1, 1, 1) and data.validation_classes == (5, 6)


def test_parts_of_the_test(data):
    """Every image is in one part; unseen classes are the test classes; a fifth of the seen ones."""
    train, test_seen, test_unseen = (values_of(data, part) for part in data.split)
    assert test_unseen == set(range(70, 100))
    assert train | test_seen == set(range(70)) and not train & test_seen
    counts = torch.bincount(data.labels[data.split.test_seen])
    assert counts.tolist() == [round(10 * TEST_FRACTION)] * 7


def test_a_selection_sees_training_images_only(data):
    """Neither part of the test; its unseen classes are in no image that it trains on."""
    split = validation_split(data, 0.25)
    parts = [values_of(data, part) for part in split]
    assert set.union(*parts) == values_of(data, data.split.train)
    assert sum(map(len, parts)) == len(data.split.train)
    assert set(classes_in(data.labels, split.test_unseen).tolist()) == {5, 6}
    assert set(classes_in(data.labels, split.train).tolist()) == set(range(5))
    assert torch.bincount(data.labels[split.test_seen]).tolist() == [2] * 5  # a quarter of 8


@pytest.mark.parametrize(("fraction", "each"), [(0.001, 1), (0.5, 2), (0.999, 3)])
def test_each_class_is_in_both_parts(fraction, each):
    labels = torch.arange(3).repeat_interleave(4)
    first, second = divide(labels, torch.arange(12), fraction, "a")
    assert torch.bincount(labels[second]).tolist() == [each] * 3
    assert torch.cat([first, second]).sort().values.tolist() == list(range(12))


def test_division_is_fixed_and_named_by_its_purpose():
    """No seed of a run has another test set; another purpose divides otherwise."""
    labels = torch.zeros(100, dtype=torch.int64)
    found = [divide(labels, torch.arange(100), 0.2, p)[1].tolist() for p in ("a", "a", "b")]
    assert found[0] == found[1] != found[2]


def test_a_class_with_one_image_is_refused():
    with pytest.raises(UserError, match="class 1 has one image only"):
        divide(torch.tensor([0, 0, 1]), torch.arange(3), 0.5, "a")


def broken(data, **changes):
    split = data.split._replace(**{k: v for k, v in changes.items() if k in data.split._fields})
    validation = changes.get("validation", data.validation_classes)
    with pytest.raises(UserError, match=r"^here: ") as error:
        check_split(data.labels, split, validation, "here")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_overlaps_are_refused(data):
    """Images, classes, and classes that are measured as seen but never trained on."""
    train, test_seen, test_unseen = data.split
    assert "2 images are in the parts" in broken(data, test_seen=torch.cat([test_seen, train[:2]]))
    assert "class 7" in broken(data, train=torch.cat([train, test_unseen[:1]]))
    few = train[data.labels[train] != 3]
    assert "class 3" in broken(data, train=few)
    assert "no image" in broken(data, test_unseen=test_unseen[:0])
    assert "twice" in broken(data, train=torch.cat([train, train[:1]]))


@pytest.mark.parametrize("validation", [(), (7,), (5, 7), tuple(range(7))])
def test_validation_classes_are_some_of_the_seen(data, validation):
    assert "expected all, at least one and not every" in broken(data, validation=validation)


def test_fingerprint_tells_contents_apart(data):
    """Of other attributes, too: a record is made again when only they have changed."""
    sets = [class_set(0, 5, 10), class_set(5, 2, 10), class_set(7, 3, 10)]
    values = [torch.zeros(len(s.names), 2) for s in sets]
    assert of_class_sets("toy", sets, values, ("a", "b"), "here").fingerprint != data.fingerprint
    values = [torch.full((len(s.names), 2), float(i)) for i, s in enumerate(sets)]
    assert of_class_sets("toy", sets, values, ("a", "b"), "x").fingerprint == data.fingerprint
    assert isinstance(data.split, ZeroShotSplit) and replace(data).shape == data.shape
