"""A table as data: `build_table` is a pure function of records and published numbers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tlresearch.errors import UserError
from tlresearch.results.confirmations import Confirmation, Confirmed, accepted, confirmed
from tlresearch.results.episodes import EpisodeTest, compare_over_episodes
from tlresearch.results.formats import metric_format
from tlresearch.results.published import (
    Published,
    PublishedRow,
    as_fraction,
    chance_of,
    standard_error,
)
from tlresearch.results.statistics import PairedTest, Summary, paired_tests, summarise
from tlresearch.results.verdicts import Verdict, verdict

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Reference:
    """One published number, in the unit of our records."""

    value: float
    spread: float | None
    status: str
    source: str
    block: Published


@dataclass(frozen=True)
class Row:
    """One metric of one method in one setting, beside at most one published number."""

    method: str
    setting: str
    metric: str
    ours: Summary
    reference: Reference | None
    verdict: Verdict | None


@dataclass(frozen=True)
class Cell:
    """What there is of one method in one setting."""

    finished: tuple[int, ...]
    """Seeds with a result."""
    failed: tuple[tuple[int, str], ...]
    """Seeds that failed, and why."""
    missing: tuple[int, ...]
    """Seeds without a record; empty where the seeds to expect are not known."""
    stale: bool
    """Whether some result was made by other code than the current one, and is not confirmed."""
    confirmed: Confirmed | None = None
    """What was made again of a row by older code that is not stale; None of any other."""
    warned: tuple[tuple[int, str], ...] = ()
    """Seeds whose result needs a word, and that word."""

    @property
    def seeds_expected(self) -> int:
        """How many seeds there should be."""
        return len(self.finished) + len(self.failed) + len(self.missing)


@dataclass(frozen=True)
class Place:
    """Where the row of a swept value stands."""

    section: str
    """Name of its setting without the value; empty where there is only one."""
    values: Mapping[str, Any]
    """Swept values by the heading of their column; empty for a method that is not swept."""


@dataclass(frozen=True)
class Tuning:
    """What choosing the settings of a table's rows took."""

    costs: Mapping[tuple[str, str], tuple[int, float]]
    """Number of runs and their seconds, by method and setting; a pair without is not tuned."""
    notes: tuple[str, ...]
    """What was chosen, and how, in words."""


@dataclass(frozen=True)
class Table:
    """Everything a printed table says."""

    title: str
    methods: tuple[str, ...]
    settings: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    """By setting, method, metric and published number, in the given orders."""
    cells: Mapping[tuple[str, str], Cell]
    """By method and setting; the pairs that the table is to have."""
    tests: Mapping[str, list[PairedTest]]
    """By setting: all pairs of methods with results, on the primary metric."""
    published: tuple[Published, ...]
    unmatched: tuple[tuple[Published, PublishedRow], ...]
    """Published numbers without a row in this table."""
    left_out: tuple[str, ...]
    """Methods and settings of records that have no row in this table."""
    checkpoints: tuple[str, ...]
    """`last`, `selected`, or both."""
    places: Mapping[tuple[str, str], Place] | None = None
    """By method and setting, of a table of swept values; None for any other."""
    tuning: Tuning | None = None
    """None where nothing was tuned."""
    columns: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    """By method and setting: further columns of text by their heading, e.g. how it was trained."""
    episodes: Mapping[str, list[EpisodeTest]] = field(default_factory=dict)
    """By setting: all pairs of methods that were measured on the same episodes."""
    best: str = "best"
    """Heading of the column that marks the best value of a sweep."""
    remarks: tuple[str, ...] = ()
    """What its family has to say of its rows."""

    def headings(self, pairs: Iterable[tuple[str, str]]) -> list[str]:
        """The columns of text that any of these rows has, in order of appearance."""
        return list(dict.fromkeys(name for pair in pairs for name in self.columns.get(pair, ())))

    def of(self, method: str, setting: str, metric: str) -> list[Row]:
        """The rows of one metric of one cell: one, or one for each published number."""
        wanted = (method, setting, metric)
        return [row for row in self.rows if (row.method, row.setting, row.metric) == wanted]


