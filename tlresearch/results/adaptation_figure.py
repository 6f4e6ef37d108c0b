"""The figure of adaptation: a metric after 0, 1, 2 … inner steps, a line a method.

A pure function of the curves in the records, with the same care for equal bytes as
`results.figures`. Such a curve is Fig. 3 of Finn et al., arXiv:1703.03400.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlresearch.errors import UserError
from tlresearch.results.figures import LINES, MARKERS, PALETTE, save, style
from tlresearch.results.formats import MetricFormat
from tlresearch.results.statistics import summarise
from tlresearch.variations import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = Mapping[str, Any]
"""By label: an array (or nested lists, null for undefined) of shape seeds × (inner steps + 1)."""


def adaptation_figure(curves: Curves, path: Path, form: MetricFormat) -> None:
    """Mean over seeds after k inner steps against k, with a 95 % band (Student t).

    A method without inner steps is a dotted level. The axis is logarithmic for a plain number
    above 0, such as a squared error, and linear for a percentage.

    Args:
        curves: see `Curves`; in the unit of the records.
        path: where to write, ends in `.svg`.
        form: how the metric is printed.

    Raises:
        UserError: no curve, a wrong shape, or an unusable path.
    """
    arrays = _checked(curves, path)
    with style():
        save(_panel(arrays, form), path)


def _checked(curves: Curves, path: Path) -> dict[str, np.ndarray]:
    """The curves as float arrays, or a `UserError`."""
    if path.suffix != ".svg":
        raise UserError(f"cannot draw {path}: figures are SVG; give a name that ends in .svg.")
    if not curves:
        raise UserError(f"cannot draw {path}: no finished cell has a curve over inner steps.")
    arrays = {}
    for label, values in curves.items():
        try:
            array: np.ndarray = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):  # ragged, or not numbers
            array = np.full((), np.nan)
        if array.ndim != 2 or array.size == 0:
            raise UserError(
                f"cannot draw {path}: the curves of {label!r} have the shape {array.shape}, "
                "expected seeds × (inner steps + 1)."
            )
        arrays[label] = array
    return arrays


def _panel(arrays: Mapping[str, np.ndarray], form: MetricFormat) -> "Figure":
    """One panel with the legend beside it."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    values = np.concatenate([array.ravel() for array in arrays.values()])
    lowest = np.nanmin(values) if np.isfinite(values).any() else 0.0
    if form.unit != "%" and lowest > 0:
        _logarithmic(axes, form.scale * lowest)
    for number, (label, array) in enumerate(arrays.items()):
        _curve(axes, array, label, number, form)
    figure.suptitle("Mean over seeds; band: 95 % interval of the mean", fontsize=9)
    axes.set_xlabel("inner steps")
    axes.set_ylabel(form.heading)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#e3e3e3", linewidth=0.7)
    axes.set_axisbelow(True)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _logarithmic(axes: "Axes", lowest: float) -> None:
    """A log axis from half the lowest value on; a band that reaches 0 leaves it at the bottom."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.set_ylim(bottom=lowest / 2)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(float(f"{value:.3g}"))))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _curve(axes: "Axes", values: np.ndarray, label: str, number: int, form: MetricFormat) -> None:
    """A line with its band (none for one seed), or a dotted level.

    Args:
        axes: where to draw.
        values: seeds × (inner steps + 1).
        label: name in the legend.
        number: place of the method, which gives its colour, marker and line.
        form: of the metric.
    """
    sums = [summarise(column) for column in values.T]
    mean = form.scale * np.array([s.mean for s in sums])
    half = form.scale * np.array([s.ci95 for s in sums])
    turn, place = divmod(number, len(PALETTE))  # colours come round with other markers
    colour = PALETTE[place]
    if len(mean) == 1:
        axes.axhline(mean[0], color=colour, linestyle=":", linewidth=1.4, label=label)
        return
    steps = np.arange(len(mean))
    axes.plot(steps, mean, color=colour, marker=MARKERS[(number + 3 * turn) % len(MARKERS)],
              markersize=4, linestyle=LINES[turn % len(LINES)], linewidth=1.6,
              label=label)  # fmt: skip
    if np.isfinite(half).any():
        low, high = mean - half, mean + half
        if form.unit == "%":
            low, high = np.clip(low, 0, form.scale), np.clip(high, 0, form.scale)
        elif axes.get_yscale() == "log":
            low = np.maximum(low, axes.get_ylim()[0])
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
