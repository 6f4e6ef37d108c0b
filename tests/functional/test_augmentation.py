"""Moved and mirrored images against loops over pixels."""

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from tlresearch.functional import random
from tlresearch.functional.augmentation import mirrored, shifted

F64 = torch.float64


def images(count: int = 40, channels: int = 2, rows: int = 5, columns: int = 4) -> Tensor:
    """All numbers differ."""
    return 1 + torch.arange(count * channels * rows * columns, dtype=F64).view(
        count, channels, rows, columns
    )


KEYS = random.fold(random.make_key(3, "view", 0), torch.arange(40))


def moves_of(x: Tensor, moved: Tensor, pixels: int, fill: Tensor) -> list[tuple[int, int]]:
    """All moves that make the one image of the other, pixel by pixel."""
    channels, rows, columns = x.shape
    found = []
    for dy in range(-pixels, pixels + 1):
        for dx in range(-pixels, pixels + 1):
            expected = fill.view(-1, 1, 1).expand(channels, rows, columns).clone()
            for i in range(rows):
                for j in range(columns):
                    if 0 <= i + dy < rows and 0 <= j + dx < columns:
                        expected[:, i, j] = x[:, i + dy, j + dx]
            if torch.allclose(moved, expected, rtol=0, atol=1e-12):
                found.append((dy, dx))
    return found


@pytest.mark.parametrize("pixels", [1, 2])
def test_each_image_is_moved_by_one_of_all_moves(pixels):
    """Found by trying all; what comes in from outside is the fill of its channel."""
    x, fill = images(), torch.tensor([-0.5, 0.25], dtype=F64)
    found = shifted(KEYS, x, pixels, fill.view(-1, 1, 1))
    all_moves = [moves_of(a, b, pixels, fill) for a, b in zip(x, found, strict=True)]
    assert all(len(moves) == 1 for moves in all_moves)
    side = set(range(-pixels, pixels + 1))
    for axis in range(2):
        assert {moves[0][axis] for moves in all_moves} == side
    assert len({moves[0] for moves in all_moves}) > len(side), "rows and columns move together"


def test_no_pixels_is_the_image_itself():
    assert shifted(KEYS, images(), 0) is not None and shifted(KEYS, images(), 0).equal(images())


def test_each_image_is_mirrored_or_not():
    """About half, and the moves of an image do not tell which."""
    x = images()
    found = mirrored(KEYS, x)
    flipped = [bool(b.equal(a.flip(2))) for a, b in zip(x, found, strict=True)]
    same = [bool(b.equal(a)) for a, b in zip(x, found, strict=True)]
    assert [not one for one in flipped] == same and 10 < sum(flipped) < 30


@pytest.mark.parametrize("change", [lambda k, x: shifted(k, x, 2), mirrored])
def test_a_row_depends_on_its_key_and_itself(change):
    """Not on its place or its neighbours; and maps over seeds."""
    x, whole = images(), change(KEYS, images())
    some = torch.tensor([7, 0, 33])
    assert change(KEYS[some], x[some]).equal(whole[some])
    seeds = torch.stack([KEYS, KEYS + 1])
    both = vmap(change)(seeds, torch.stack([x, x]))
    assert both[0].equal(whole) and both[1].equal(change(KEYS + 1, x))
    assert not both[1].equal(whole)
