"""Figures of two domains as points: features of each method, and what it decides where.

Pure functions of the arrays `embedding`, `inputs`, `boundary` and `boundary_box` of one seed's
records (see `tlresearch.adaptation.drawn`), with the same care for equal bytes as
`results.figures`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlresearch.errors import UserError
from tlresearch.results.figures import PALETTE, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
"""Methods side by side; more go below."""
CLASSES = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd",
           "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")  # fmt: skip
"""Colours of classes, matplotlib's ten; they come round."""
SOURCE, TARGET = "#333333", PALETTE[3]
"""Colours of the domains, apart from those of the first classes."""

Points = Mapping[str, Any]
"""By label: an array (or nested lists) of shape samples × 4: x, y, domain (0: source), class."""


def embedding_figure(points: Points, path: Path) -> None:
    """Two numbers of each sample's features: a panel a method by domain, one by class below it.

    Each panel has axes of its own: directions and units of features mean nothing.

    Args:
        points: see `Points`.
        path: where to write, ends in `.svg`.

    Raises:
        UserError: no points, a wrong shape, or an unusable path.
    """
    arrays = {label: _checked(label, values, path) for label, values in points.items()}
    _check_path(path, arrays, "points of features")
    with style():
        save(_panels(arrays), path)


def boundary_figure(points: Points, boundaries: Mapping[str, Any], path: Path) -> None:
    """P(class 1) over the plane with its line at ½; source samples + and −, target samples dots.

    As Fig. 2 of Ganin et al., JMLR 2016.

    Args:
        points: inputs, see `Points`.
        boundaries: by the same labels the pair (probabilities rows × columns from bottom to top,
            [left, right, bottom, top]).
        path: where to write, ends in `.svg`.

    Raises:
        UserError: as `embedding_figure`.
    """
    arrays = {label: _checked(label, values, path) for label, values in points.items()}
    _check_path(path, arrays, "decision boundary")
    with style():
        save(_boundaries(arrays, boundaries), path)


def _check_path(path: Path, arrays: Mapping[str, np.ndarray], what: str) -> None:
    if path.suffix != ".svg":
        raise UserError(f"cannot draw {path}: figures are SVG; give a name that ends in .svg.")
    if not arrays:
        raise UserError(f"cannot draw {path}: no finished cell has {what}.")


def _checked(label: str, values: Any, path: Path) -> np.ndarray:
    array: np.ndarray = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 4 or not len(array):
        raise UserError(
            f"cannot draw {path}: the points of {label!r} have the shape {array.shape}, expected "
            "samples × 4."
        )
    return array


def _panels(arrays: Mapping[str, np.ndarray]) -> "Figure":
    """For each row of methods two rows of panels, and legends to the right."""
    from matplotlib.figure import Figure

    columns = min(len(arrays), COLUMNS)
    rows = math.ceil(len(arrays) / columns)
    figure = Figure(figsize=(2.1 * columns + 1.2, 4.1 * rows + 0.3), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False)
    for panel in axes.flat:
        _bare(panel)
    for place, (label, array) in enumerate(arrays.items()):
        row, column = divmod(place, columns)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        above.set_title(label)
        for domain, (name, colour) in enumerate((("source", SOURCE), ("target", TARGET))):
            _dots(above, array[array[:, 2] == domain], colour, name)
        for number in np.unique(array[:, 3]).astype(int):
            colour = CLASSES[number % len(CLASSES)]
            _dots(below, array[array[:, 3] == number], colour, f"class {number}")
    for panel in axes.reshape(rows, 2, columns).swapaxes(1, 2).reshape(-1, 2)[len(arrays) :]:
        for axis in panel:
            axis.remove()
    for row in range(2):
        axes[row, 0].set_ylabel(("by domain", "by class")[row])
    entries: dict[str, Any] = {}
    for panel in axes.flat[: 2 * columns]:
        handles, labels = panel.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.suptitle("Features of both domains, one seed", fontsize=9)
    figure.legend(entries.values(), entries.keys(), loc="outside right upper", frameon=False)
    return figure


def _boundaries(arrays: Mapping[str, np.ndarray], grids: Mapping[str, Any]) -> "Figure":
    """A panel a method."""
    from matplotlib.figure import Figure

    columns = min(len(arrays), COLUMNS)
    rows = math.ceil(len(arrays) / columns)
    figure = Figure(figsize=(2.6 * columns + 0.2, 2.2 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel, (label, array) in zip(axes.flat, arrays.items(), strict=False):
        likely, (left, right, bottom, top) = np.asarray(grids[label][0]), grids[label][1]
        across = np.linspace(left, right, likely.shape[1])
        up = np.linspace(bottom, top, likely.shape[0])
        panel.contourf(across, up, likely, levels=[-0.01, 0.5, 1.01], colors=["#d6e6f2", "#f9e0cf"])
        if likely.min() < 0.5 < likely.max():
            panel.contour(across, up, likely, levels=[0.5], colors="black", linewidths=1.2)
        target = array[array[:, 2] == 1]
        _dots(panel, target, "black", "target", 2.2)
        for number, marker, colour in ((0, "_", PALETTE[0]), (1, "+", PALETTE[1])):
            own = array[(array[:, 2] == 0) & (array[:, 3] == number)]
            panel.plot(own[:, 0], own[:, 1], marker, color=colour, markersize=4.5,
                       markeredgewidth=0.9, label=f"source, class {number}")  # fmt: skip
        panel.set_title(label)
        panel.set_aspect("equal")
        _bare(panel)
    for panel in axes.flat[len(arrays) :]:
        panel.remove()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.suptitle("What is decided where; line: P = 1/2; one seed", fontsize=9)
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _bare(axes: "Axes") -> None:
    """Without numbers, which would mean nothing."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#bbbbbb")


def _dots(axes: "Axes", points: np.ndarray, colour: str, label: str, size: float = 2.6) -> None:
    """Dots without a rim."""
    axes.plot(points[:, 0], points[:, 1], "o", color=colour, markersize=size, markeredgewidth=0,
              label=label)  # fmt: skip
