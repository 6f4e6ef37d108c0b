"""What a selection chooses from its records, what it cost, and how the choice is kept."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tlresearch import experiment
from tlresearch.errors import UserError
from tlresearch.launch import tuning, tuning_notes
from tlresearch.launch.outputs import output_name, table_of
from tlresearch.launch.plan import make_plan
from tlresearch.results.store import Store
from tlresearch.results.tables import to_csv, to_markdown
from tlresearch.selection import Choice, Chosen, Tried

BASE = """
family: continual
benchmark: {dataset: optdigits, tasks: 2}
backbone: {name: mlp, hidden: [8]}
methods: {naive: {name: naive}, ewc: {name: ewc}}
train: {steps: 3, batch_size: 8}
settings: {a: {benchmark.scenario: task}, b: {benchmark.scenario: domain}}
seeds: [0, 1]
select:
  grid: {methods.ewc.strength: [1, 20, 300]}
  seeds: [100, 101]
"""


class Bench:
    """One experiment file, its selection, and records as a run would write them."""

    def __init__(self, folder: Path) -> None:
        self.path, self.store = folder / "exp.yaml", Store(folder / "results", "exp")
        self.write(BASE)

    def write(self, text: str) -> None:
        self.path.write_text(text)
        self.made = experiment.load(self.path)
        self.selection = tuning.selection_of(self.made)
        place = Store(self.store.root, output_name(self.selection))
        self.plan = make_plan(self.selection, place, torch.device("cpu"))

    def records(self, values, **fields) -> list[dict]:
        """One a cell; `values(setting, strength, seed)` is its accuracy, None for a failed run."""
        records = []
        for key, cell in self.plan.cells:
            value = values(cell.setting[0], cell.config.method.strength, cell.seed)
            record = {"method": cell.method, "setting": cell.setting, "seed": cell.seed}
            record |= {"key": key, "source": "", "checkpoint": "last", "stack": 6, "arrays": {}}
            record |= {"details": {"stack_seconds": 12.0}, "wall_seconds": 99.0}
            record |= {"status": "finished", "reason": None, "metrics": {"acc": value}}
            failed = {"status": "failed", "reason": "lost it", "metrics": {}}
            records.append(record | (failed if value is None else {}) | fields)
        return records

    def choose(self, values, **fields) -> Choice:
        return tuning.choose(self.selection, self.plan, self.records(values, **fields))

    def strengths(self, values) -> list[float]:
        """Chosen in the settings a and b."""
        rows = self.choose(values).rows
        assert [(row.method, row.setting) for row in rows] == [("ewc", "a"), ("ewc", "b")]
        return [row.values["methods.ewc.strength"] for row in rows]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_each_setting_has_the_value_of_its_highest_mean(bench: Bench):
    """a: means .5, .6, .4; b: .1, .2, .9. A single high seed does not decide."""
    means = {"a": {1: 0.5, 20: 0.6, 300: 0.4}, "b": {1: 0.1, 20: 0.2, 300: 0.9}}
    spread = {1: 0.4, 20: 0.0, 300: 0.0}
    chosen = bench.strengths(
        lambda s, x, seed: means[s][x] + spread[x] * (1 if seed == 100 else -1)
    )
    assert chosen == [20, 300]


def test_of_equal_means_the_earlier_in_the_grid(bench: Bench):
    """Equal but for the rounding of their sums, too; the order is the file's, not the size's."""
    assert bench.strengths(lambda s, x, seed: 0.5) == [1, 1]
    assert bench.strengths(lambda s, x, seed: 0.5 + (1e-16 if x == 300 else 0)) == [1, 1]
    bench.write(BASE.replace("[1, 20, 300]", "[300, 1, 20]"))
    assert bench.strengths(lambda s, x, seed: 0.5) == [300, 300]


def test_lower_is_better_for_forgetting(bench: Bench):
    bench.write(BASE + "  metric: forgetting\n")

    def chosen(values) -> list[float]:
        records = bench.records(lambda s, x, seed: values[x])
        for record in records:
            record["metrics"]["forgetting"] = record["metrics"]["acc"]
        choice = tuning.choose(bench.selection, bench.plan, records)
        return [row.values["methods.ewc.strength"] for row in choice.rows]

    assert chosen({1: 0.3, 20: -0.1, 300: 0.2}) == [20, 20]
    assert chosen({1: 0.0, 20: 0.1, 300: 0.0}) == [1, 1]


def test_a_value_with_a_failed_seed_is_not_eligible(bench: Bench):
    """Though its other seed is the best of all."""
    assert bench.strengths(lambda s, x, seed: None if x == 300 and seed == 101 else x / 300) == [
        20,
        20,
    ]
    choice = bench.choose(lambda s, x, seed: None if x == 300 and seed == 101 else x / 300)
    assert [tried.mean for tried in choice.rows[0].tried] == [
        pytest.approx(1 / 300),
        pytest.approx(20 / 300),
        None,
    ]


def test_nothing_eligible_is_one_sentence(bench: Bench):
    with pytest.raises(UserError, match="nothing can be chosen for ewc, b: ") as caught:
        bench.choose(lambda s, x, seed: None if s == "b" else 0.5)
    assert "\n" not in str(caught.value)


def test_an_incomplete_selection_chooses_nothing(bench: Bench):
    records = bench.records(lambda s, x, seed: 0.5)[1:]
    with pytest.raises(UserError, match="1 of the 12 runs that choose its values are missing"):
        tuning.choose(bench.selection, bench.plan, records)


def test_cost_is_the_share_of_the_stacks_wall_time(bench: Bench):
    """3 strengths × 2 seeds, each a sixth of its stack's 12 s; without it, of 99 s."""
    rows = bench.choose(lambda s, x, seed: 0.5).rows
    assert [(row.runs, row.seconds) for row in rows] == [(6, 12.0), (6, 12.0)]
    assert bench.choose(lambda s, x, seed: 0.5, details={}).rows[0].seconds == pytest.approx(99)


