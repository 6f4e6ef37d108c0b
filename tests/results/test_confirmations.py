"""Which sources count as the present one, and what a table says of it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tlresearch.errors import UserError
from tlresearch.results import confirmations
from tlresearch.results.comparison import numbers_digest
from tlresearch.results.confirmations import Confirmation, Confirmed
from tlresearch.results.store import Store
from tlresearch.results.tables import build_table, to_latex, to_markdown


def record(method: str = "ewc", seed: int = 0, source: str = "a", acc: float = 0.5):
    return {
        "method": method, "setting": "", "seed": seed, "source": source, "status": "finished",
        "reason": None, "checkpoint": "last", "metrics": {"acc": acc}, "arrays": {},
    }  # fmt: skip


def line(old: str, new: str, seeds: Sequence[int] = (0,), **changes: Any) -> Confirmation:
    digests = {str(seed): numbers_digest(record(seed=seed)) for seed in seeds}
    made = Confirmation("ewc", "", "row", digests, tuple(old), new, {"torch": "2"}, "cpu")
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ([], "d"),
        (["ad"], "ad"),
        (["ab"], "d"),
        (["ab", "bd"], "abd"),
        (["bd", "ab"], "abd"),
        (["ab", "bc", "cd"], "abcd"),
        (["ab", "cd"], "cd"),
        (["da"], "d"),
        (["ab", "ba"], "d"),
        (["ab", "ba", "bd"], "abd"),
    ],
)
def test_confirmations_chain_in_one_direction(links: list[str], expected: str):
    """The closure of `is confirmed to`, from the present source `d` backwards."""
    lines = [line(link[0], link[1]) for link in links]
    assert confirmations.accepted(lines, "d") == set(expected)


def test_a_confirmation_is_of_its_row_and_of_the_numbers_compared():
    lines = [line("a", "d")]
    assert confirmations.of_row(lines, "row", {0: record(), 1: record(seed=1, acc=0.1)}) == lines
    assert confirmations.of_row(lines, "row", {}) == lines
    assert confirmations.of_row(lines, "row", {0: record(source="b")}) == lines
    assert confirmations.of_row(lines, "row", {0: record(acc=0.5 + 1e-12)}) == []
    assert confirmations.of_row(lines, "another", {0: record()}) == []


def test_what_was_made_again_is_counted_among_what_older_code_made():
    row = {seed: record(seed=seed) for seed in range(4)} | {4: record(seed=4, source="d")}
    count = confirmations.confirmed
    assert count([line("a", "d", (0, 1, 4))], "d", row) == Confirmed(2, 4, 5, True)
    assert count([line("a", "b", (0,)), line("b", "d", (3,))], "d", row) == Confirmed(
        2, 4, 5, False
    )
    assert count([line("a", "b")], "d", row) is None
    assert count([line("a", "d")], "d", {4: row[4]}) is None
    mixed = row | {3: record(seed=3, source="b")}
    assert count([line("a", "d")], "d", mixed) is None
    assert count([line("ab", "d", (0, 3))], "d", mixed) == Confirmed(2, 4, 5, True)


def test_lines_come_back_and_are_replaced_by_those_that_say_more(tmp_path: Path):
    store, path = Store(tmp_path, "a/b.c"), tmp_path / "records/a/b.c.confirmed.jsonl"
    assert confirmations.read(store) == []
    first, more = line("a", "d"), line("ab", "d", (0, 1))
    other, older = line("a", "d", row="other"), line("a", "b")
    for one in (first, other, older, more):
        assert confirmations.add(store, one) == path
    assert confirmations.read(store) == [other, older, more]
    confirmations.add(store, first)
    assert confirmations.read(store) == [other, older, more, first]
    assert not list(tmp_path.rglob("*.lock")) and not list(tmp_path.rglob("*.tmp"))


def test_a_line_is_held_to_its_digest_and_fields(tmp_path: Path):
    store = Store(tmp_path, "t")
    path = confirmations.add(store, line("a", "d"))
    confirmations.add(store, line("b", "d"))
    whole = path.read_text()
    for bad in (
        whole.replace('"a"', '"b"', 1),
        whole.replace('"cpu"', '"cuda"', 1),
        whole.replace('{"device"', '{"x": 1, "device"', 1),
        "\n" + whole,
    ):
        assert bad != whole
        path.write_text(bad)
        with pytest.raises(UserError, match=r"t\.confirmed\.jsonl, line 1 cannot be used"):
            confirmations.read(store)
        with pytest.raises(UserError):
            confirmations.add(store, line("c", "d"))
        assert path.read_text() == bad
    path.write_text(whole + "{")
    with pytest.raises(UserError, match="line 3 cannot be used: it is not whole JSON"):
        confirmations.read(store)


def test_the_table_says_what_was_made_again():
    """Rows of one kind in one sentence; what is not confirmed up to now is stale."""
    methods = ["one", "two", "chain", "part", "stale", "new"]
    records = [record(m, seed) for m in methods for seed in (0, 1)]
    for one in records:
        new = one["method"] == "new" or (one["method"], one["seed"]) == ("part", 1)
        one["source"] = "d" if new else "a"
    lines = {
        ("one", ""): [line("a", "d")],
        ("two", ""): [line("a", "d")],
        ("chain", ""): [line("a", "b"), line("b", "d", (1,))],
        ("part", ""): [line("a", "d")],
        ("stale", ""): [line("b", "d")],
    }
    current = {(m, ""): "d" for m in methods}
    table = build_table(
        records, methods, [""], ["acc"], current_source=current, confirmations=lines
    )
    assert [c.stale for c in table.cells.values()] == [m == "stale" for m in methods]
    told = [n for n in to_markdown(table).splitlines() if n.startswith("- Confirmed: ")]
    assert told == [
        "- Confirmed: rows one; two were made by older code; 1 of 2 seeds of each made again by "
        "the present code gave the same numbers bit for bit.",
        "- Confirmed: row chain was made by older code; 2 of 2 seeds made again by later code, "
        "which was itself confirmed, gave the same numbers bit for bit.",
        "- Confirmed: 1 of 2 seeds of row part were made by older code; 1 of 1 seeds made again by "
        "the present code gave the same numbers bit for bit.",
    ]
    assert r"\item Confirmed: rows one; two" in to_latex(table)
    assert "Confirmed" not in to_markdown(build_table(records, methods, [""], ["acc"]))
