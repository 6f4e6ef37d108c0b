"""What a table says beyond its numbers."""

from pathlib import Path

from tlresearch import experiment
from tlresearch.continual import protocol
from tlresearch.continual.protocol import METRICS
from tlresearch.launch.outputs import output_name, table_of
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
