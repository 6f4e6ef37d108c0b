"""What a table says beyond its numbers."""

from pathlib import Path

import yaml

from tlresearch import experiment, yamlfile
from tlresearch.continual import protocol
from tlresearch.continual.protocol import METRICS
from tlresearch.launch import outputs
from tlresearch.launch.outputs import _write_figures, output_name, table_of
from tlresearch.results.formats import metric_format
from tlresearch.results.tables import to_markdown

FILE = Path(__file__).resolve().parents[2] / "experiments/quick/forgetting.yaml"


def test_every_metric_of_the_family_is_printed_in_percent():
    """One table does not mix percent and fractions."""
    assert {name: metric_format(name).unit for name in METRICS} == dict.fromkeys(METRICS, "%")


def test_a_familys_columns_of_text_are_in_the_table(monkeypatch):
    """A family that offers none has none."""
    made = experiment.load(FILE)
    assert not any(table_of(made, []).columns.values())

    def columns(config) -> dict[str, str]:
        return {"scenario": f"{config.benchmark.scenario}!"}

    monkeypatch.setattr(protocol, "columns", columns, raising=False)
    table = table_of(made, [])
    assert table.columns == {
        (cell.method, cell.setting): {"scenario": f"{cell.config.benchmark.scenario}!"}
        for cell in made.cells
    }
    assert "| method | scenario |" in to_markdown(table)


def test_overrides_stand_in_the_title_and_in_the_name():
    """A table that is not the committed one says what it is."""
    plain = experiment.load(FILE)
    changed = experiment.load(FILE, ["train.steps=5"])
    assert table_of(plain, []).title == "Forgetting on split optdigits"
    assert table_of(changed, []).title == "Forgetting on split optdigits (train.steps=5)"
    assert output_name(plain) == "quick/forgetting"
    assert output_name(changed).startswith("quick/forgetting+")


def test_records_with_curves_over_inner_steps_are_drawn(tmp_path, monkeypatch):
    """For each named setting, where a method has one; a method without is at its mean."""
    settings = {s: {"benchmark.scenario": "task"} for s in ("5w1s", "5w5s", "none")}
    path = tmp_path / "exp.yaml"
    path.write_text(yaml.safe_dump(yamlfile.read(FILE) | {"settings": settings}))
    made = experiment.load(path)
    first, second = made.method_labels[:2]
    curves = {(first, "5w1s"): [0.2, 0.8], (second, "5w1s"): [0.9], (first, "5w5s"): [0.5]}
    records = [
        {"method": m, "setting": s, "seed": 0, "status": status, "arrays": {"curve": curve}}
        for (m, s), curve in curves.items()
        for status in ("finished", "failed")
    ]
    level = {"method": made.method_labels[2], "setting": "5w1s", "seed": 0, "status": "finished"}
    records.append(level | {"arrays": {"episodes": [0.25, 0.75]}})
    drawn = []
    monkeypatch.setattr(outputs, "adaptation_figure", lambda *given: drawn.append(given))
    paths = _write_figures(made, records, tmp_path / "table")
    assert [p.name for p in paths] == ["table_adaptation_5w1s.svg"]
    ((shown, path, form),) = drawn
    assert path == paths[0] and form.unit == "%"
    expected = {first: [[0.2, 0.8]], second: [[0.9]], made.method_labels[2]: [[0.5]]}
    assert {label: values.tolist() for label, values in shown.items()} == expected
    assert list(shown) == made.method_labels[:3]
