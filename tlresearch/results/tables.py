"""A table in print: CSV with every number, Markdown and LaTeX to read.

All three are pure functions of the `Table` that `build_table` makes from records. Markdown and
LaTeX share one content: per setting a grid of results and a grid of paired tests, then notes. A
table of swept values has one grid per named setting, with the values as columns, and no tests.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tlresearch.results.confirmations import Confirmed
from tlresearch.results.episodes import EPISODES_NOTE, EpisodeTest, episode_format
from tlresearch.results.formats import (
    METRIC_FORMATS,
    MetricFormat,
    csv_number,
    duration,
    latex,
    markdown,
    metric_format,
    p_text,
)
from tlresearch.results.published import Published, PublishedRow, as_fraction
from tlresearch.results.rows import Cell, Row, Table, build_table, cell_name
from tlresearch.results.statistics import PairedTest
from tlresearch.results.sweeps import best_rows, sections, value_headings
from tlresearch.results.verdicts import Verdict
from tlresearch.variations import short

__all__ = ["METRIC_FORMATS", "Table", "build_table", "to_csv", "to_latex", "to_markdown"]

CSV_COLUMNS = (
    "method,setting,metric,mean,ci95,sem,n,published,published_spread,status,difference,verdict"
)


@dataclass(frozen=True)
class Grid:
    """Cells of text; the columns from `first_number` on are numbers, set to the right."""

    caption: str
    header: list[str]
    lines: list[list[str]]
    first_number: int


def to_csv(table: Table) -> str:
    """One line for each method, setting, metric and published number, with `CSV_COLUMNS`.

    Values are fractions with six significant digits, undefined ones empty; a missing cell has
    n = 0. `published_spread` is what the paper gives, in the sense of its `spread_is`. Where
    something was tuned, `tuning_runs` and `tuning_seconds` are what it took for the row's cell.
    Further columns of text, where some row has them, follow `method`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    tuned = ["tuning_runs", "tuning_seconds"] if table.tuning else []
    method, *numbers = CSV_COLUMNS.split(",")
    texts = table.headings(table.cells)
    writer.writerow([method, *texts, *numbers, *tuned])
    for row in table.rows:
        ours, reference, verdict = row.ours, row.reference, row.verdict
        line = [row.method, *_texts(table, (row.method, row.setting), texts)]
        line += [row.setting, row.metric]
        line += [csv_number(ours.mean), csv_number(ours.ci95), csv_number(ours.sem), str(ours.n)]
        if reference is None or verdict is None:
            line += [""] * 5
        else:
            line += [csv_number(reference.value), csv_number(reference.spread), reference.status]
            line += [csv_number(verdict.difference), verdict.word]
        if table.tuning:
            runs, seconds = table.tuning.costs.get((row.method, row.setting), (0, 0.0))
            line += [str(runs), csv_number(seconds)]
        writer.writerow(line)
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """The table as GitHub's Markdown: grids per setting, paired tests, notes."""
    parts = [f"# {markdown(table.title)}"] if table.title else []
    level = "##" if table.title else "#"
    for section, grids in _sections(table):
        if section:
            parts.append(f"{level} {markdown(section)}")
        for grid in grids:
            parts += [f"{markdown(grid.caption)}:"] if grid.caption else []
            parts.append(_markdown_grid(grid))
    parts.append("\n".join(f"- {markdown(note)}" for note in notes(table)))
    return "\n\n".join(parts) + "\n"


def to_latex(table: Table) -> str:
    r"""The same content for LaTeX with `\usepackage{booktabs}`: table floats, then the notes."""
    parts = []
    for section, grids in _sections(table):
        for grid in grids:
            words = [word for word in (table.title, section, grid.caption) if word]
            parts.append(_latex_grid(grid, ", ".join(words)))
    items = "\n".join(rf"  \item {latex(note)}" for note in notes(table))
    parts.append(f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}")
    return "\n\n".join(parts) + "\n"


