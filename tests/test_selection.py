"""The section `select:` of an experiment file: what is refused, what the command line takes out."""

from pathlib import Path

import pytest
import yaml

from tlresearch import experiment
from tlresearch.errors import UserError
from tlresearch.launch.tuning import selection_of

BASE = {
    "family": "continual",
    "benchmark": {"dataset": "optdigits", "tasks": 2},
    "backbone": {"name": "mlp", "hidden": [8]},
    "methods": {"naive": {"name": "naive"}, "ewc": {"name": "ewc"}},
    "train": {"steps": 3},
    "seeds": [0, 1],
}
GRID = {"methods.ewc.strength": [1.0, 2.0]}
SELECT = {"grid": GRID, "seeds": [100, 101]}


@pytest.fixture
def load(tmp_path: Path):
    """Loads `BASE` with `SELECT`, both with keys changed, and with overrides."""

    def load_(*overrides: str, changes: dict | None = None, **select) -> experiment.Experiment:
        path = tmp_path / "exp.yaml"
        content = BASE | {"select": SELECT | select} | (changes or {})
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return experiment.load(path, list(overrides))

    return load_


REFUSED = [
    ({"grid": {}}, "'select.grid' is empty"),
    ({"grid": {"methods.ewc.strength": 3}}, "must be a list"),
    ({"grid": {"methods.ewc.strength": []}}, "'select.grid.methods.ewc.strength' is empty"),
    ({"grid": {"methods.ecw.strength": [1]}}, "no method is labelled 'ecw'; did you mean 'ewc'"),
    ({"grid": {"methods.ewc": [{"name": "naive"}]}}, "expected a setting of one method"),
    ({"grid": {"methods.ewc.lambda": [1]}}, "it is called 'strength' here"),
    ({"grid": {"methods.ewc.strength": [-1]}}, "a number at least 0, not -1"),
    ({"grid": {"methods.ewc.strength": [1, 1]}}, "asked for twice"),
    ({"grid": {"train": [{}]}}, "replaces the whole of 'train'"),
    ({"grid": {"seeds": [[1]]}}, "'seeds', which is not part of a run"),
    ({"grid": {"benchmark.tasks": [2, 5]}}, "methods are compared on one benchmark"),
    ({"grid": GRID | {"methods.ewc.fisher": [{}], "methods.ewc.fisher.batch": [1]}}, "a part of"),
    ({"seeds": []}, "'select.seeds' is empty"),
    ({"seeds": [7, 7]}, "names a seed twice"),
    ({"seeds": [1, 100]}, "'select.seeds' shares 1 with 'seeds'"),
    ({"seeds": [-5]}, "from 0 to 2^32 - 1"),
    ({"metric": "accuracy"}, "unknown metric 'accuracy' in 'select.metric'"),
    ({"validation": 0}, "above 0"),
    ({"validation": 1}, "below 1"),
    ({"validation": 0.0001}, "select.validation: benchmark.validation"),
    ({"table": "exp"}, "'select.table' is the name of this table"),
    ({"tries": 3}, "unknown key 'select.tries'"),
]


@pytest.mark.parametrize(("select", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_cannot_be_meant_is_refused_in_one_sentence(load, select: dict, words: str):
    with pytest.raises(UserError) as caught:
        selection_of(load(**select))
    message = str(caught.value)
    assert words in message and "exp.yaml" in message and "\n" not in message


@pytest.mark.parametrize(
    ("place", "changes"),
    [
        ("sweep", {"sweep": {"methods.ewc.strength": [3, 4]}}),
        ("settings.a", {"settings": {"a": {"methods.ewc.strength": 3}}}),
        ("settings.a", {"settings": {"a": {"methods.ewc": {"name": "naive"}}}}),
    ],
)
def test_a_key_has_one_source_of_values(load, place: str, changes: dict):
    """The grid's, or the one of a sweep or setting."""
    with pytest.raises(UserError, match=f"tuned by 'select.grid' and set by '{place}'"):
        load(changes=changes)


@pytest.mark.parametrize(
    "override",
    [
        "methods.ewc.strength=5",
        "methods.ewc.strength=5,6",
        "methods.ewc={name: ewc, strength: 5}",
    ],
)
def test_the_command_line_goes_before_the_grid(load, override: str):
    """With nothing left to tune there is no selection."""
    made = load(override)
    assert made.header.select is None
    assert {c.config.method.strength for c in made.cells if c.method == "ewc"} <= {5.0, 6.0}


def test_the_rest_of_the_grid_is_still_tuned(load):
    made = load("train.lr=0.5", grid=GRID | {"train.lr": [0.1, 0.2]})
    assert made.header.select is not None and made.header.select.grid == GRID


def test_the_section_can_be_overridden(load):
    made = load("select.metric=forgetting", "select.seeds=[7]")
    assert (made.header.select.metric, made.header.select.seeds) == ("forgetting", (7,))
    assert load("select=null").header.select is None


def test_the_section_is_no_part_of_a_cells_key(load):
    plain = load(changes={"select": None})
    assert [c.key("data") for c in load().cells] == [c.key("data") for c in plain.cells]


def test_the_runs_are_methods_times_grid_times_seeds_on_held_out_data(load):
    """`train.lr` tunes both methods, each for itself; the strength only EWC."""
    made = load(
        grid=GRID | {"train.lr": [0.1, 0.2]},
        changes={"settings": {"a": {"benchmark.scenario": "task"}, "b": {"train.steps": 4}}},
        validation=0.2,
        metric="bwt",
    )
    selection = selection_of(made)
    rows = list(dict.fromkeys((cell.method, cell.setting) for cell in selection.cells))
    expected = []
    for name in ("a", "b"):
        expected += [("naive", f"{name}, lr={lr}") for lr in (0.1, 0.2)]
        expected += [("ewc", f"{name}, strength={s}, lr={lr}") for s in (1, 2) for lr in (0.1, 0.2)]
    assert rows == expected
    assert {cell.seed for cell in selection.cells} == {100, 101}
    benchmarks = [cell.config.benchmark for cell in selection.cells]
    assert {(b.validation, b.evaluate) for b in benchmarks} == {(0.2, "validation")}
    last = selection.cells[-1].config
    assert (last.train.lr, last.method.strength, last.train.steps) == (0.2, 2.0, 4)
    assert selection.metrics == ["bwt", "acc", "forgetting", "learning_accuracy"]
    assert (selection.name, selection.outputs) == ("exp_selection", "exp_selection")
    assert {cell.config.benchmark.evaluate for cell in made.cells} == {"test"}


def test_a_family_may_say_what_is_held_out(load, monkeypatch):
    """A benchmark without `validation` and `evaluate` has its protocol's `held_out`."""
    from tlresearch.continual import protocol

    def held_out(benchmark, fraction):
        return ("mine", fraction)

    monkeypatch.setattr(protocol, "held_out", held_out, raising=False)
    monkeypatch.setattr(protocol, "check", lambda *arguments: None)
    assert {cell.config.benchmark for cell in selection_of(load()).cells} == {("mine", 0.1)}
