"""Parts drawn class by class, against counts."""

from itertools import pairwise

import pytest
import torch

from tlresearch.data.subsets import evenly, split
from tlresearch.functional import random

LABELS = torch.tensor([0] * 10 + [1] * 3 + [2] * 7)[random.permutation(random.make_key(1, "y"), 20)]
KEYS = [random.make_key(seed, "subset") for seed in range(5)]


def fair(samples: int) -> list[int]:
    """As equally many as possible of 10, 3 and 7: one is dealt to each class in turn."""
    counts, room = [0, 0, 0], [10, 3, 7]
    while sum(counts) < samples:
        for label in range(3):
            if counts[label] < room[label] and sum(counts) < samples:
                counts[label] += 1
    return counts


@pytest.mark.parametrize("samples", range(1, 21))
def test_classes_have_equal_parts(samples):
    """To within the one that is left over; every place once and in rising order."""
    for key in KEYS:
        places = evenly(LABELS, samples, key).tolist()
        assert places == sorted(set(places)) and len(places) == samples
        counts = LABELS[places].bincount(minlength=3).tolist()
        assert sorted(counts) == sorted(fair(samples)) or samples % 3
        full = [c for c, room in zip(counts, (10, 3, 7), strict=True) if c < room]
        assert not full or max(counts) - min(full) <= 1


def test_fewer_are_a_part_of_more_and_keys_differ():
    for key in KEYS:
        parts = [set(evenly(LABELS, n, key).tolist()) for n in range(1, 21)]
        assert all(a < b for a, b in pairwise(parts))
    assert len({tuple(evenly(LABELS, 6, key).tolist()) for key in KEYS}) > 1


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 0.5, 0.99])
def test_a_part_of_each_class_is_held_out(fraction):
    """Rounded for each class; both parts rise and make the whole."""
    for key in KEYS:
        kept, held_out = (part.tolist() for part in split(LABELS, fraction, key))
        assert kept == sorted(kept) and held_out == sorted(held_out)
        assert sorted(kept + held_out) == list(range(20))
        expected = [round(fraction * count) for count in (10, 3, 7)]
        assert (
            LABELS[torch.tensor(held_out, dtype=torch.int64)].bincount(minlength=3).tolist()
            == expected
        )
    assert (
        fraction in (0.0, 0.99)
        or len({tuple(split(LABELS, fraction, k)[1].tolist()) for k in KEYS}) > 1
    )


def test_any_place_of_a_class_may_be_held_out():
    """Over many keys each is so about as often."""
    counts = torch.zeros(20)
    for seed in range(200):
        counts[split(LABELS, 0.3, random.make_key(seed, "subset"))[1]] += 1
    for label, part in ((0, 3 / 10), (1, 1 / 3), (2, 2 / 7)):
        of_class = counts[LABELS.eq(label)] / 200
        assert (of_class - part).abs().max() < 0.15
