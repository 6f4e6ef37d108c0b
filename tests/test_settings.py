"""Bounds of numeric settings."""

import math

import pytest

from tlresearch.settings import Bounds, violations


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "words"),
    [
        (Bounds(ge=0), [0, 0.0, 5, math.inf], [-1e-300, -1, math.nan], "at least 0"),
        (Bounds(gt=0), [1e-300, 1], [0, -0.0, math.nan], "above 0"),
        (Bounds(le=1), [1, -math.inf], [1.0000001, math.nan], "at most 1"),
        (Bounds(lt=1), [0.9999999], [1, 1.0, math.nan], "below 1"),
        (Bounds(ge=0, lt=1), [0, 0.5], [-0.1, 1], "at least 0 and below 1"),
        (Bounds(gt=0, le=0.5), [0.5], [0, 0.6], "above 0 and at most 0.5"),
    ],
)
def test_only_values_outside_violate(bounds, inside, outside, words):
    assert [violations(v, bounds) for v in inside] == [None] * len(inside)
    assert [violations(v, bounds) for v in outside] == [words] * len(outside)


def test_no_side_is_no_violation():
    assert violations(math.nan, Bounds()) is None
    assert str(Bounds()) == "any number"
