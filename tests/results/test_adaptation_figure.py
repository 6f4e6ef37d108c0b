"""The adaptation curve: its numbers, its axis, the same bytes twice, what is refused."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tlresearch.errors import UserError
from tlresearch.results import adaptation_figure as module
from tlresearch.results.adaptation_figure import adaptation_figure
from tlresearch.results.figures import style
from tlresearch.results.formats import metric_format
from tlresearch.results.statistics import summarise

MSE, ACCURACY = metric_format("mse"), metric_format("acc")
CURVES = {"maml": [[4.0, 1.0, 0.5], [2.0, 1.5, 0.7]], "oracle": [[0.1], [0.2]]}


def drawn(curves: dict, form=MSE):
    with style():
        figure = module._panel({k: np.array(v, dtype=float) for k, v in curves.items()}, form)
        figure.draw_without_rendering()
    return figure.axes[0]


def test_the_curve_and_its_band_by_hand():
    """Means 3, 1.25, .6 after 0, 1, 2 steps; the oracle's .15 is a level."""
    axes = drawn(CURVES)
    line, level = axes.lines
    np.testing.assert_allclose(np.asarray(line.get_xdata()), [0, 1, 2])
    np.testing.assert_allclose(np.asarray(line.get_ydata()), [3, 1.25, 0.6])
    np.testing.assert_allclose(np.asarray(level.get_ydata()), [0.15, 0.15])
    assert level.get_linestyle() == ":" and len(axes.collections) == 1
    vertices = np.asarray(axes.collections[0].get_paths()[0].vertices)
    assert vertices[:, 1].max() == pytest.approx(3 + summarise([4.0, 2.0]).ci95)


def test_errors_have_a_log_axis_which_a_band_below_zero_cannot_leave():
    axes = drawn(CURVES)
    assert axes.get_yscale() == "log" and axes.get_ylim()[0] == pytest.approx(0.05)
    vertices = np.asarray(axes.collections[0].get_paths()[0].vertices)
    assert 3 - summarise([4.0, 2.0]).ci95 < 0 and vertices[:, 1].min() == pytest.approx(0.05)
    assert all(t.get_text() == "" or float(t.get_text()) > 0 for t in axes.get_yticklabels())
    assert drawn({"exact": [[1.0, 0.0]]}).get_yscale() == "linear"  # 0 is not on a log axis


def test_accuracy_is_in_percent_on_a_linear_axis():
    axes = drawn({"maml": [[0.2, 0.9], [0.2, 0.99]]}, ACCURACY)
    assert axes.get_yscale() == "linear" and axes.get_ylabel() == "accuracy (%)"
    np.testing.assert_allclose(np.asarray(axes.lines[0].get_ydata()), [20, 94.5])
    assert np.asarray(axes.collections[0].get_paths()[0].vertices)[:, 1].max() == 100


def test_an_undefined_value_is_a_gap():
    axes = drawn({"maml": [[4.0, None, 1.0], [2.0, 1.0, 1.0]]})
    np.testing.assert_array_equal(np.isnan(np.asarray(axes.lines[0].get_ydata())), [0, 1, 0])


def test_the_same_curves_give_the_same_bytes(tmp_path: Path):
    import matplotlib

    one, other = tmp_path / "one.svg", tmp_path / "other.svg"
    adaptation_figure(CURVES, one, MSE)
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": "x"}):
        adaptation_figure(CURVES, other, MSE)
    assert one.read_bytes() == other.read_bytes() and b"<dc:date>" not in one.read_bytes()
    assert ElementTree.parse(one).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("curves", "words"),
    [
        ({}, "no finished cell"),
        ({"a": [1.0, 2.0]}, "expected seeds"),
        ({"a": [[1.0, 2.0], [1.0]]}, "expected seeds"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, curves: dict, words: str):
    with pytest.raises(UserError, match=words):
        adaptation_figure(curves, tmp_path / "x.svg", MSE)
    with pytest.raises(UserError, match=r"\.svg"):
        adaptation_figure(CURVES, Path("x.png"), MSE)
