"""The drawing of outlines, which letters are classes, their images and attributes."""

import numpy as np
import pytest
import torch

from tlresearch.data import catalogue, class_sets, class_tables, glyphs, outlines
from tlresearch.data.glyph_attributes import glyph_attributes


def box(left: float, bottom: float, right: float, top: float, clockwise: bool = True):
    """The outline of a rectangle, in ems."""
    corners = [(left, bottom), (left, top), (right, top), (right, bottom)]
    ring = corners if clockwise else corners[::-1]
    return np.array([[*ring[i], *ring[(i + 1) % 4]] for i in range(4)])


def test_a_rectangle_covers_the_fraction_of_each_pixel():
    """6.5 × 3.25 pixels on the baseline, centred: from column 10.75 to 17.25, rows 16.75 to 20."""
    em = outlines.EM
    picture = outlines.draw([box(1.0, 0.0, 1.0 + 6.5 / em, 3.25 / em)])[0, 0].double() / 255
    across = torch.zeros(28, dtype=torch.float64)
    across[11:17], across[10], across[17] = 1, 0.25, 0.25
    down = torch.zeros(28, dtype=torch.float64)
    down[17:20], down[16] = 1, 0.25
    torch.testing.assert_close(picture, down[:, None] * across, atol=0.5 / 255, rtol=0)


def test_holes_are_empty_and_overlaps_count_once():
    outer, hole = box(0, 0, 0.8, 0.8), box(0.2, 0.2, 0.6, 0.6, clockwise=False)
    ring = outlines.draw([np.concatenate([outer, hole])])[0, 0]
    assert ring[12, 14] == 0 and ring[18, 14] == 255
    twice = outlines.draw([np.concatenate([outer, box(0.2, 0.2, 0.6, 0.6)])])
    assert torch.equal(twice, outlines.draw([outer]))


def test_a_map_turns_and_shifts_about_the_middle():
    """A quarter turn is numpy's, then one pixel to the right and two up."""
    letter = outlines.outline(glyphs.REGULAR, "F")
    plain = outlines.draw([letter])[0, 0]
    turn = np.array([[[0.0, -1.0, 1.0], [1.0, 0.0, 2.0]]])
    turned = outlines.draw([letter], turn)[0, 0]
    expected = torch.roll(plain.rot90(), (-2, 1), (0, 1))
    # Scan lines are counted across the letter one way and exactly the other way.
    assert (turned.int() - expected.int()).abs().max() <= 255 // 4 + 1
    assert (turned.int() - expected.int()).abs().double().mean() < 2


def test_a_letter_is_drawn_as_pillow_draws_it():
    """Pillow's FreeType at the same size, moved by whole pixels: nearly the same ink."""
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

    file = f"{get_data_path()}/fonts/ttf/{glyphs.REGULAR}.ttf"
    font = ImageFont.truetype(file, int(outlines.EM), layout_engine=ImageFont.Layout.BASIC)
    for letter in "ÅgЖ":
        canvas = Image.new("L", (60, 60))
        ImageDraw.Draw(canvas).text((20, 40), letter, fill=255, font=font, anchor="ls")
        ours = outlines.draw([outlines.outline(glyphs.REGULAR, letter)])[0, 0].numpy().astype(float)
        theirs = np.asarray(canvas).astype(float)
        windows = [theirs[20:48, x : x + 28] for x in range(32)]
        gaps = [np.abs(ours - window).sum() / ours.sum() for window in windows]
        assert min(gaps) < 0.45 < np.median(gaps)  # hinting and the fraction of a pixel remain


def test_classes_are_those_of_the_rule():
    found = glyphs.candidates()
    same = set(glyphs.twins(found))
    assert sorted(glyphs.CHARACTERS) == [c for c in found if c not in same]
    assert {"\u0410", "\u0391"} <= same and "A" not in same  # Cyrillic A, Alpha
    assert len(set(glyphs.NAMES)) == len(glyphs.CHARACTERS) == 493


def test_images_are_pinned_and_none_is_blank():
    data = catalogue.load("glyphs")
    assert data.fingerprint == catalogue.entry("glyphs").fingerprint
    both = torch.cat([data.train.images, data.test.images])
    assert torch.equal(both, glyphs.images())
    ink = both.flatten(1).double().sum(1) / 255
    assert ink.min() > 4 and ink.max() < 300
    border = both[:, 0, 0].long().sum() + both[:, 0, -1].long().sum()
    assert border / both.long().sum() < 2e-3  # hardly any is cut off above or below
    assert len(both.flatten(1).unique(dim=0)) == len(both)


def test_pools():
    splits = class_sets.class_splits("glyphs", None, None, rotations=False)
    stated = class_tables.facts("glyphs", None, None, rotations=False)
    pools = (splits.train, splits.validation, splits.test)
    assert tuple(pool.classes for pool in pools) == stated[1:4] == (300, 72, 121)
    assert all((pool.count == 20).all() for pool in pools)
    assert tuple(name for pool in pools for name in pool.names) == glyphs.NAMES
    assert torch.equal(torch.cat([pool.images for pool in pools]), glyphs.images())
    first = splits.test.group_names[int(splits.test.groups[0])]
    assert first == glyphs.script(glyphs.CHARACTERS[372]).lower()


def attributes_of(character: str) -> dict[str, float]:
    known = glyph_attributes()
    row = known.values[glyphs.CHARACTERS.index(character)].tolist()
    return dict(zip(known.names, row, strict=True))


@pytest.mark.parametrize(
    ("character", "loops", "parts"),
    [("B", 2, 1), ("O", 1, 1), ("i", 0, 2), ("8", 2, 1), ("C", 0, 1), ("Å", 2, 1), ("Ö", 1, 3)],
)
def test_loops_and_parts(character: str, loops: int, parts: int):
    """Å: in DejaVu Sans the ring is drawn with the letter, both have a hole."""
    found = attributes_of(character)
    assert (found["loops (count)"], found["parts (count)"]) == (loops, parts)
    assert found["a loop"] == (loops > 0) and found["two loops"] == (loops > 1)


def test_unicode_attributes():
    upper, lower, digit = attributes_of("É"), attributes_of("ç"), attributes_of("4")
    assert upper["script latin"] == upper["upper case"] == upper["vowel"] == 1
    assert upper["accent above"] == upper["accent acute accent"] == upper["accents (count)"] == 1
    assert lower["accent below"] == lower["accent cedilla"] == lower["lower case"] == 1
    assert lower["vowel"] == lower["accent above"] == 0
    assert digit["script digit"] == 1 and digit["upper case"] == digit["lower case"] == 0


def test_attributes_tell_the_classes_apart():
    known = glyph_attributes()
    assert known.values.shape == (len(glyphs.CHARACTERS), len(known.names))
    assert known.values.isfinite().all() and (known.values >= 0).all()
    assert len(known.values.unique(dim=0)) == len(glyphs.CHARACTERS)
    assert (known.values.std(0) > 0).all()
