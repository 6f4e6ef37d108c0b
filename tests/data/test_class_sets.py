"""Pools of classes: splits, disjointness, rotations, resizing."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlresearch.data import catalogue, class_sets, class_tables, omniglot
from tlresearch.data.class_sets import ClassSplits, by_class, class_splits, select, with_rotations
from tlresearch.data.class_tables import Facts, facts, parts, split_names
from tlresearch.errors import UserError

DATA = os.environ.get("TLRESEARCH_DATA")


def small_pool():
    """Seven images of 1 × 2 × 2 with their place as value; classes a, b, c of 2, 3, 2 images."""
    images = torch.arange(28, dtype=torch.uint8).view(7, 1, 2, 2)
    labels = torch.tensor([1, 0, 2, 1, 0, 1, 2])
    return images, by_class(images, labels, ("a", "b", "c"), [5, 6, 7], tuple("01234567"))


def images_of(pool: class_sets.ClassSet, place: int) -> torch.Tensor:
    start = int(pool.first[place])
    return pool.images[start : start + int(pool.count[place])]


def test_images_of_a_class_lie_side_by_side_in_their_order():
    images, pool = small_pool()
    assert pool.count.tolist() == [2, 3, 2] and pool.first.tolist() == [0, 2, 5]
    for place, rows in enumerate(([1, 4], [0, 3, 5], [2, 6])):
        assert torch.equal(images_of(pool, place), images[rows])


def test_selected_classes_keep_the_given_order():
    images, pool = small_pool()
    chosen = select(pool, [2, 0])
    assert chosen.names == ("c", "a") and chosen.groups.tolist() == [7, 5]
    assert torch.equal(images_of(chosen, 0), images[[2, 6]])
    assert torch.equal(images_of(chosen, 1), images[[1, 4]])
    none = with_rotations(select(pool, []))
    assert none.classes == 0 and none.images.shape == (0, 1, 2, 2)


def test_every_turn_is_a_class_of_its_own():
    """Class 4c + r: pixel by pixel, a counter-clockwise turn takes (row, column) to (1 − c, r)."""
    _, pool = small_pool()
    turned = with_rotations(pool)
    assert turned.names[4:8] == ("b/rot000", "b/rot090", "b/rot180", "b/rot270")
    assert turned.groups.tolist() == [g for g in (5, 6, 7) for _ in range(4)]
    for place in range(3):
        expected = images_of(pool, place)
        for turn in range(4):
            assert torch.equal(images_of(turned, 4 * place + turn), expected)
            after = torch.empty_like(expected)
            for row in range(2):
                for column in range(2):
                    after[:, :, 1 - column, row] = expected[:, :, row, column]
            expected = after


def test_an_overlap_is_refused():
    _, pool = small_pool()
    one, other, rest = select(pool, [0, 1]), select(pool, [2]), select(pool, [1])
    with pytest.raises(UserError, match=r"train and test classes .* overlap: 1 in both.*'b'"):
        ClassSplits(one, other, rest, "")
    with pytest.raises(UserError, match=r"validation and test classes"):
        ClassSplits(one, other, other, "")
    ClassSplits(one, other, select(pool, []), "")


def test_resizing_averages_as_pillow_does():
    """Pillow's antialiased bilinear filter rounds twice, so a grey level may differ by one."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 1, 105, 105), np.uint8))
    ours = class_sets.resize(images, 28)
    for image, small in zip(images, ours, strict=True):
        theirs = Image.fromarray(image[0].numpy()).resize((28, 28), Image.Resampling.BILINEAR)
        gap = np.abs(small[0].numpy().astype(int) - np.asarray(theirs).astype(int))
        assert gap.max() <= 1
    assert class_sets.resize(images, None) is images


def test_channels():
    colour = torch.tensor([255, 0, 0, 0, 255, 0], dtype=torch.uint8).view(2, 3, 1, 1)
    assert class_sets.recolour(colour, 1).flatten().tolist() == [76, 150]
    grey = colour[:, :1]
    assert torch.equal(class_sets.recolour(grey, 3), grey.expand(2, 3, 1, 1))


EXPECTED = {
    ("omniglot", "vinyals"): (1028, 172, 423),
    ("omniglot", "lake"): (792, 172, 659),
    ("omniglot", "background"): (964, 0, 659),
    ("omniglot", "minimal1"): (136, 0, 659),
    ("omniglot", "minimal2"): (156, 0, 659),
    ("omniglot", "maml"): (1100, 100, 423),
    ("omniglot", "all"): (0, 0, 1623),
    ("tiny_imagenet32", "standard"): (64, 16, 20),
    ("glyphs", "standard"): (300, 72, 121),
}


