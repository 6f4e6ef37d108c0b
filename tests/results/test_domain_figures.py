"""Figures of domains: what is drawn where, the same bytes twice, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tlresearch.errors import UserError
from tlresearch.results import feature_figures, target_figures
from tlresearch.results.feature_figures import boundary_figure, embedding_figure
from tlresearch.results.figures import style
from tlresearch.results.statistics import summarise
from tlresearch.results.target_figures import class_figure, pseudo_label_figure

POINTS = [[0.0, 1.0, 0, 0], [2.0, 3.0, 0, 1], [4.0, 5.0, 1, 1], [6.0, 7.0, 1, 0]]
GRID = (np.linspace(0, 1, 9).repeat(9).reshape(9, 9).T.tolist(), [-1.0, 7.0, 0.0, 8.0])
SHARES = {"a": {"dann": [[[0.2, 0.8], [0.5, 0.5]], [[0.4, 0.6], [0.5, 0.5]]]}}
ROUNDS = {"self": [[0.5, 0.7], [0.7, None]]}
DRAWINGS: dict[str, Callable[[Path], None]] = {
    "features": lambda path: embedding_figure({"dann": POINTS}, path),
    "boundary": lambda path: boundary_figure({"dann": POINTS}, {"dann": GRID}, path),
    "classes": lambda path: class_figure(SHARES, path),
    "pseudo_labels": lambda path: pseudo_label_figure(ROUNDS, ROUNDS, path),
}


def figure_of(function: Callable[..., Any], *arguments: Any) -> Any:
    with style():
        figure = function(*arguments)
        figure.draw_without_rendering()
    return figure


def at(line: Any) -> list[tuple[float, float]]:
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_features_by_domain_above_and_by_class_below():
    figure = figure_of(feature_figures._panels, {"dann": np.array(POINTS)})
    above, below = figure.axes
    assert above.get_title() == "dann"
    assert [line.get_label() for line in above.lines] == ["source", "target"]
    assert [at(line) for line in above.lines] == [[(0, 1), (2, 3)], [(4, 5), (6, 7)]]
    assert [at(line) for line in below.lines] == [[(0, 1), (6, 7)], [(2, 3), (4, 5)]]


def test_more_methods_go_below():
    figure = figure_of(feature_figures._panels, {str(i): np.array(POINTS) for i in range(6)})
    assert len(figure.axes) == 12
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == list("012345")


def test_the_boundary_lies_where_the_probability_is_one_half():
    """P rises from 0 on the left to 1 on the right of [−1, 7]: the line is at 3."""
    figure = figure_of(feature_figures._boundaries, {"dann": np.array(POINTS)}, {"dann": GRID})
    (axes,) = figure.axes
    line = axes.collections[-1].get_paths()[0].vertices
    np.testing.assert_allclose(line[:, 0], 3.0)
    assert (line[:, 1].min(), line[:, 1].max()) == (0, 8)
    names = [line.get_label() for line in axes.lines]
    assert names == ["target", "source, class 0", "source, class 1"]
    assert [at(line) for line in axes.lines] == [[(4, 5), (6, 7)], [(0, 1)], [(2, 3)]]


def test_a_boundary_that_is_nowhere_is_no_error(tmp_path: Path):
    flat = ([[0.9] * 3] * 3, [0, 1, 0, 1])
    boundary_figure({"dann": POINTS}, {"dann": flat}, tmp_path / "f.svg")


def test_bars_are_mean_shares_and_the_line_is_the_truth():
    arrays = {"a": {"dann": np.array(SHARES["a"]["dann"])}}
    (axes,) = figure_of(target_figures._class_panels, arrays).axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx([30, 70])
    truth = axes.collections[0].get_segments()
    assert [segment[0][1] for segment in truth] == [50, 50]


def test_rounds_that_a_seed_did_not_reach_do_not_count():
    arrays = {"self": np.array(ROUNDS["self"], dtype=float)}
    left, right = figure_of(target_figures._round_panels, arrays, arrays).axes
    assert at(left.lines[0]) == [(1, pytest.approx(60)), (2, pytest.approx(70))]
    band = left.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(min(100, 60 + 100 * summarise([0.5, 0.7]).ci95))
    assert (left.get_xlabel(), right.get_ylabel()) == ("round", "kept, of the target pool (%)")


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_same_arrays_give_the_same_bytes(name: str, tmp_path: Path):
    for file in ("a.svg", "b.svg"):
        DRAWINGS[name](tmp_path / file)
    text = (tmp_path / "a.svg").read_bytes()
    assert text == (tmp_path / "b.svg").read_bytes() and b"<dc:date>" not in text
    assert ElementTree.fromstring(text).tag.endswith("svg")


@pytest.mark.parametrize("name", DRAWINGS)
def test_figures_are_svg(name: str, tmp_path: Path):
    with pytest.raises(UserError, match=r"figures are SVG"):
        DRAWINGS[name](tmp_path / "figure.png")


@pytest.mark.parametrize(
    ("draw", "what"),
    [
        (lambda path: embedding_figure({}, path), "no finished cell has points of features"),
        (lambda path: boundary_figure({}, {}, path), "no finished cell has decision boundary"),
        (lambda path: class_figure({"": {}}, path), "no finished cell has shares"),
        (lambda path: pseudo_label_figure({}, {}, path), "no finished cell has pseudo-labels"),
        (lambda path: embedding_figure({"a": [[1, 2, 3]]}, path), r"shape \(1, 3\)"),
        (lambda path: class_figure({"": {"a": [[0.5, 0.5]]}}, path), r"shape \(1, 2\)"),
        (lambda path: pseudo_label_figure({"a": [[1], [1, 2]]}, {}, path), r"shape \(\)"),
    ],
)
def test_nothing_to_draw_is_one_sentence(draw: Callable[[Path], None], what: str, tmp_path: Path):
    with pytest.raises(UserError, match=what):
        draw(tmp_path / "figure.svg")
