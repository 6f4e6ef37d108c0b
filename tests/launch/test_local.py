"""Working a plan off: records, what is not run twice, what failed, what is stale."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tlresearch import experiment
from tlresearch.continual import protocol
from tlresearch.data import catalogue
from tlresearch.errors import UserError
from tlresearch.experiment import Experiment
from tlresearch.launch import local, outputs, plan
from tlresearch.results.store import FIELDS, Store
from tlresearch.results.tables import to_csv, to_markdown

BASE = """
family: continual
benchmark: {dataset: optdigits, tasks: 2, scenario: task}
backbone: {name: mlp, hidden: [8]}
methods: {naive: {name: naive}, ewc: {name: ewc, strength: 1e3}}
train: {steps: 3, batch_size: 8, lr: 0.05, precision: fp64}
seeds: [0, 1]
"""
CPU = torch.device("cpu")
TIMES = ("wall_seconds",)
"""Fields of a record that differ from run to run; in `details` also `stack_seconds`."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results", "exp")


class Bench:
    """One experiment file, run and tabulated as the command does it."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.path, self.store = folder / "exp.yaml", store
        self.path.write_text(BASE)

    def load(self, *overrides: str) -> tuple[Experiment, plan.Plan]:
        made = experiment.load(self.path, list(overrides))
        own = Store(self.store.root, outputs.output_name(made))
        planned = plan.make_plan(made, own, CPU)
        plan.write_plan(planned, own)
        return made, planned

    def run(self, *overrides: str, reporter: local.Reporter | None = None) -> list[dict]:
        made, planned = self.load(*overrides)
        local.run(local.Work(made, planned, self.store, CPU, reporter=reporter or local.Reporter()))
        return outputs.records_of(planned, self.store)

    def table(self, *overrides: str):
        made, planned = self.load(*overrides)
        return outputs.table_of(made, outputs.records_of(planned, self.store))


@pytest.fixture
def bench(tmp_path: Path, store: Store) -> Bench:
    return Bench(tmp_path, store)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The seeds of every stack that is run, as it begins."""
    stacks, original = [], protocol.run_stack

    def counted(run, *args, **kwargs):
        stacks.append(list(run.seeds))
        return original(run, *args, **kwargs)

    monkeypatch.setattr(protocol, "run_stack", counted)
    return stacks


def timeless(record: dict) -> dict:
    """A record without its times and the process's peak of memory."""
    kept = {k: v for k, v in record.items() if k not in TIMES}
    passing = ("seconds", "memory")
    details = {k: v for k, v in record["details"].items() if not any(p in k for p in passing)}
    return kept | {"details": details}


def file_of(store: Store, method: str, seed: int) -> Path:
    (path,) = (store.root / "records").glob(f"exp/{method}/seed{seed}-*.json")
    return path


def test_every_cell_has_one_whole_record(bench: Bench, store: Store):
    records = bench.run()
    made, planned = bench.load()
    fingerprint = catalogue.load("optdigits").fingerprint
    by_cell = {(r["method"], r["setting"], r["seed"]): r for r in records}
    assert len(records) == len(by_cell) == len(made.cells) == 4
    for cell in made.cells:
        record = by_cell[cell.method, cell.setting, cell.seed]
        assert record.keys() >= FIELDS.keys()
        assert record["key"] == cell.key(fingerprint)
        assert record["config"] == json.loads(json.dumps(experiment.plain_config(cell.config)))
        assert record["source"] == local.sources_of(cell.config)
        assert (record["experiment"], record["family"]) == ("exp", "continual")
        assert (record["status"], record["reason"], record["stack"]) == ("finished", None, 2)
        assert (record["device"], record["threads"]) == ("cpu", planned.threads)
        assert record["versions"]["torch"] == torch.__version__ and record["wall_seconds"] > 0
        assert record["details"]["steps"] == 2 * 3
        matrix = torch.tensor(record["arrays"]["accuracy_matrix"])
        assert matrix.shape == (3, 2) and record["metrics"]["acc"] == pytest.approx(
            matrix[2].mean()
        )