def _markdown_grid(grid: Grid) -> str:
    """A pipe table."""
    rule = ["---" if i < grid.first_number else "---:" for i in range(len(grid.header))]
    lines = [[markdown(text) for text in line] for line in (grid.header, *grid.lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def _latex_grid(grid: Grid, caption: str) -> str:
    """A float with a booktabs tabular."""
    columns = "l" * grid.first_number + "r" * (len(grid.header) - grid.first_number)
    header, *lines = (" & ".join(map(latex, line)) + r" \\" for line in (grid.header, *grid.lines))
    above = [r"\begin{table}", r"\centering"]
    above += [rf"\caption{{{latex(caption)}}}"] if caption else []
    above += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header, r"\midrule"]
    return "\n".join([*above, *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _sections(table: Table) -> list[tuple[str, list[Grid]]]:
    """The headings of the table, and what is printed under each."""
    if table.places is None:
        pairs = {s: [(m, s) for m in table.methods if (m, s) in table.cells]
                 for s in table.settings}  # fmt: skip
    else:
        pairs = sections(table.places)
    return [(section, _grids(table, section, own)) for section, own in pairs.items()]


def _grids(table: Table, section: str, pairs: Sequence[tuple[str, str]]) -> list[Grid]:
    """What is printed of one section: results, other published numbers, paired tests."""
    grids = [_results(table, pairs)]
    others = [
        row
        for pair in pairs
        for metric in table.metrics[1:]
        for row in table.of(*pair, metric)
        if row.reference is not None
    ]
    if others:
        grids.append(_other_published(table, others))
    if table.tests.get(section):
        grids.append(_tests(table.tests[section], metric_format(table.metrics[0])))
    if table.episodes.get(section):
        grids.append(_episodes(table.episodes[section], episode_format(table.metrics)))
    return grids


def _results(table: Table, pairs: Sequence[tuple[str, str]]) -> Grid:
    """The main grid of a section: a line for each method (and value) and published number."""
    primary, *others = (metric_format(metric) for metric in table.metrics)
    compared = any(row.reference for pair in pairs for row in table.of(*pair, table.metrics[0]))
    texts, names = table.headings(pairs), value_headings(table, pairs)
    header = ["method", *texts, *names, primary.heading, *(other.heading for other in others), "n"]
    header += ["tuning"] * (table.tuning is not None)
    if compared:
        header += ["published", "status", primary.difference_heading, "verdict"]
    header += [table.best] * bool(names)
    best = best_rows(table) if names else {}
    lines: list[list[str]] = []
    for pair in pairs:
        cell = table.cells[pair]
        first, *more = table.of(*pair, table.metrics[0])
        line = [pair[0] + (" (stale)" if cell.stale else ""), *_texts(table, pair, texts)]
        line += _values(table, pair, names)
        line += [
            _ours(cell, table.of(*pair, metric)[0], metric_format(metric))
            for metric in table.metrics
        ]
        line += [_count(cell, first), *_cost(table, pair)]
        mark = [primary.best if pair in best else ""] if names else []
        lines.append(line + (_beside(table, first, primary) if compared else []) + mark)
        blank = [""] * (len(line) - 1)
        lines += [[pair[0], *blank, *_beside(table, row, primary)] for row in more]
    lines = [line + [""] * (len(header) - len(line)) for line in lines]
    return Grid("", header, lines, 1 + len(texts))


def _texts(table: Table, pair: tuple[str, str], headings: Sequence[str]) -> list[str]:
    """The columns of text of a row, empty where it has none of that heading."""
    texts = table.columns.get(pair, {})
    return [texts.get(heading, "") for heading in headings]


def _values(table: Table, pair: tuple[str, str], names: Sequence[str]) -> list[str]:
    """The swept values of a row, empty where its method is not swept by that name."""
    values = table.places[pair].values if table.places else {}
    return [short(values[name]) if name in values else "" for name in names]


def _cost(table: Table, pair: tuple[str, str]) -> list[str]:
    """The column `tuning`, if there is one: `21 runs, 7.9 s`, or `0`."""
    if table.tuning is None:
        return []
    runs, seconds = table.tuning.costs.get(pair, (0, 0.0))
    return [f"{runs} runs, {duration(seconds)}" if runs else "0"]


def _ours(cell: Cell, row: Row, form: MetricFormat) -> str:
    """Our mean and its interval, or why there is none."""
    if not cell.finished:
        return "failed" if cell.failed and not cell.missing else "missing"
    return form.plus_minus(row.ours.mean, row.ours.ci95)


def _count(cell: Cell, row: Row) -> str:
    """`5`, or `3 of 5` where seeds are missing, failed or have no value."""
    expected = cell.seeds_expected
    return str(row.ours.n) if row.ours.n == expected else f"{row.ours.n} of {expected}"


def _beside(table: Table, row: Row, form: MetricFormat) -> list[str]:
    """The published number, its status, the difference with its interval, the verdict."""
    reference, verdict = row.reference, row.verdict
    if reference is None or verdict is None:
        return ["", "", "", ""]
    published = form.plus_minus(reference.value, reference.spread)
    sources = _sources(table)
    if len(sources) > 1:
        published += f" [{sources[id(reference.block), reference.source] + 1}]"
    word = verdict.word + (" (saturated)" if verdict.word and verdict.saturated else "")
    return [published, reference.status, _difference(verdict, form), word]


def _difference(verdict: Verdict, form: MetricFormat) -> str:
    """`+0.12 [-0.30, +0.54]`."""
    if math.isnan(verdict.difference):
        return ""
    text = form.number(verdict.difference, sign=True)
    if math.isnan(verdict.low):
        return text
    return f"{text} [{form.number(verdict.low, True)}, {form.number(verdict.high, True)}]"


def _other_published(table: Table, rows: Sequence[Row]) -> Grid:
    """The published numbers of metrics other than the primary one."""
    header = ["method", "metric", "ours", "published", "status", "difference", "verdict"]
    lines = []
    for row in rows:
        form = metric_format(row.metric)
        ours = _ours(table.cells[row.method, row.setting], row, form)
        lines.append([row.method, form.heading, ours, *_beside(table, row, form)])
    return Grid("Published numbers of the other metrics", header, lines, 2)


def _tests(tests: Sequence[PairedTest], form: MetricFormat) -> Grid:
    """The paired tests between methods."""
    header = ["first", "second", form.difference_heading, "p", "p (Holm)", "n"]
    lines = []
    for test in tests:
        interval = Verdict(
            "", test.difference, test.difference - test.ci95, test.difference + test.ci95, False
        )
        p = [p_text(test.p), p_text(test.p_holm)]
        difference = _difference(interval, form) or "no shared seed"
        lines.append([test.first, test.second, difference, *p, str(test.n)])
    return Grid(f"Paired t tests of {form.label}, first - second", header, lines, 2)


def _episodes(tests: Sequence[EpisodeTest], form: MetricFormat) -> Grid:
    """The paired tests over episodes."""
    header = ["first", "second", form.difference_heading, "p", "p (Holm)", "episodes"]
    lines = []
    for test in tests:
        low, high = test.difference - test.ci95, test.difference + test.ci95
        difference = _difference(Verdict("", test.difference, low, high, False), form)
        p = [p_text(test.p), p_text(test.p_holm)]
        lines.append([test.first, test.second, difference, *p, str(test.n)])
    return Grid(f"Over episodes, {form.label}, first - second", header, lines, 2)


def _sources(table: Table) -> dict[tuple[int, str], int]:
    """Number, from 0, of each source of a published block, in order."""
    pairs = [
        (id(block), row.source or block.source) for block in table.published for row in block.rows
    ]
    return {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}


def notes(table: Table) -> list[str]:
    """What stands below the table: what ± is, sources, agreement, what is missing or failed."""
    first = "± is the half-width of the 95 % confidence interval over seeds (Student t)"
    if table.checkpoints:
        first += f"; weights: {' and '.join(table.checkpoints)} checkpoint"
    lines = [first + ".", "n: seeds."]
    if any(metric.startswith("forgetting") for metric in table.metrics):
        lines[1] += " Below 0, forgetting means that earlier tasks improved."
    lines += [*table.remarks, *_source_notes(table)]
    if table.published:
        lines.append(agreement(table))
    if table.places:
        lines.append(
            f"{metric_format(table.metrics[0]).best}: of each method's rows in one setting; of "
            "equal means the first; a row with a failed or missing seed has no part in it."
        )
    if table.tuning:
        lines += table.tuning.notes
    if any(table.tests.values()):
        lines.append(
            "Paired t tests over shared seeds; Holm's correction over the pairs of one setting."
        )
    if any(table.episodes.values()):
        lines.append(EPISODES_NOTE)
    for block, row in table.unmatched:
        lines.append(_unmatched_note(block, row))
    for (method, setting), cell in table.cells.items():
        lines += _cell_notes(cell_name(method, setting), cell)
    lines += _undefined_notes(table)
    if any(cell.stale for cell in table.cells.values()):
        lines.append(
            "(stale): made by an older version of the code; see by tlresearch confirm whether its "
            "numbers still come out, or run it again with --rerun stale."
        )
    lines += _confirmed_notes(table)
    if table.left_out:
        lines.append(f"Records without a row in this table: {'; '.join(table.left_out)}.")
    return lines


_SPREADS = {
    "sem": "standard error",
    "sd": "standard deviation",
    "ci95": "half-width of a 95 % interval",
    "none": "not given",
}


def _source_notes(table: Table) -> list[str]:
    """Where the published numbers stand, what their ± is, and what differs."""
    sources = _sources(table)
    blocks = {id(block): block for block in table.published}
    lines = []
    for (block_id, source), number in sources.items():
        block, mark = blocks[block_id], f" [{number + 1}]" if len(sources) > 1 else ""
        spread = _SPREADS[
            block.spread_is if any(r.spread is not None for r in block.rows) else "none"
        ]
        runs = f", {block.runs} runs" if block.runs else ", number of runs unknown"
        form = metric_format(block.metric)
        size = f"{form.scale * block.tolerance:.4g}"
        unit = form.unit if form.unit != "%" else "point" if size == "1" else "points"
        tolerance = f"{size} {unit}".strip()
        text = f"Published{mark}: {source}; its ± is: {spread}{runs}; tolerance {tolerance}."
        lines.append(text + (f" Differs: {block.differs}" if block.differs else ""))
    return lines


def agreement(table: Table) -> str:
    """How many of the cells that can be compared agree; saturated ones are counted apart."""
    verdicts = [row.verdict for row in table.rows if row.verdict is not None]
    plain = Counter(v.word for v in verdicts if v.word and not v.saturated)
    saturated = Counter(v.word for v in verdicts if v.word and v.saturated)
    text = f"Agreement with published numbers: {_tally(plain, 'comparable cells')}"
    if saturated:
        what = "saturated cells (at chance or above 99 %)"
        text += f"; counted apart: {_tally(saturated, what)}"
    silent = sum(not v.word for v in verdicts)
    if silent:
        text += f"; without a verdict (recalled, missing or fewer than two seeds): {silent}"
    return text + "."


def _tally(words: Counter[str], what: str) -> str:
    """`5 of 9 comparable cells agree (2 inconclusive, 2 differs +)`."""
    others = ("inconclusive", "differs +", "differs -")
    rest = ", ".join(f"{words[word]} {word}" for word in others if words[word])
    text = f"{words['agrees']} of {words.total()} {what} agree"
    return text + (f" ({rest})" if rest else "")


def _unmatched_note(block: Published, row: PublishedRow) -> str:
    """A published number that has no row here."""
    form = metric_format(block.metric)
    spread = None if row.spread is None else as_fraction(block, row.spread)
    value = form.plus_minus(as_fraction(block, row.value), spread)
    name = cell_name(row.method, row.setting)
    return f"Published without a row here: {name}, {form.heading} {value} ({row.status})."


def _cell_notes(name: str, cell: Cell) -> list[str]:
    """The failed and missing seeds of a cell, and the warnings of the others."""
    lines = [f"Failed: {name}, seed {seed}: {reason}" for seed, reason in cell.failed]
    lines += [f"Warning: {name}, seed {seed}: {text}." for seed, text in cell.warned]
    if cell.missing:
        word = "seed" if len(cell.missing) == 1 else "seeds"
        lines.append(f"Missing: {name}, {word} {', '.join(map(str, cell.missing))}.")
    elif not cell.finished and not cell.failed:
        lines.append(f"Missing: {name}.")
    return lines


def _confirmed_notes(table: Table) -> list[str]:
    """What was made again of the rows that are not stale although older code made them."""
    kinds: dict[Confirmed, list[str]] = {}
    for pair, cell in table.cells.items():
        if cell.confirmed is not None:
            kinds.setdefault(cell.confirmed, []).append(cell_name(*pair))
    return [_confirmed_note(kind, names) for kind, names in kinds.items()]


def _confirmed_note(kind: Confirmed, names: Sequence[str]) -> str:
    """One sentence for the rows of which as many seeds were made again."""
    many = len(names) > 1
    rows = f"row{'s' * many} {'; '.join(names)}"
    if kind.old == kind.seeds:
        made = f"{rows} {'were' if many else 'was'} made by older code"
    else:
        of = "of each of" if many else "of"
        made = f"{kind.old} of {kind.seeds} seeds {of} {rows} were made by older code"
    by = "the present code" if kind.directly else "later code, which was itself confirmed,"
    again = f"{kind.again} of {kind.old} seeds{' of each' * many} made again by {by}"
    return f"Confirmed: {made}; {again} gave the same numbers bit for bit."


def _undefined_notes(table: Table) -> list[str]:
    """Metrics that some of the finished seeds do not have."""
    lines = {}
    for row in table.rows:
        seeds = len(table.cells[row.method, row.setting].finished)
        if 0 < row.ours.n < seeds:
            name = f"{cell_name(row.method, row.setting)}, {metric_format(row.metric).label}"
            lines[name] = f"Undefined: {name} in {seeds - row.ours.n} of {seeds} seeds."
    return list(lines.values())