def test_the_table_says_what_was_chosen_and_what_it_took(bench: Bench):
    choice = bench.choose(lambda s, x, seed: {"a": x, "b": -abs(x - 20)}[s] / 300)
    made = tuning.with_choice(bench.made, choice)
    strengths = {(c.setting, c.config.method.strength) for c in made.cells if c.method == "ewc"}
    assert strengths == {("a", 300.0), ("b", 20.0)}
    table = table_of(made, [])
    text = to_markdown(table)
    assert "| n | tuning |" in text and "| 6 runs, 12.0 s |" in text and "| 0 of 2 | 0 |" in text
    assert "(100, 101)" in text and "on 0.1 of the training data" in text
    assert "- Chosen for ewc, a: strength 300, of 1, 20, 300 (held-out accuracy 100.00 %)." in text
    assert "ewc, a: strength 300 is at the upper end of its grid" in text
    assert "ewc, b: strength 20 is at" not in text
    lines = to_csv(table).splitlines()
    assert lines[0].endswith(",verdict,tuning_runs,tuning_seconds")
    assert {line.split(",")[0]: line.split(",")[-2:] for line in lines[1:]} == {
        "naive": ["0", "0.0"],
        "ewc": ["6", "12.0"],
    }


@pytest.mark.parametrize(
    ("grid", "chosen", "side"),
    [
        ([1, 2], 1, None),
        ([3, 1, 2], 1, "lower"),
        ([3, 1, 2], 2, None),
        ([1, 2, 3], 3, "upper"),
        ([True, False, 2], 2, None),
        (["a", "b", "c"], "a", None),
    ],
)
def test_the_end_of_a_grid_of_three_numbers_is_warned_of(grid: list, chosen, side: str | None):
    row = Chosen("m", "", {"train.x": chosen}, [Tried({"train.x": v}, 0.5) for v in grid], 1, 1.0)
    lines = tuning_notes.edges(row, ["train.x"])
    assert [f"{side} end" in line for line in lines] == ([True] if side else [])


def test_a_kept_choice_is_read_back(bench: Bench):
    choice = bench.choose(lambda s, x, seed: None if x == 300 else x / 300)
    tuning.write_choice(bench.selection, choice, bench.store)
    assert tuning.read_choice(bench.selection, bench.plan, bench.store) == choice


def spoiled(path: Path, how: str) -> None:
    text = path.read_text()
    value = json.loads(text)
    if how == "edited":
        value["rows"][0]["values"]["methods.ewc.strength"] = 20
    path.write_text(text[:50] if how == "cut" else "[]" if how == "list" else json.dumps(value))


@pytest.mark.parametrize("how", ["edited", "cut", "list"])
def test_a_damaged_choice_is_refused(bench: Bench, how: str):
    choice = bench.choose(lambda s, x, seed: 0.5)
    spoiled(tuning.write_choice(bench.selection, choice, bench.store), how)
    with pytest.raises(UserError, match=r"exp_selection\.choice\.json"):
        tuning.read_choice(bench.selection, bench.plan, bench.store)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[1, 20, 300]", "[1, 20]"),
        ("[100, 101]", "[100, 102]"),
        ("steps: 3", "steps: 4"),
        ("  seeds: [100, 101]", "  seeds: [100, 101]\n  metric: bwt"),
    ],
)
def test_a_choice_of_another_selection_is_refused(bench: Bench, old: str, new: str):
    choice = bench.choose(lambda s, x, seed: 0.5)
    tuning.write_choice(bench.selection, choice, bench.store)
    bench.write(BASE.replace(old, new))
    with pytest.raises(UserError, match="the file has changed since this was chosen"):
        tuning.read_choice(bench.selection, bench.plan, bench.store)


def test_what_was_never_chosen_is_refused(bench: Bench):
    choice = bench.choose(lambda s, x, seed: 0.5)
    with pytest.raises(
        UserError, match=r"no value of 'methods\.ewc\.strength' was chosen for ewc, b"
    ):
        tuning.with_choice(bench.made, dataclasses.replace(choice, rows=choice.rows[:1]))


def test_a_methods_own_training_is_tuned_by_its_key(bench: Bench):
    """The other method keeps the table's, in the selection and in the table."""
    bench.write(BASE.replace("methods.ewc.strength: [1, 20, 300]", "methods.ewc.train.lr: [1, 2]"))
    tried = {(cell.setting, cell.config.train.lr) for _, cell in bench.plan.cells}
    assert tried == {("a, lr=1", 1), ("a, lr=2", 2), ("b, lr=1", 1), ("b, lr=2", 2)}
    rows = [Chosen("ewc", s, {"methods.ewc.train.lr": 2.0}, [], 2, 1.0) for s in ("a", "b")]
    choice = Choice("", "acc", (100, 101), 0.1, rows)
    tuned = tuning.with_choice(bench.made, choice)
    rates = {(cell.method, cell.config.train.lr) for cell in tuned.cells}
    assert rates == {("naive", 1e-3), ("ewc", 2.0)}