def test_a_finished_table_is_not_run_again(bench: Bench, store: Store, monkeypatch):
    bench.run()
    before = {path: path.read_bytes() for path in store.root.rglob("*.json")}
    monkeypatch.setattr(protocol, "run_stack", None)
    bench.run()
    assert {path: path.read_bytes() for path in store.root.rglob("*.json")} == before


def test_only_the_stack_of_a_missing_record_is_run_again(bench: Bench, store: Store, ran):
    """And it gives the same bits: randomness is a function of seed, purpose, step and index."""
    first = {r["key"]: timeless(r) for r in bench.run()}
    file_of(store, "ewc", 1).unlink()
    untouched = file_of(store, "naive", 0).read_bytes()
    ran.clear()
    again = {r["key"]: timeless(r) for r in bench.run()}
    assert ran == [[0, 1]]
    assert again == first
    assert file_of(store, "naive", 0).read_bytes() == untouched


def test_a_packed_table_needs_no_record_files(bench: Bench, store: Store, ran):
    made, planned = bench.load()
    bench.run()
    outputs.write_outputs(made, planned, store)
    for path in (store.root / "records" / "exp").rglob("*.json"):
        path.unlink()
    ran.clear()
    assert len(bench.run()) == 4 and ran == []


def test_new_seeds_run_alone(bench: Bench, ran):
    old = {r["key"]: r for r in bench.run()}
    ran.clear()
    bench.path.write_text(BASE.replace("[0, 1]", "[0, 1, 7]"))
    records = bench.run()
    assert ran == [[7], [7]] and len(records) == 6
    assert {r["key"]: r for r in records if r["seed"] != 7} == old


def test_more_seeds_by_an_override_run_alone_too(bench: Bench, ran):
    """A finished cell is never run twice, whichever plan it was run in."""
    bench.run()
    ran.clear()
    assert len(bench.run("seeds=[0, 1, 7]")) == 6
    assert ran == [[7], [7]]


def test_another_label_runs_nothing_and_renames_the_row(bench: Bench, ran):
    bench.run()
    ran.clear()
    bench.path.write_text(BASE.replace("ewc: {name", "mine: {name"))
    assert {r["method"] for r in bench.run()} == {"naive", "mine"} and ran == []
    assert len(bench.table().cells["mine", ""].finished) == 2


def test_equal_runs_under_two_names_fill_both_rows(bench: Bench):
    """A setting that varies EWC only leaves naive's runs equal; its rows must not be missing."""
    with bench.path.open("a") as file:
        file.write("settings: {a: {methods.ewc.strength: 1}, b: {methods.ewc.strength: 9}}\n")
    bench.run()
    cells = bench.table().cells
    assert {pair: len(cell.finished) for pair, cell in cells.items()} == {
        (method, setting): 2 for method in ("naive", "ewc") for setting in "ab"
    }


def test_a_stack_agrees_with_separate_runs(bench: Bench, ran):
    """In float64 a stack of seeds (and of strengths) is exact."""
    sweep = "methods.ewc.strength=0,1e3"
    stacked = bench.run(sweep)
    assert ran == [[0, 1], [0, 1, 0, 1]]
    bench.store = Store(bench.store.root / "alone", "exp")
    alone = bench.run(sweep, "train.stack=1")
    assert all(len(seeds) == 1 for seeds in ran[2:]) and len(ran) == 2 + 6

    def matrices(records: list[dict]) -> dict:
        return {(r["method"], r["setting"], r["seed"]):
                torch.tensor(r["arrays"]["accuracy_matrix"]) for r in records}  # fmt: skip

    one, other = matrices(stacked), matrices(alone)
    assert one.keys() == other.keys() and len(one) == 6
    for cell, matrix in one.items():
        torch.testing.assert_close(matrix, other[cell], atol=1e-6, rtol=0)
    assert len({tuple(m.flatten().tolist()) for m in one.values()}) >= 3  # they do differ


