"""Figures of continual learning from accuracy matrices, as SVG.

R[i, j] is the test accuracy on task j after training on task i; row 0 of a matrix is at
initialisation (Lopez-Paz and Ranzato, "Gradient episodic memory", NeurIPS 2017).

The same matrices give the same bytes: no date, a fixed salt for the identifiers, matplotlib's
own style whatever the user's is, text as outlines so that it needs no font of the reader.
"""

import contextlib
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlresearch.errors import UserError
from tlresearch.files import write_text_atomic
from tlresearch.results.statistics import summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Colours that colour-blind readers tell apart: Okabe and Ito (2008), without their yellow."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":", "-.")

STYLE: dict[str, Any] = {
    "svg.hashsalt": "tlresearch",
    "svg.fonttype": "path",
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
}

Matrices = Mapping[str, Any]
"""By label: an array (or nested lists, null for undefined) of shape seeds × (tasks + 1) × tasks."""


def accuracy_matrix_figure(matrices: Matrices, path: Path, *, start: bool = True) -> None:
    """Mean over seeds of R[i, j] as a heat map, one panel a method, numbers in percent.

    A line divides what is learned already (below it) from tasks still to come.

    Args:
        matrices: see `Matrices`; accuracy in [0, 1]. An entry that is undefined for some seed
            is left grey.
        path: where to write, ends in `.svg`.
        start: whether to show row 0, at initialisation.

    Raises:
        UserError: no matrix, a wrong shape, values outside [0, 1], or an unusable path.
    """
    arrays = _checked(matrices, path)
    with style():
        save(_matrix_panels(arrays, start), path)


def forgetting_curve_figure(matrices: Matrices, path: Path) -> None:
    """Accuracy as tasks are learned, mean over seeds with a 95 % band (Student t).

    Left: meanⱼ≤ᵢ R[i, j], the tasks seen so far, against i. Right: R[i, 1], the first task.

    Args:
        matrices: see `Matrices`; accuracy in [0, 1]. All of the same number of tasks.
        path: where to write, ends in `.svg`.

    Raises:
        UserError: as `accuracy_matrix_figure`.
    """
    arrays = _checked(matrices, path)
    with style():
        save(_curve_panels(arrays), path)


def seen_accuracy(matrices: np.ndarray) -> np.ndarray:
    """meanⱼ≤ᵢ R[i, j] for i = 1 … T.

    Args:
        matrices: seeds × (T + 1) × T.

    Returns:
        seeds × T.
    """
    tasks = matrices.shape[-1]
    return np.stack([matrices[:, i + 1, : i + 1].mean(axis=1) for i in range(tasks)], axis=1)


def _checked(matrices: Matrices, path: Path) -> dict[str, np.ndarray]:
    """The matrices as float arrays, or a `UserError`."""
    if path.suffix != ".svg":
        raise UserError(f"cannot draw {path}: figures are SVG; give a name that ends in .svg.")
    if not matrices:
        raise UserError(f"cannot draw {path}: no finished cell has an accuracy matrix.")
    arrays = {}
    for label, values in matrices.items():
        try:
            array: np.ndarray = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):  # ragged, or not numbers
            array = np.full((), np.nan)
        if array.ndim != 3 or array.size == 0 or array.shape[1] != array.shape[2] + 1:
            raise UserError(
                f"cannot draw {path}: the matrices of {label!r} have the shape {array.shape}, "
                "expected seeds × (tasks + 1) × tasks."
            )
        if np.any(array < 0) or np.any(array > 1):
            raise UserError(
                f"cannot draw {path}: {label!r} has values outside [0, 1]; accuracy is a fraction."
            )
        arrays[label] = array
    return arrays


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Matplotlib's default style with ours on top, whatever the user has set."""
    import matplotlib.style

    with matplotlib.style.context(["default", STYLE]):
        yield