def build_table(
    records: Iterable[Record],
    methods: Sequence[str],
    settings: Sequence[str],
    metrics: Sequence[str],
    published: Sequence[Published] = (),
    current_source: Mapping[tuple[str, str], str] | None = None,
    *,
    seeds: Sequence[int] | None = None,
    cells: Iterable[tuple[str, str]] | None = None,
    title: str = "",
    places: Mapping[tuple[str, str], Place] | None = None,
    tuning: Tuning | None = None,
    columns: Mapping[tuple[str, str], Mapping[str, str]] | None = None,
    confirmations: Mapping[tuple[str, str], Sequence[Confirmation]] | None = None,
    best: str = "best",
    remarks: Sequence[str] = (),
) -> Table:
    """Means over seeds, the published numbers beside them, verdicts and paired tests.

    Args:
        records: at most one for each method, setting and seed. An undefined metric (null) does
            not count; the n of that metric is then smaller.
        methods: labels of the rows, in order.
        settings: one table each, in order; `[""]` where there is only one.
        metrics: names; the first is the primary one, which is tested.
        published: their rows are found by method and setting.
        current_source: hash of the source files in use now, by method and setting; a cell with a
            record made by others is stale, unless it is confirmed. None marks nothing.
        seeds: the seeds that each cell should have; None: those that it has.
        cells: the (method, setting) pairs to expect; None: all of them. A pair that is
            expected and has no record is in the table, as missing.
        title: heading.
        places: of every pair, for a table of swept values, which has no paired tests: it would
            compare methods at values that are not each other's.
        tuning: what choosing the settings took.
        columns: by method and setting, texts by the heading of their column.
        confirmations: that hold, by method and setting.
        best: heading of the column that marks the best value of a sweep.
        remarks: what its family has to say of its rows.

    Raises:
        ValueError: two records of the same cell, or no metric.
        UserError: a published accuracy is above 1, so its unit is wrong.
    """
    if not metrics:
        raise ValueError("a table needs at least one metric")
    for block in published:
        check_unit(block)
    expected = {(m, s) for m in methods for s in settings} if cells is None else set(cells)
    by_cell, left_out = _group(records, expected)
    order = [(m, s) for s in settings for m in methods if (m, s) in expected]
    known = {
        pair: _cell(
            by_cell.get(pair, {}),
            seeds,
            (current_source or {}).get(pair),
            (confirmations or {}).get(pair, ()),
        )
        for pair in order
    }
    finished = {pair: _finished(by_cell.get(pair, {})) for pair in order}
    rows = [row for pair in order for metric in metrics
            for row in _rows(pair, metric, finished[pair], published)]  # fmt: skip
    tested = [] if places else methods
    return Table(
        title=title, methods=tuple(methods), settings=tuple(settings), metrics=tuple(metrics),
        rows=tuple(rows), cells=known,
        tests={s: _tests(s, tested, finished, metrics[0]) for s in settings},
        published=tuple(published), unmatched=_unmatched(published, known, metrics),
        left_out=left_out, checkpoints=_checkpoints(finished), places=places, tuning=tuning,
        columns=columns or {}, best=best, remarks=tuple(remarks),
        episodes={s: compare_over_episodes({m: finished.get((m, s), {}) for m in tested})
                  for s in settings},
    )  # fmt: skip


def _unmatched(
    published: Sequence[Published], known: Mapping[tuple[str, str], Cell], metrics: Sequence[str]
) -> tuple[tuple[Published, PublishedRow], ...]:
    """The published numbers that no row of the table stands beside."""
    return tuple(
        (block, row)
        for block in published
        for row in block.rows
        if (row.method, row.setting) not in known or block.metric not in metrics
    )


def _checkpoints(finished: Mapping[tuple[str, str], Mapping[int, Record]]) -> tuple[str, ...]:
    """Which weights the finished runs were measured with."""
    return tuple(sorted({r["checkpoint"] for cell in finished.values() for r in cell.values()}))


def check_unit(block: Published) -> None:
    """Refuses accuracies that were given in percent and called fractions."""
    if metric_format(block.metric).unit != "%":
        return
    for row in block.rows:
        if abs(as_fraction(block, row.value)) > 1:
            raise UserError(
                f"published ({block.source}, {block.metric}): row {row.method!r} has the value "
                f"{row.value} in the unit `{block.unit}`, expected at most 1; "
                "write `unit: percent` if it is one."
            )


