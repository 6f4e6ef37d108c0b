"""What counts as the same number, and which difference is told."""

import math
from typing import Any

import pytest

from tlresearch.results.comparison import first_difference, numbers, numbers_digest


def record(**changes: Any) -> dict[str, Any]:
    plain = {
        "status": "finished",
        "reason": None,
        "metrics": {"acc": 0.9, "bwt": -0.1},
        "arrays": {"curve": [[0.1, 0.2], [0.3, None]], "id": "abc"},
        "wall_seconds": 1.0,
        "source": "old",
    }
    return plain | changes


def test_time_and_other_facts_do_not_count():
    """Neither beside the metrics nor as metrics: `seconds`, memory."""
    one = record()
    costs = {"seconds": 1.5, "wall_seconds": 3.0, "peak_memory_bytes": 9, "train_seconds": 2}
    other = record(wall_seconds=9.0, source="new", metrics=one["metrics"] | costs)
    assert first_difference({0: one}, {0: other}) is None
    assert numbers_digest(one) == numbers_digest(other)
    assert set(numbers(other)["metrics"]) == {"acc", "bwt"}


@pytest.mark.parametrize(
    ("changes", "name", "largest"),
    [
        ({"metrics": {"acc": math.nextafter(0.9, 1), "bwt": -0.1}}, "acc", 1.1e-16),
        ({"metrics": {"acc": 0.9}}, "bwt", None),
        ({"metrics": {"acc": 0.9, "bwt": None}}, "bwt", None),
        ({"metrics": {"acc": 0.9, "bwt": -0.1, "fwt": 1.0}}, "fwt", None),
        ({"arrays": {"curve": [[0.1, 0.2], [0.5, None]], "id": "abc"}}, "curve[1][0]", 0.2),
        ({"arrays": {"curve": [[0.1, 0.2], [0.3, 0.0]], "id": "abc"}}, "curve[1][1]", None),
        ({"arrays": {"curve": [[0.1, 0.2]], "id": "abc"}}, "curve", None),
        ({"arrays": {"curve": [[0.1, 0.2], [0.3, None]], "id": "xyz"}}, "id", None),
        ({"status": "failed", "metrics": {}, "arrays": {}}, "status", None),
    ],
)
def test_a_last_digit_a_name_a_length_or_a_text_is_a_difference(changes, name, largest):
    found = first_difference({0: record(), 1: record()}, {0: record(), 1: record(**changes)})
    assert found and (found.name, found.seed) == (name, 1)
    assert numbers_digest(record()) != numbers_digest(record(**changes))
    if largest is None:
        assert math.isnan(found.largest) and str(found).endswith("no difference of numbers")
    else:
        assert found.largest == pytest.approx(largest, rel=0.1)


def test_minus_zero_is_not_zero():
    """Equal as numbers, not as bits."""
    one, other = record(metrics={"acc": 0.0}), record(metrics={"acc": -0.0})
    found = first_difference({0: one}, {0: other})
    assert found and found.largest == 0 and "stored 0.0, now -0.0" in str(found)


def test_the_first_is_named_and_the_largest_measured():
    """The first in the table's order of metrics; the largest over metrics, arrays and seeds."""
    stored = {0: record(), 1: record()}
    now = {
        0: record(metrics={"acc": 0.8, "bwt": -0.3}),
        1: record(arrays={"curve": [[0.1, 5.2], [0.3, None]], "id": "abc"}),
    }
    found = first_difference(stored, now, ["bwt"])
    assert str(found) == (
        "bwt of seed 0, stored -0.1, now -0.3, largest difference 5 (curve[0][1] of seed 1)"
    )