def save(figure: "Figure", path: Path) -> None:
    """Writes the figure as SVG, whole or not at all."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": "tlresearch"})
    write_text_atomic(path, text.getvalue())


def _matrix_panels(arrays: Mapping[str, np.ndarray], start: bool) -> "Figure":
    """A grid of heat maps with one colour bar."""
    from matplotlib.figure import Figure

    tasks = max(array.shape[2] for array in arrays.values())
    columns = min(len(arrays), 4 if tasks <= 6 else 3 if tasks <= 12 else 2)
    rows = math.ceil(len(arrays) / columns)
    cell = 0.44 if tasks <= 6 else 0.36
    width = columns * (tasks * cell + 0.45) + 1.3
    height = rows * ((tasks + start) * cell + 0.45) + 0.75
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle("Test accuracy, mean over seeds", fontsize=10.5)
    axes = figure.subplots(rows, columns, squeeze=False)
    image = None
    used, unused = axes.flat[: len(arrays)], axes.flat[len(arrays) :]
    for place, (label, array) in zip(used, arrays.items(), strict=True):
        image = _heat_map(place, array.mean(axis=0), start)
        seeds = "1 seed" if len(array) == 1 else f"{len(array)} seeds"
        place.set_title(f"{label} ({seeds})", fontsize=9.5)
    for place in unused:
        place.remove()
    figure.supxlabel("evaluated on task", fontsize=9)
    figure.supylabel("after training on task", fontsize=9)
    assert image is not None  # there is at least one matrix
    shrink = min(1.0, 2.6 / height + 0.2)
    bar = figure.colorbar(image, ax=list(used), shrink=shrink, pad=0.02)
    bar.set_label("accuracy (%)")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def _heat_map(axes: "Axes", mean: np.ndarray, start: bool) -> Any:
    """One panel; the numbers are dark on light cells and light on dark ones."""
    from matplotlib import colormaps

    shown = 100 * (mean if start else mean[1:])
    tasks = mean.shape[1]
    colours = colormaps["viridis"].with_extremes(bad="#d9d9d9")
    image = axes.imshow(np.ma.masked_invalid(shown), cmap=colours, vmin=0, vmax=100)
    size = 7.5 if tasks <= 6 else 6.5
    for (i, j), value in np.ndenumerate(shown):
        text = "–" if math.isnan(value) else f"{value:.1f}" if tasks <= 6 else f"{value:.0f}"
        ink = "black" if math.isnan(value) or value > 43 else "white"
        axes.text(j, i, text, ha="center", va="center", fontsize=size, color=ink)
    edges = np.arange(tasks + 1) - 0.5  # task j is learned from row j + start on
    axes.step(edges, np.minimum(edges, tasks - 1.5) + start, where="post", color="white", lw=1.6)
    axes.set_xticks(range(tasks), [str(t + 1) for t in range(tasks)])
    names = ["start"] * start + [str(t + 1) for t in range(tasks)]
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def _curve_panels(arrays: Mapping[str, np.ndarray]) -> "Figure":
    """Two panels with one legend below."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(len(arrays), 5)
    height = 3.3 + 0.22 * math.ceil(len(arrays) / columns)
    figure = Figure(figsize=(8.2, height), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for number, (label, array) in enumerate(arrays.items()):
        _band(left, seen_accuracy(array), label, number)
        _band(right, array[:, 1:, 0], label, number)
    figure.suptitle("Mean over seeds; band: 95 % interval of the mean", fontsize=9)
    left.set_title("All tasks seen so far")
    right.set_title("First task, as later ones are learned")
    left.set_ylabel("test accuracy (%)")
    for axes in (left, right):
        axes.set_xlabel("tasks trained")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(0, 102)
        axes.grid(axis="y", color="#e3e3e3", linewidth=0.7)
        axes.set_axisbelow(True)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _band(axes: "Axes", values: np.ndarray, label: str, number: int) -> None:
    """Mean over seeds against 1 … T, and its 95 % interval as a band (none for one seed).

    Args:
        axes: where to draw.
        values: seeds × T, in [0, 1].
        label: name in the legend.
        number: place of the method, which gives its colour, marker and line.
    """
    sums = [summarise(column) for column in values.T]
    mean = 100 * np.array([s.mean for s in sums])
    half = 100 * np.array([s.ci95 for s in sums])
    x = np.arange(1, len(mean) + 1)
    turn, place = divmod(number, len(PALETTE))  # colours come round with other markers
    colour = PALETTE[place]
    axes.plot(x, mean, color=colour, marker=MARKERS[(number + 3 * turn) % len(MARKERS)],
              markersize=4, linestyle=LINES[turn % len(LINES)], linewidth=1.6,
              label=label)  # fmt: skip
    if np.isfinite(half).any():
        low, high = np.clip(mean - half, 0, 100), np.clip(mean + half, 0, 100)
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
