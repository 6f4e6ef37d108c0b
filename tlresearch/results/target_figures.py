"""Figures of what is said of a target: the predicted classes, and pseudo-labels by round.

Pure functions of the records' arrays, with the same care for equal bytes as `results.figures`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlresearch.errors import UserError
from tlresearch.results.figures import LINES, MARKERS, PALETTE, save, style
from tlresearch.results.statistics import summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
"""Settings side by side; more go below."""

Shares = Mapping[str, Mapping[str, Any]]
"""By setting and label: seeds × 2 × classes, shares of the predicted and of the true classes."""

Rounds = Mapping[str, Any]
"""By label: seeds × rounds, fractions; null where a round was not reached."""


def class_figure(shares: Shares, path: Path) -> None:
    """Mean over seeds of the share of the target that each class is predicted for, beside the true.

    Args:
        shares: see `Shares`.
        path: where to write, ends in `.svg`.

    Raises:
        UserError: nothing to draw, a wrong shape, or an unusable path.
    """
    panels = {
        setting: {label: _checked(label, values, 3, path) for label, values in own.items()}
        for setting, own in shares.items()
        if own
    }
    _check_path(path, panels, "shares of predicted classes")
    with style():
        save(_class_panels(panels), path)


def pseudo_label_figure(accuracy: Rounds, kept: Rounds, path: Path) -> None:
    """Accuracy of the kept pseudo-labels, and the fraction that is kept, by round, in percent.

    Mean over seeds with a 95 % band (Student t). A report: no round saw that accuracy.

    Args:
        accuracy: see `Rounds`.
        kept: likewise.
        path: where to write, ends in `.svg`.

    Raises:
        UserError: as `class_figure`.
    """
    pairs = [
        {label: _checked(label, values, 2, path) for label, values in rounds.items()}
        for rounds in (accuracy, kept)
    ]
    _check_path(path, pairs[0] or pairs[1], "pseudo-labels")
    with style():
        save(_round_panels(*pairs), path)


def _check_path(path: Path, arrays: Mapping[str, Any], what: str) -> None:
    if path.suffix != ".svg":
        raise UserError(f"cannot draw {path}: figures are SVG; give a name that ends in .svg.")
    if not arrays:
        raise UserError(f"cannot draw {path}: no finished cell has {what}.")


def _checked(label: str, values: Any, dimensions: int, path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):  # ragged, or not numbers
        array = np.full((), np.nan)
    if array.ndim != dimensions or array.size == 0 or (dimensions == 3 and array.shape[1] != 2):
        expected = "seeds × 2 × classes" if dimensions == 3 else "seeds × rounds"
        raise UserError(
            f"cannot draw {path}: the arrays of {label!r} have the shape {array.shape}, expected "
            f"{expected}."
        )
    return array


def _class_panels(panels: Mapping[str, Mapping[str, np.ndarray]]) -> "Figure":
    """A panel a setting, a group of bars a class, a colour a method; the truth is a black line."""
    from matplotlib.figure import Figure

    columns = min(len(panels), COLUMNS)
    rows = math.ceil(len(panels) / columns)
    classes = max(array.shape[2] for own in panels.values() for array in own.values())
    labels = list(dict.fromkeys(label for own in panels.values() for label in own))
    width = max(2.4, 0.06 * classes * (len(labels) + 2)) * columns + 0.6
    figure = Figure(figsize=(max(width, 4.6), 2.3 * rows + 0.8), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel, (setting, own) in zip(axes.flat, panels.items(), strict=False):
        for label, array in own.items():
            _bars(panel, array, label, labels.index(label), len(labels))
        panel.set_title(setting)
        panel.set_xticks(range(next(iter(own.values())).shape[2]))
        panel.set_xlabel("class")
    for panel in axes.flat[len(panels) :]:
        panel.remove()
    for row in axes:
        row[0].set_ylabel("share of the target (%)")
    entries: dict[str, Any] = {}
    for panel in axes.flat[: len(panels)]:
        handles, names = panel.get_legend_handles_labels()
        entries |= dict(zip(names, handles, strict=True))
    figure.suptitle("Predicted classes, mean over seeds; line: true share", fontsize=9)
    figure.legend(entries.values(), entries.keys(), loc="outside lower center",
                  ncols=min(len(entries), 4), frameon=False)  # fmt: skip
    return figure


def _bars(axes: "Axes", array: np.ndarray, label: str, number: int, methods: int) -> None:
    """One method's bars, each beside those of the other methods in the class's group."""
    predicted, true = 100 * array.mean(axis=0)
    each = 0.8 / methods
    places = np.arange(len(predicted)) + each * (number - (methods - 1) / 2)
    axes.bar(places, predicted, each, color=PALETTE[number % len(PALETTE)], label=label)
    if number == 0:
        groups = np.arange(len(true))
        axes.hlines(true, groups - 0.46, groups + 0.46, color="black", linewidth=1.2)


def _round_panels(accuracy: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray]) -> "Figure":
    """Two panels with one legend below."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    labels = list(dict.fromkeys([*accuracy, *kept]))
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, rounds in ((left, accuracy), (right, kept)):
        for label, array in rounds.items():
            _curve(axes, array, label, labels.index(label))
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", color="#e3e3e3", linewidth=0.7)
        axes.set_axisbelow(True)
    left.set_ylabel("accuracy of kept pseudo-labels (%)")
    right.set_ylabel("kept, of the target pool (%)")
    entries: dict[str, Any] = {}
    for axes in (left, right):
        handles, names = axes.get_legend_handles_labels()
        entries |= dict(zip(names, handles, strict=True))
    figure.suptitle("Mean over seeds; band: 95 % interval of the mean", fontsize=9)
    figure.legend(entries.values(), entries.keys(), loc="outside lower center",
                  ncols=min(len(entries), 4), frameon=False)  # fmt: skip
    return figure


def _curve(axes: "Axes", values: np.ndarray, label: str, number: int) -> None:
    """Mean over the seeds that reached a round, and its 95 % interval as a band."""
    sums = [summarise(column[np.isfinite(column)]) for column in values.T]
    mean, half = 100 * np.array([s.mean for s in sums]), 100 * np.array([s.ci95 for s in sums])
    rounds = np.arange(1, len(mean) + 1)
    turn, place = divmod(number, len(PALETTE))
    colour = PALETTE[place]
    axes.plot(rounds, mean, color=colour, marker=MARKERS[(number + 3 * turn) % len(MARKERS)],
              markersize=4, linestyle=LINES[turn % len(LINES)], linewidth=1.6,
              label=label)  # fmt: skip
    if np.isfinite(half).any():
        low, high = np.clip(mean - half, 0, 100), np.clip(mean + half, 0, 100)
        axes.fill_between(rounds, low, high, color=colour, alpha=0.18, linewidth=0)