def _group(
    records: Iterable[Record], expected: set[tuple[str, str]]
) -> tuple[dict[tuple[str, str], dict[int, Record]], tuple[str, ...]]:
    """Records by cell and seed, and the names of the cells that the table does not have."""
    by_cell: dict[tuple[str, str], dict[int, Record]] = {}
    left_out: set[str] = set()
    for record in records:
        pair, seed = (record["method"], record["setting"]), record["seed"]
        if pair not in expected:
            left_out.add(cell_name(*pair))
            continue
        if seed in by_cell.setdefault(pair, {}):
            raise ValueError(
                f"two records of {cell_name(*pair)}, seed {seed}; give those of one plan"
            )
        by_cell[pair][seed] = record
    return by_cell, tuple(sorted(left_out))


def cell_name(method: str, setting: str) -> str:
    """`ewc` or `ewc, task`."""
    return f"{method}, {setting}" if setting else method


def _finished(cell: Mapping[int, Record]) -> dict[int, Record]:
    """The finished records of a cell, by seed in order."""
    return {seed: cell[seed] for seed in sorted(cell) if cell[seed]["status"] == "finished"}


def _cell(
    cell: Mapping[int, Record],
    seeds: Sequence[int] | None,
    current: str | None,
    confirmations: Sequence[Confirmation],
) -> Cell:
    """What there is of a cell."""
    finished = _finished(cell)
    sources = {record["source"] for record in finished.values()}
    return Cell(
        finished=tuple(finished),
        failed=tuple(
            (seed, cell[seed]["reason"] or "no reason recorded")
            for seed in sorted(cell)
            if seed not in finished
        ),
        missing=tuple(seed for seed in seeds or () if seed not in cell),
        stale=current is not None and not sources <= accepted(confirmations, current),
        confirmed=None if current is None else confirmed(confirmations, current, finished),
        warned=tuple(
            (seed, r["details"]["warning"])
            for seed, r in finished.items()
            if "warning" in r.get("details", {})
        ),
    )


def _values(finished: Mapping[int, Record], metric: str) -> dict[int, float]:
    """The defined values of a metric, by seed."""
    values = {seed: record["metrics"].get(metric) for seed, record in finished.items()}
    return {seed: v for seed, v in values.items() if v is not None and not math.isnan(v)}


def _rows(
    pair: tuple[str, str],
    metric: str,
    finished: Mapping[int, Record],
    published: Sequence[Published],
) -> list[Row]:
    """The rows of one metric of one cell."""
    ours = summarise(_values(finished, metric).values())
    references = [
        (block, row)
        for block in published
        for row in block.rows
        if block.metric == metric and (row.method, row.setting) == pair
    ]
    if not references:
        return [Row(*pair, metric, ours, None, None)]
    return [
        Row(*pair, metric, ours, _reference(block, row), compare(ours, block, row))
        for block, row in references
    ]


def _reference(block: Published, row: PublishedRow) -> Reference:
    """A published number in the unit of our records."""
    spread = None if row.spread is None else as_fraction(block, row.spread)
    return Reference(
        as_fraction(block, row.value), spread, row.status, row.source or block.source, block
    )


def compare(ours: Summary, block: Published, row: PublishedRow) -> Verdict:
    """The verdict on one of our means against one published row."""
    return verdict(
        ours,
        as_fraction(block, row.value),
        standard_error(block, row),
        block.runs,
        tolerance=block.tolerance,
        status=row.status,
        chance=chance_of(block, row),
        ceiling=metric_format(block.metric).ceiling,
    )


def _tests(
    setting: str,
    methods: Sequence[str],
    finished: Mapping[tuple[str, str], Mapping[int, Record]],
    metric: str,
) -> list[PairedTest]:
    """All pairs of the setting's methods that have results, on one metric."""
    values = {m: _values(finished.get((m, setting), {}), metric) for m in methods}
    return paired_tests({m: v for m, v in values.items() if v})