def test_progress_adds_up_to_all_steps(bench: Bench):
    """3 steps of 2 tasks in each of 2 stacks."""
    begun, steps, ended = [], [], []
    bench.run(
        reporter=local.Reporter(
            lambda stack, total: begun.append((stack.label, total)),
            steps.append,
            lambda stack, outcomes: ended.append((stack.label, len(outcomes))),
        )
    )
    assert begun == [("naive seed 0-1", 6), ("ewc seed 0-1", 6)] and sum(steps) == 12
    assert ended == [("naive seed 0-1", 2), ("ewc seed 0-1", 2)]


def test_no_checkpoint_is_left(bench: Bench, store: Store):
    bench.run()
    assert not list(store.root.rglob("*.pt")) and not list(store.root.rglob("*.tmp"))


def test_rows_made_by_other_code_are_stale(bench: Bench, store: Store, monkeypatch):
    bench.run()
    assert "(stale)" not in to_markdown(bench.table())
    original = local.sources_of

    def edited(config) -> str:
        changed = type(config.method).__name__ == "EWC"
        return "0" * 64 if changed else original(config)

    monkeypatch.setattr(outputs, "sources_of", edited)
    text = to_markdown(bench.table())
    assert "| ewc (stale) |" in text and "| naive |" in text
    assert [c.stale for c in bench.table().cells.values()] == [False, True]


def test_a_diverging_seed_fails_alone_with_its_reason(bench: Bench, monkeypatch):
    """What happens to one seed never touches its sisters; its record has no metrics."""
    original = protocol.run_stack

    def second_fails(run, *args, **kwargs):
        good, bad = original(run, *args, **kwargs)
        return [good, dataclasses.replace(bad, status="failed", reason="lost it", metrics={})]

    monkeypatch.setattr(protocol, "run_stack", second_fails)
    status = {(r["method"], r["seed"]): (r["status"], r["reason"]) for r in bench.run()}
    assert status["ewc", 0] == ("finished", None) and status["ewc", 1] == ("failed", "lost it")
    text = to_markdown(bench.table())
    assert "Failed: ewc, seed 1: lost it" in text and "1 of 2" in text


def test_a_seed_fails_by_itself_where_its_strength_is_too_large(bench: Bench):
    """λ = 1e308 overflows at the second task; its sister in the stack is as if alone."""
    sweep = "methods.ewc.strength=1,1e308"
    records = [r for r in bench.run(sweep, "train.precision=fp32") if r["method"] == "ewc"]
    status = {(r["setting"], r["seed"]): r["status"] for r in records}
    assert status == {
        ("strength=1", 0): "finished",
        ("strength=1", 1): "finished",
        ("strength=1e+308", 0): "failed",
        ("strength=1e+308", 1): "failed",
    }
    assert all(r["reason"] for r in records if r["status"] == "failed")
    assert all(r["metrics"]["acc"] > 0 for r in records if r["status"] == "finished")


def test_outputs_are_the_table_its_figures_and_the_packed_records(bench: Bench, store: Store):
    records = bench.run()
    made, planned = bench.load()
    paths = outputs.write_outputs(made, planned, store)
    names = ["exp.md", "exp.csv", "exp.tex", "exp_matrix.svg", "exp_forgetting.svg", "exp.jsonl"]
    assert [path.name for path in paths] == names and all(path.stat().st_size for path in paths)
    assert paths[1].read_text() == to_csv(bench.table())
    assert len(paths[-1].read_text().splitlines()) == len(records)


def test_a_table_that_is_not_finished_is_not_packed_as_one(bench: Bench, store: Store):
    """With no record at all there is nothing to pack but the empty table."""
    _, planned = bench.load()
    assert outputs.records_of(planned, store) == []
    assert [cell.missing for cell in bench.table().cells.values()] == [(0, 1), (0, 1)]
    with pytest.raises(UserError, match="have no record"):
        store.pack([key for stack in planned.stacks for key in stack.keys])