@pytest.mark.parametrize(("dataset", "split"), EXPECTED)
def test_sizes_are_known_without_files(dataset: str, split: str):
    found = facts(dataset, split, 28, rotations=False, channels=1)
    assert found[1:4] == EXPECTED[dataset, split]
    assert found.shape == (1, 28, 28)
    assert facts(dataset, split, 28, rotations=True)[1:4] == tuple(
        4 * n for n in EXPECTED[dataset, split]
    )
    if split != "minimal2":
        together = [c for part in parts(dataset, split) for c in part]
        assert len(together) == len(set(together))
        assert set(together) <= set(range(catalogue.entry(dataset).classes))


def test_every_data_set_can_be_a_target():
    for name in catalogue.DATASETS:
        assert split_names(name)[-1] == "all"
        found = facts(name, "all", None, rotations=False)
        assert found.test == catalogue.entry(name).classes
        assert found.shape == catalogue.entry(name).shape


def test_lakes_parts_share_no_alphabet():
    kinds = [set(), set(), set()]
    names = catalogue.entry("omniglot").class_names
    for kind, part in zip(kinds, parts("omniglot", "lake"), strict=True):
        kind.update(names[c].split("/")[0] for c in part)
    assert [len(kind) for kind in kinds] == [25, 5, 20] and not kinds[0] & kinds[1]
    assert kinds[2] == set(omniglot.ALPHABETS["evaluation"])


def test_bad_requests_are_one_sentence():
    with pytest.raises(UserError, match=r"omniglot has no split 'vinyal'; did you mean vinyals\?"):
        class_tables.check("omniglot", "vinyal")
    with pytest.raises(UserError, match=r"unknown data set 'omniglott'; did you mean omniglot"):
        split_names("omniglott")
    with pytest.raises(UserError, match=r"cannot be 0 pixels wide"):
        facts("mnist", None, 0, rotations=False)
    with pytest.raises(UserError, match=r"cannot have 2 channels; give 1 or 3"):
        facts("mnist", None, None, rotations=False, channels=2)


def test_embedded_sets_are_targets_with_the_stated_smallest_class():
    for name in ("optdigits",):
        splits = class_splits(name, None, 12, rotations=False, channels=3)
        stated = facts(name, None, 12, rotations=False, channels=3)
        assert stated == Facts((3, 12, 12), 0, 0, 10, int(splits.test.count.min()))
        assert splits.test.shape == (3, 12, 12) and splits.train.classes == 0
        assert class_splits(name, "all", 12, rotations=False, channels=3) is splits


@pytest.mark.needs_data("omniglot")
def test_vinyals_split_is_that_of_the_data_root():
    assert DATA
    path = Path(DATA) / "omniglot" / "split_vinyals.npz"
    if not path.is_file():
        return  # torchvision's layout has no such file
    with np.load(path) as theirs:
        for part, name in zip(parts("omniglot", "vinyals"), ("train", "val", "test"), strict=True):
            pairs = set(zip(theirs[f"{name}_class"], theirs[f"{name}_rot"], strict=True))
            assert pairs == {(c, turn) for c in part for turn in (0, 90, 180, 270)}


@pytest.mark.needs_data("omniglot")
def test_omniglot_pools():
    assert DATA
    splits = class_splits("omniglot", "vinyals", 28, rotations=False, root=Path(DATA))
    stated = facts("omniglot", "vinyals", 28, rotations=False)
    pools = (splits.train, splits.validation, splits.test)
    assert tuple(pool.classes for pool in pools) == stated[1:4]
    assert all((pool.count == stated.images).all() and pool.shape == stated.shape for pool in pools)
    test = splits.test
    assert test.names[0] == "Gurmukhi/character42"
    assert test.group_names[int(test.groups[0])] == "Gurmukhi"


@pytest.mark.needs_data("tiny_imagenet32")
def test_tiny_imagenet_pools():
    assert DATA
    splits = class_splits("tiny_imagenet32", None, None, rotations=False, root=Path(DATA))
    assert (splits.train.count == 250).all() and splits.test.shape == (3, 32, 32)
    assert splits.train.names[0] == "Egyptian cat" and splits.validation.classes == 16
