"""The figure of a swept number: a metric against its values, a panel for each setting.

A pure function of the table, with the same care for equal bytes as `results.figures`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlresearch.errors import UserError
from tlresearch.results.figures import LINES, MARKERS, PALETTE, save, style
from tlresearch.results.formats import MetricFormat, metric_format
from tlresearch.results.rows import Table
from tlresearch.results.statistics import Summary
from tlresearch.results.sweeps import Pair, best_rows, sections
from tlresearch.variations import is_number, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOGARITHMIC = 20.0
"""Positive values whose largest is more than so many times the smallest have a log axis."""


def swept_number(table: Table) -> str | None:
    """The heading of the one swept number that all swept rows of a table share, or None.

    None too where no row has a result yet, or no method has two values in one section.
    """
    places = table.places or {}
    swept = [place for place in places.values() if place.values]
    headings = {tuple(place.values) for place in swept}
    numbers = all(is_number(value) for place in swept for value in place.values.values())
    if len(headings) != 1 or len(*headings) != 1 or not numbers:
        return None
    if not any(summary.n for summary in map(lambda pair: _ours(table, pair), places)):
        return None
    ((name,),) = headings
    several = any(
        len([1 for method, s in pairs if method == one and places[method, s].values]) > 1
        for pairs in sections(places).values()
        for one, _ in pairs
    )
    return name if several else None


def sweep_figure(table: Table, path: Path, axis: str | None = None) -> None:
    """Mean of the first metric against the swept number, a line and a 95 % band for each method.

    A ring marks each method's best mean (`sweeps.best_rows`). A method that is not swept is a
    dotted level, with a marker where it has a place on the axis. The axis is logarithmic for
    positive values over a factor of `LOGARITHMIC`.

    Args:
        table: one with a `swept_number`.
        path: where to write, ends in `.svg`.
        axis: a metric of the table, whose means take the place of the swept number.

    Raises:
        UserError: another suffix, or a table without a swept number or without results.
    """
    if path.suffix != ".svg":
        raise UserError(f"cannot draw {path}: figures are SVG; give a name that ends in .svg.")
    name = swept_number(table)
    if name is None:
        raise UserError(
            f"cannot draw {path}: the table has no results over several values of one number."
        )
    with style():
        save(_panels(table, name, axis), path)


def _panels(table: Table, name: str, axis: str | None = None) -> "Figure":
    """One panel for each section, with one legend below."""
    from matplotlib.figure import Figure

    places = table.places or {}
    parts = sections(places)
    form = metric_format(table.metrics[0])
    columns = min(len(parts), 3)
    rows = math.ceil(len(parts) / columns)
    figure = Figure(figsize=(max(3.0 * columns, 4.6) + 0.6, 2.7 * rows + 0.7), layout="constrained")
    figure.suptitle(f"Mean over seeds; band: 95 % interval; ring: {form.best}", fontsize=9)
    axes = figure.subplots(rows, columns, squeeze=False)
    where = _where(table, name, axis)
    least, most = min(where.values(), default=0.0), max(where.values(), default=0.0)
    logarithmic = least > 0 and most > LOGARITHMIC * least
    for panel, (section, pairs) in zip(axes.flat, parts.items(), strict=False):
        if logarithmic:
            _logarithmic(panel)
        for number, method in enumerate(table.methods):
            own = [pair for pair in pairs if pair[0] == method]
            _curve(panel, table, own, where, number)
        panel.set_title(section)
        panel.set_xlabel(metric_format(axis).heading if axis else name)
        panel.grid(axis="y", color="#e3e3e3", linewidth=0.7)
        panel.set_axisbelow(True)
    for panel in axes.flat[len(parts) :]:
        panel.remove()
    for row in axes:
        row[0].set_ylabel(form.heading)
    entries = {
        label: handle
        for panel in axes.flat[: len(parts)]
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries.keys(), loc="outside lower center",
                  ncols=min(len(entries), 5), frameon=False)  # fmt: skip
    return figure


def _where(table: Table, name: str, axis: str | None) -> dict[Pair, float]:
    """The place of each row on the horizontal axis, if it has one."""
    places = table.places or {}
    if axis is None:
        return {pair: place.values[name] for pair, place in places.items() if place.values}
    form, ours = metric_format(axis), {p: table.of(*p, axis)[0].ours for p in places}
    return {pair: form.scale * summary.mean for pair, summary in ours.items() if summary.n}


def _logarithmic(axes: "Axes") -> None:
    """A log axis; its numbers are plain text, as the style reads no mathematics."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _curve(
    axes: "Axes", table: Table, pairs: Sequence[Pair], where: Mapping[Pair, float], number: int
) -> None:
    """One method in one section: a line with its band and ring, or a level."""
    form = metric_format(table.metrics[0])
    places = table.places or {}
    turn, place = divmod(number, len(PALETTE))
    colour, line = PALETTE[place], LINES[turn % len(LINES)]
    marker = MARKERS[(number + 3 * turn) % len(MARKERS)]
    swept = sorted((where[pair], pair) for pair in pairs if places[pair].values and pair in where)
    for pair in pairs:
        if not places[pair].values and _ours(table, pair).n:
            level = form.scale * _ours(table, pair).mean
            axes.axhline(level, color=colour, linestyle=":", linewidth=1.4, label=pair[0])
            if pair in where:
                axes.plot(where[pair], level, color=colour, marker=marker, markersize=4)
    points = [(value, pair) for value, pair in swept if _ours(table, pair).n]
    if not points:
        return
    x = np.array([value for value, _ in points], dtype=float)
    mean = np.array([form.scale * _ours(table, pair).mean for _, pair in points])
    half = np.array([form.scale * _ours(table, pair).ci95 for _, pair in points])
    axes.plot(x, mean, color=colour, marker=marker, markersize=4, linestyle=line, linewidth=1.6,
              label=points[0][1][0])  # fmt: skip
    if np.isfinite(half).any():
        low, high = _clipped(mean - half, mean + half, form)
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    best = best_rows(table)
    ringed = [i for i, (_, pair) in enumerate(points) if pair in best]
    axes.plot(x[ringed], mean[ringed], linestyle="none", marker="o", markersize=10,
              markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1.3)  # fmt: skip


def _clipped(
    low: np.ndarray, high: np.ndarray, form: MetricFormat
) -> tuple[np.ndarray, np.ndarray]:
    """A band within what the metric can be: an accuracy lies between 0 and 100 %."""
    if form.ceiling is None:
        return low, high
    return np.clip(low, 0, form.scale), np.clip(high, 0, form.scale)


def _ours(table: Table, pair: Pair) -> Summary:
    """The first metric of a row."""
    return table.of(*pair, table.metrics[0])[0].ours
