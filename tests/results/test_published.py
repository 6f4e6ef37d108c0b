"""Published numbers: units, standard errors, and what is refused."""

import math

import pytest

from tlresearch.errors import UserError
from tlresearch.results.published import (
    Published,
    PublishedRow,
    as_fraction,
    chance_of,
    standard_error,
)


def block(row: PublishedRow, **settings) -> Published:
    return Published(source="A paper, Table 1", metric="acc", rows=[row], **settings)


def test_percent_and_fraction():
    row = PublishedRow("ewc", 98.64)
    assert as_fraction(block(row), 98.64) == pytest.approx(0.9864)
    assert as_fraction(block(row, unit="fraction"), 0.5) == 0.5


@pytest.mark.parametrize(
    ("spread_is", "runs", "expected"),
    [
        ("sem", None, 0.02),
        ("sem", 20, 0.02),
        ("sd", 16, 0.005),
        ("ci95", 5, 0.02 / 2.7764451),  # t₀.₉₇₅(4)
        ("ci95", None, 0.02 / 1.9599640),
    ],
)
def test_standard_error_of_each_spread(spread_is, runs, expected):
    row = PublishedRow("ewc", 90.0, spread=2.0)
    assert standard_error(block(row, spread_is=spread_is, runs=runs), row) == pytest.approx(
        expected, rel=1e-7
    )


def test_no_spread_is_unknown_and_not_zero():
    row, spread = PublishedRow("ewc", 90.0), PublishedRow("ewc", 90.0, spread=2.0)
    assert standard_error(block(row, runs=20), row) is None
    assert standard_error(block(spread, spread_is="sd"), spread) is None  # sd of how many runs?


def test_a_row_has_its_own_chance():
    row, other = PublishedRow("ewc", 90.0, chance=0.1), PublishedRow("si", 90.0)
    both = Published("A", "acc", [row, other], chance=0.5)
    assert (chance_of(both, row), chance_of(both, other)) == (0.1, 0.5)


@pytest.mark.parametrize(
    ("row", "settings", "words"),
    [
        ({"value": 986.4}, {}, "`value` is 986.4"),
        ({"value": math.nan}, {"unit": "fraction"}, "`value` is nan"),
        ({"value": 98.0, "spread": -1.0}, {}, "`spread` is -1.0"),
        ({"value": 98.0, "spread": 1.0}, {"spread_is": "none"}, "`spread_is` is `none`"),
        ({"value": 98.0, "spread": 1.0}, {"runs": 1}, "over 1 run"),
        ({"value": 98.0, "chance": 50.0}, {}, "`chance` is 50.0"),
        ({"value": 98.0}, {"tolerance": 0.0}, "`tolerance` is 0.0"),
        ({"value": 98.0}, {"tolerance": math.nan}, "`tolerance` is nan"),
        ({"value": 98.0}, {"runs": 0}, "`runs` is 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(row, settings, words):
    with pytest.raises(UserError) as error:
        block(PublishedRow("ewc", **row), **settings)
    assert words in str(error.value) and "A paper, Table 1" in str(error.value)


def test_a_method_given_twice_is_refused():
    rows = [PublishedRow("ewc", 1.0, "task"), PublishedRow("ewc", 2.0, "task")]
    with pytest.raises(UserError, match="'ewc', setting 'task' is given twice"):
        Published("A", "acc", rows)
