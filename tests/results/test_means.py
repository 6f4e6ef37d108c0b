"""Means over the settings of a table, by hand."""

import pytest

from tlresearch.results.means import mean_records, with_means
from tlresearch.results.published import Published, PublishedRow
from tlresearch.results.rows import build_table


def record(setting: str, seed: int, acc: float | None, method: str = "a", **more):
    fields = {"method": method, "setting": setting, "seed": seed, "status": "finished"}
    made = {"metrics": {"acc": acc}, "source": "now", "reason": None, "arrays": {"x": [1]}}
    return fields | made | {"checkpoint": "last", "details": {}} | more


def means(*records):
    return mean_records(records, ["p", "q"], "both", lambda r: r["source"])


def test_a_mean_is_of_each_seed():
    """Seed 0: (0.5 + 0.7) / 2; seed 1 lacks a setting, and other settings do not count."""
    found = means(
        record("p", 0, 0.5), record("q", 0, 0.7), record("p", 1, 0.1), record("r", 0, 0.0)
    )
    assert [(r["setting"], r["seed"]) for r in found] == [("both", 0)]
    assert found[0]["metrics"] == {"acc": pytest.approx(0.6)}
    assert found[0]["arrays"] == {} and found[0]["source"] == "now"


def test_undefined_failed_and_older_carry_over():
    (undefined,) = means(record("p", 0, None), record("q", 0, 0.7))
    assert undefined["metrics"] == {"acc": None}
    lost = record("q", 0, 0.0, status="failed", reason="nan")
    (failed,) = means(record("p", 0, 0.5), lost)
    assert (failed["status"], failed["reason"], failed["metrics"]) == ("failed", "nan", {})
    (stale,) = means(record("p", 0, 0.5), record("q", 0, 0.7, source="older"))
    assert stale["source"] not in ("now", "older")


def test_the_table_has_the_mean_its_interval_and_the_published_mean():
    """Seeds 0.6 and 0.8; published (60 + 80) / 2 of the method that has both."""
    records = [record("p", 0, 0.5), record("q", 0, 0.7), record("p", 1, 0.7), record("q", 1, 0.9)]
    rows = [
        PublishedRow("a", 60.0, "p", status="read"),
        PublishedRow("a", 80.0, "q", status="read"),
    ]
    rows.append(PublishedRow("b", 50.0, "p"))
    (block,) = with_means([Published("paper", "acc", rows, spread_is="none")], ["p", "q"], "both")
    assert [(r.method, r.setting, r.value, r.status) for r in block.rows[3:]] == [
        ("a", "both", 70.0, "read")
    ]
    table = build_table(
        [*records, *means(*records)], ["a"], ["p", "q", "both"], ["acc"], [block],
        {("a", s): "now" for s in ("p", "q", "both")},
    )  # fmt: skip
    (row,) = table.of("a", "both", "acc")
    assert row.ours is not None and row.ours.mean == pytest.approx(0.7)
    assert row.reference is not None and row.reference.value == pytest.approx(0.7)
    assert not table.cells["a", "both"].stale
