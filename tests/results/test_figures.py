"""Figures: the same bytes twice, the numbers that they show, valid XML, what is refused."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tlresearch.errors import UserError
from tlresearch.results import figures
from tlresearch.results.figures import (
    accuracy_matrix_figure,
    forgetting_curve_figure,
    seen_accuracy,
)
from tlresearch.results.statistics import summarise

TWO_TASKS = [
    [[0.5, 0.5], [1.0, 0.5], [0.6, 0.9]],
    [[0.5, None], [0.9, 0.6], [0.8, 0.7]],
]
"""Two seeds; the second has no value for task 2 at the start."""

DRAW = [accuracy_matrix_figure, forgetting_curve_figure]


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_seen_accuracy_by_hand():
    """After task 1: task 1 alone. After task 2: the mean of both."""
    matrix = np.array(TWO_TASKS, dtype=float)
    np.testing.assert_allclose(seen_accuracy(matrix), [[1.0, 0.75], [0.9, 0.75]])


def test_seen_accuracy_is_a_plain_loop():
    matrix = np.random.default_rng(0).random((3, 6, 5))
    slow = [[np.mean(seed[i][:i]) for i in range(1, 6)] for seed in matrix]
    np.testing.assert_allclose(seen_accuracy(matrix), slow)


@pytest.mark.parametrize("draw", DRAW)
def test_the_same_matrices_give_the_same_bytes(tmp_path, draw):
    import matplotlib

    one, other = tmp_path / "one.svg", tmp_path / "other.svg"
    draw({"ewc": TWO_TASKS, "si": TWO_TASKS}, one)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.hashsalt": "x"}):
        draw({"ewc": TWO_TASKS, "si": TWO_TASKS}, other)
    assert one.read_bytes() == other.read_bytes()
    assert b"<dc:date>" not in one.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.svg", "other.svg"]


@pytest.mark.parametrize("draw", DRAW)
def test_any_label_gives_valid_xml(tmp_path, draw):
    path = tmp_path / "figure.svg"
    draw({"<b>&amp; $x_1$ --> 'λ'": TWO_TASKS, r"$\frac$": TWO_TASKS}, path)
    assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_the_heat_map_shows_the_means(tmp_path):
    """(1.0 + 0.9)/2 = 95.0 %; where a seed has no value, a dash."""
    array = np.array(TWO_TASKS, dtype=float)
    with figures.style():
        figure = figures._matrix_panels({"ewc": array}, start=True)
        without = figures._matrix_panels({"ewc": array}, start=False)
    panel = figure.axes[0]
    assert texts(panel) == ["50.0", "–", "95.0", "55.0", "70.0", "80.0"]
    assert panel.get_title() == "ewc (2 seeds)"
    assert [t.get_text() for t in panel.get_yticklabels()] == ["start", "1", "2"]
    assert texts(without.axes[0]) == ["95.0", "55.0", "70.0", "80.0"]


@pytest.mark.parametrize("start", [True, False])
def test_the_line_divides_learned_tasks_from_later_ones(start):
    """Above column j (task j + 1) the line is at the upper edge of the row `after task j + 1`."""
    with figures.style():
        figure = figures._matrix_panels({"ewc": np.full((1, 4, 3), 0.5)}, start)
    (line,) = figure.axes[0].lines
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    x, y = map(np.asarray, line.get_data())
    for task in range(3):
        level = y[np.searchsorted(x, task, side="right") - 1]
        assert level == rows.index(str(task + 1)) - 0.5


def test_the_curves_and_their_band():
    array = np.array(TWO_TASKS, dtype=float)
    with figures.style():
        figure = figures._curve_panels({"ewc": array, "si": array[:1]})
    left, right = figure.axes
    np.testing.assert_allclose(np.asarray(left.lines[0].get_ydata()), [95, 75])
    np.testing.assert_allclose(np.asarray(right.lines[0].get_ydata()), [95, 70])
    assert len(right.collections) == 1  # one seed has no band
    vertices = right.collections[0].get_paths()[0].vertices
    low = 100 * (0.7 - summarise([0.6, 0.8]).ci95)  # below 0: clipped
    assert low < 0 and np.asarray(vertices)[:, 1].min() == 0
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["ewc", "si"]


def test_many_methods_are_told_apart():
    array = np.full((2, 3, 2), 0.5)
    with figures.style():
        figure = figures._curve_panels({f"m{i}": array for i in range(20)})
    looks = {(x.get_color(), x.get_marker(), x.get_linestyle()) for x in figure.axes[0].lines}
    assert len(looks) == 20


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize(
    ("matrices", "words"),
    [
        ({}, "no finished cell"),
        ({"ewc": [[0.5, 0.5], [0.5, 0.5]]}, "expected seeds"),
        ({"ewc": [[[0.5, 0.5], [0.5, 0.5]]]}, "expected seeds"),
        ({"ewc": [[[0.5], [0.5]], [[0.5]]]}, "expected seeds"),
        ({"ewc": [[[50.0], [50.0]]]}, "outside"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, draw, matrices, words):
    with pytest.raises(UserError, match=words):
        draw(matrices, tmp_path / "x.svg")
    with pytest.raises(UserError, match=r"\.svg"):
        draw(matrices, Path("x.png"))


def test_pyplot_is_not_used(tmp_path):
    """Pyplot holds figures in global state, and would choose a window system."""
    import subprocess

    path = str(tmp_path / "figure.svg")
    code = (
        "import sys, pathlib, tlresearch.results.figures as f\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"f.forgetting_curve_figure({{'a': {TWO_TASKS}}}, pathlib.Path({path!r}))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
