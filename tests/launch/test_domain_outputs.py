"""Which figures a table of domain adaptation leaves behind, and of which records."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tlresearch.launch import domain_outputs, outputs
from tlresearch.launch.domain_outputs import write_domain_figures, write_selectors


def record(method: str, seed: int, arrays: dict, setting: str = "", status: str = "finished"):
    fields = {"method": method, "seed": seed, "setting": setting, "status": status}
    return fields | {"arrays": arrays}


def experiment(settings: tuple[str, ...] = ()) -> Any:
    header = SimpleNamespace(settings={s: {} for s in settings}, family="adaptation", title="")
    return SimpleNamespace(header=header, method_labels=["a", "b"])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple]:
    """What was asked to be drawn, by file name."""
    found: dict[str, tuple] = {}

    def note(*arguments: Any) -> None:
        found[arguments[-1].name] = arguments[:-1]

    for name in ("embedding_figure", "boundary_figure", "class_figure", "pseudo_label_figure"):
        monkeypatch.setattr(domain_outputs, name, note)
    return found


def test_what_the_records_hold_is_drawn(drawn: dict, tmp_path: Path):
    """Methods in the table's order, the first seed that has points, rounds padded."""
    records = [
        record("b", 0, {"embedding": [[4]], "target_classes": [[1], [1]]}),
        record("a", 1, {"embedding": [[2]], "target_classes": [[0.5], [1]]}),
        record("a", 0, {"embedding": [[1]], "target_classes": [[0.25], [1]]}),
        record("a", 2, {"pseudo_acc": [0.5, 0.6], "pseudo_kept": [0.1, 1.0]}),
        record("a", 3, {"pseudo_acc": [0.7], "pseudo_kept": [0.3]}),
        record("b", 4, {"embedding": [[9]]}, status="failed"),
        record("a", 0, {"embedding": [[9]]}, setting="dann strength 3"),
    ]
    paths = write_domain_figures(experiment(), records, tmp_path / "t")
    assert [path.name for path in paths] == [
        "t_features.svg",
        "t_pseudo_labels.svg",
        "t_classes.svg",
    ]
    (points,) = drawn["t_features.svg"]
    assert list(points.items()) == [("a", [[1]]), ("b", [[4]])]
    accuracy, kept = drawn["t_pseudo_labels.svg"]
    np.testing.assert_array_equal(accuracy["a"], [[0.5, 0.6], [0.7, np.nan]])
    np.testing.assert_array_equal(kept["a"], [[0.1, 1.0], [0.3, np.nan]])
    (shares,) = drawn["t_classes.svg"]
    np.testing.assert_array_equal(shares[""]["a"][:, 0, 0], [0.25, 0.5])


def test_a_boundary_has_its_points_and_box(drawn: dict, tmp_path: Path):
    arrays = {"inputs": [[1]], "boundary": [[0.5]], "boundary_box": [0, 1, 0, 1]}
    write_domain_figures(experiment(), [record("b", 0, arrays)], tmp_path / "t")
    assert drawn == {"t_boundary.svg": ({"b": [[1]]}, {"b": ([[0.5]], [0, 1, 0, 1])})}


def test_each_setting_has_figures_of_its_own_and_one_of_classes(drawn: dict, tmp_path: Path):
    arrays = {"embedding": [[1]], "target_classes": [[1], [1]]}
    records = [record("a", 0, arrays, setting=setting) for setting in ("x", "y")]
    write_domain_figures(experiment(("x", "y")), records, tmp_path / "t")
    assert set(drawn) == {"t_features_x.svg", "t_features_y.svg", "t_classes.svg"}
    assert set(drawn["t_classes.svg"][0]) == {"x", "y"}


def test_other_families_leave_nothing(drawn: dict, tmp_path: Path):
    other = experiment()
    other.header.family = "continual"
    records = [record("a", 0, {"accuracy_matrix": [[1.0]]})]
    assert write_domain_figures(other, records, tmp_path / "t") == []
    assert write_selectors(other, records, tmp_path / "t") == [] and drawn == {}


def test_the_selectors_rank_the_models_of_each_section(tmp_path: Path):
    """Without the methods that train on target labels; not without a sweep."""

    def variant(method: str, section: str, value: int | None) -> Any:
        values = {} if value is None else {"strength": value}
        setting = ", ".join(part for part in (section, value and f"strength {value}") if part)
        return SimpleNamespace(method=method, setting=setting, section=section, values=values)

    made = experiment()
    made.name = "table"
    made.variants = [variant("a", s, v) for s in "xy" for v in (1, 2, 3)]
    made.variants += [variant("b", s, None) for s in "xy"]
    config = {m: SimpleNamespace(method=SimpleNamespace(oracle=m == "b")) for m in "ab"}
    made.cells = [SimpleNamespace(method=m, config=config[m]) for m in "ab"]
    records = [
        record(v.method, 0, {}, v.setting)
        | {"metrics": {"im": i if v.section == "x" else -i, "acc": 0.1 * i}}
        for i, v in enumerate(made.variants)
    ]
    paths = write_selectors(made, records, tmp_path / "t")
    assert [path.name for path in paths] == ["t_selectors.md", "t_selectors.csv"]
    rows = [line.split(",") for line in paths[1].read_text().splitlines()[1:]]
    assert [(row[0], row[1], float(row[2]), row[-2]) for row in rows] == [
        ("x", "im", 1.0, "3"),
        ("y", "im", -1.0, "3"),
    ]
    made.variants = [v for v in made.variants if not v.values]
    assert write_selectors(made, records, tmp_path / "t") == []


@pytest.mark.parametrize(("metric", "heading"), [("acc", "best by target labels"), ("im", "best")])
def test_a_mark_by_target_labels_says_so(metric: str, heading: str):
    header = SimpleNamespace(family="adaptation")
    assert outputs._best(SimpleNamespace(header=header, metrics=[metric, "acc"])) == heading  # type: ignore[arg-type]
    header.family = "fewshot"
    assert outputs._best(SimpleNamespace(header=header, metrics=["acc"])) == "best"  # type: ignore[arg-type]
