"""Tables of swept values, and their figure: what stands where, what is marked, what is drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlresearch.errors import UserError
from tlresearch.results import sweep_figure as drawing
from tlresearch.results.figures import style
from tlresearch.results.rows import Place, build_table
from tlresearch.results.statistics import summarise
from tlresearch.results.sweeps import best_rows
from tlresearch.results.tables import to_csv, to_latex, to_markdown

ACCURACY = {1.0: [0.5, 0.7], 100.0: [0.8, 0.9], 10.0: [0.6, 0.6]}


def swept(
    values=ACCURACY, sections=("task", "class"), metric="acc", heading="strength", seeds=(0, 1)
):
    """EWC at each value and naive without one, in each section; the same numbers in all."""
    places, records = {}, []
    for section in sections:
        rows = [("naive", section, {}, [0.3, 0.4])]
        rows += [("ewc", f"{section}, x={v}", {heading: v}, numbers)
                 for v, numbers in values.items()]  # fmt: skip
        for method, setting, place, numbers in rows:
            places[method, setting] = Place(section, place)
            records += [
                {"method": method, "setting": setting, "seed": seed, "source": "",
                 "checkpoint": "last", "reason": None, "metrics": {metric: number},
                 "status": "failed" if number is None else "finished"}
                for seed, number in enumerate(numbers)
            ]  # fmt: skip
    return build_table(
        records, ["naive", "ewc"], [setting for _, setting in places], [metric],
        seeds=seeds, cells=list(places), places=places,
    )  # fmt: skip


def test_a_section_has_a_row_for_each_value_and_no_tests():
    text = to_markdown(swept())
    assert text.startswith(
        "# task\n\n"
        "| method | strength | accuracy (%) | n | best |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| naive |  | 35.00 ± 63.53 | 2 |  |\n"
        "| ewc | 1 | 60.00 ± 127.06 | 2 |  |\n"
        "| ewc | 100 | 85.00 ± 63.53 | 2 | highest mean |\n"
        "| ewc | 10 | 60.00 ± 0.00 | 2 |  |\n\n"
        "# class\n\n| method |"
    )
    assert "Paired" not in text and text.count("highest mean |") == 2
    assert r"ewc & 100 & 85.00 $\pm$ 63.53 & 2 & highest mean \\" in to_latex(swept())


def test_csv_stays_long():
    lines = to_csv(swept()).splitlines()
    assert len(lines) == 1 + 2 * 4 and lines[2].startswith('ewc,"task, x=1.0",acc,0.6,')


def test_the_best_row_is_complete_and_the_first_of_equals():
    """A value with a failed seed has no part; lower forgetting is better."""
    best = {("ewc", "task, x=100.0"): "task", ("ewc", "class, x=100.0"): "class"}
    assert best_rows(swept()) == best
    failed = swept(ACCURACY | {100.0: [0.99, None]}, ["task"])
    assert best_rows(failed) == {("ewc", "task, x=1.0"): "task"}  # .6 twice
    missing = swept(seeds=(0, 1, 2))
    assert best_rows(missing) == {}
    lower = swept({1.0: [0.1, 0.3], 2.0: [0.1, 0.2]}, ["task"], "forgetting")
    assert best_rows(lower) == {("ewc", "task, x=2.0"): "task"}
    assert "| lowest mean |" in to_markdown(lower)


def test_a_row_that_stands_alone_is_not_best():
    assert best_rows(swept({1.0: [0.5, 0.5]})) == {}


def test_the_same_table_gives_the_same_bytes(tmp_path: Path):
    import matplotlib

    one, other = tmp_path / "one.svg", tmp_path / "other.svg"
    drawing.sweep_figure(swept(), one)
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": "x"}):
        drawing.sweep_figure(swept(), other)
    assert one.read_bytes() == other.read_bytes() and b"<dc:date>" not in one.read_bytes()


def panels(table):
    name = drawing.swept_number(table)
    assert name is not None
    with style():
        name = drawing.swept_number(table)
        assert name
        return drawing._panels(table, name)


def test_the_figure_shows_means_bands_and_the_best(tmp_path: Path):
    """In order of the values; a ring at 100; naive as a level; a panel for each setting."""
    figure = panels(swept())
    assert [axes.get_title() for axes in figure.axes] == ["task", "class"]
    axes = figure.axes[0]
    level, curve, ring = axes.lines
    np.testing.assert_allclose(np.asarray(level.get_ydata()), 35)
    np.testing.assert_allclose(np.asarray(curve.get_xdata()), [1, 10, 100])
    np.testing.assert_allclose(np.asarray(curve.get_ydata()), [60, 60, 85])
    np.testing.assert_allclose(np.asarray(ring.get_xydata()), [[100, 85]])
    vertices = np.asarray(axes.collections[0].get_paths()[0].vertices)
    wide = 60 + 100 * summarise([0.5, 0.7]).ci95
    assert wide > 100 and vertices[:, 1].max() == 100  # clipped: no accuracy is above 100 %
    assert axes.get_ylabel() == "accuracy (%)" and axes.get_xlabel() == "strength"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["naive", "ewc"]


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1, 20], "linear"), ([1, 21], "log"), ([0, 100], "linear"), ([-1, 100], "linear")],
)
def test_the_axis_is_logarithmic_beyond_a_factor_of_twenty(values: list, scale: str):
    table = swept({value: [0.5, 0.6] for value in values}, [""])
    assert panels(table).axes[0].get_xscale() == scale


def sized() -> Any:
    """Two methods at two ratios and a teacher without one; sizes fall as the ratio rises."""
    rows = {
        ("teacher", ""): ({}, [0.9, 0.8], 40_000),
        ("labels", "ratio=0.5"): ({"ratio": 0.5}, [0.7, 0.6], 10_000),
        ("labels", "ratio=0.9"): ({"ratio": 0.9}, [0.5, 0.4], 500),
        ("taught", "ratio=0.5"): ({"ratio": 0.5}, [0.8, 0.7], 12_000),
        ("taught", "ratio=0.9"): ({"ratio": 0.9}, [0.6, 0.5], 600),
    }
    records = [
        {"method": method, "setting": setting, "seed": seed, "source": "", "checkpoint": "last",
         "reason": None, "metrics": {"acc": acc, "parameters": size}, "status": "finished"}
        for (method, setting), (_, accuracies, size) in rows.items()
        for seed, acc in enumerate(accuracies)
    ]  # fmt: skip
    return build_table(
        records, ["teacher", "labels", "taught"], ["", "ratio=0.5", "ratio=0.9"],
        ["acc", "parameters"], seeds=(0, 1), cells=list(rows),
        places={pair: Place("", values) for pair, (values, *_) in rows.items()},
    )  # fmt: skip


def test_a_metric_may_be_the_axis(tmp_path: Path):
    """Accuracy against size: lines from small to large, and the teacher at its own size."""
    with style():
        (axes,) = drawing._panels(sized(), "ratio", "parameters").axes
    level, teacher, labels, ring, taught, other = axes.lines
    assert axes.get_xlabel() == "parameters" and axes.get_xscale() == "log"
    np.testing.assert_allclose(np.asarray(level.get_ydata()), 85)
    np.testing.assert_allclose(np.asarray(teacher.get_xydata()), [[40_000, 85]])
    np.testing.assert_allclose(np.asarray(labels.get_xydata()), [[500, 45], [10_000, 65]])
    np.testing.assert_allclose(np.asarray(taught.get_xydata()), [[600, 55], [12_000, 75]])
    np.testing.assert_allclose(np.asarray(ring.get_xydata()), [[10_000, 65]])
    np.testing.assert_allclose(np.asarray(other.get_xydata()), [[12_000, 75]])
    drawing.sweep_figure(sized(), tmp_path / "x.svg", "parameters")
    drawing.sweep_figure(sized(), tmp_path / "y.svg")
    pair = [(tmp_path / name).read_bytes() for name in ("x.svg", "y.svg")]
    assert pair[0] != pair[1]


@pytest.mark.parametrize(
    "table",
    [
        build_table([], ["ewc"], [""], ["acc"]),
        swept({1.0: [0.5, 0.6]}),
        swept({"a": [0.5, 0.6], "b": [0.5, 0.6]}),
        swept({True: [0.5, 0.6], False: [0.5, 0.6]}),
    ],
    ids=["nothing swept", "one value", "texts", "truths"],
)
def test_what_is_no_swept_number_is_not_drawn(tmp_path: Path, table):
    assert drawing.swept_number(table) is None
    with pytest.raises(UserError, match="no results over several values"):
        drawing.sweep_figure(table, tmp_path / "x.svg")


def test_only_svg(tmp_path: Path):
    with pytest.raises(UserError, match=r"ends in \.svg"):
        drawing.sweep_figure(swept(), tmp_path / "x.png")
