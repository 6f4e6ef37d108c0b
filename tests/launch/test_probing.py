"""Plans and runs with own code: one seed at a time where a stack is refused; `debug: true`."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tlresearch import cli, experiment
from tlresearch.continual import protocol
from tlresearch.errors import UserError
from tlresearch.launch import local, outputs
from tlresearch.launch import plan as plans
from tlresearch.results.store import Store
from tlresearch.training import device

FILE = """
family: continual
benchmark: {dataset: optdigits, tasks: 2, scenario: task}
backbone: {name: "./own.py:make", width: 4}
methods: {naive: {name: naive}, mine: {name: "./own.py:Mine"}}
train: {steps: 2, batch_size: 8}
seeds: [0, 1]
"""
OWN = """
from dataclasses import dataclass
from torch import nn
from tlresearch.continual.method import ContinualMethod

def make(input_shape, width: int = 8):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.Dropout(0.2))

@dataclass(frozen=True)
class Mine(ContinualMethod):
    strength: float = 1.0

    def loss(self, networks, state, batch):
        value = super().loss(networks, state, batch)
        LINE
        return value
"""
ITEM = "print('the loss is', value.total.item())"
CPU = torch.device("cpu")


class Bench:
    """An experiment file with own code, and what the command does with it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file, self.results, self.capsys = folder / "exp.yaml", folder / "results", capsys
        self.file.write_text(FILE)
        self.edit("pass")

    def edit(self, line: str) -> None:
        self.file.with_name("own.py").write_text(OWN.replace("LINE", line))

    def plan(self, *overrides: str, probing: bool = True) -> tuple[plans.Plan, Store]:
        made = experiment.load(self.file, list(overrides))
        store = Store(self.results, outputs.output_name(made))
        return plans.make_plan(made, store, CPU, probing), store

    def command(self, *words: str, name: str = "run") -> tuple[int, str, str]:
        code = cli.main([name, str(self.file), *words, "--results", str(self.results)])
        out = self.capsys.readouterr()
        return code, out.out, out.err

    def records(self, table: str = "exp") -> list[dict]:
        return Store(self.results, table).read()


@pytest.fixture
def bench(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    monkeypatch.setattr(outputs, "_write_figures", lambda *args: [])
    return Bench(tmp_path, capsys)


def sizes(plan: plans.Plan) -> dict[str, list[int]]:
    """Seeds of the stacks of each method."""
    found: dict[str, list[int]] = {}
    for stack in plan.stacks:
        found.setdefault(stack.cells[0].method, []).append(len(stack.keys))
    return found


def test_own_code_that_maps_is_stacked(bench: Bench):
    plan, _ = bench.plan()
    assert sizes(plan) == {"naive": [2], "mine": [2]} and plan.notes == ()


def test_own_code_that_refuses_runs_one_seed_at_a_time_and_says_so(bench: Bench):
    """One line on the error stream for a program, however it is trained; no traceback."""
    bench.edit(ITEM)
    plan, _ = bench.plan()
    assert sizes(plan) == {"naive": [2], "mine": [1, 1]}
    code, out, err = bench.command("train.lr=1e-3,1e-2")
    assert code == 0 and "in 6 stacks of up to 2 seeds" in out and err.count("\n") == 1
    assert err.startswith("tlresearch: mine with backbone ./own.py:make: runs one seed at a time")
    assert "refuses vmap: RuntimeError" in err and "(own.py, line 15)" in err


def test_reading_a_table_tries_nothing(bench: Bench, monkeypatch):
    bench.edit(ITEM)
    assert bench.plan(probing=False)[0].notes == ()
    assert bench.command(name="table")[2] == ""


def test_a_number_that_becomes_a_tensor_is_tried_as_one(bench: Bench):
    bench.edit("assert self.strength > 0")
    sweep = "methods.mine.strength=1,2"
    assert sizes(bench.plan()[0])["mine"] == [2]
    assert sizes(bench.plan(sweep)[0])["mine"] == [1, 1, 1, 1]
    bench.edit("value = value._replace(total=value.total * self.strength)")
    assert sizes(bench.plan(sweep)[0])["mine"] == [4]


def test_a_plan_begun_stays_unless_an_edit_made_its_stack_impossible(bench: Bench):
    """A stack on disk is run as it is; one that would now end in a traceback is taken apart."""
    plan, store = bench.plan()
    plans.write_plan(plan, store)
    assert [s.keys for s in bench.plan()[0].stacks] == [s.keys for s in plan.stacks]
    bench.edit(ITEM)
    assert sizes(bench.plan()[0]) == {"naive": [2], "mine": [1, 1]}
    bench.edit("pass")
    bench.command()
    bench.edit(ITEM)
    again, _ = bench.plan()
    assert sizes(again) == {"naive": [2], "mine": [2]} and not again.notes


def test_hidden_randomness_is_refused_before_anything_runs(bench: Bench):
    bench.edit("nn.functional.dropout(batch.x, 0.5)")
    code, _, err = bench.command()
    assert code == 2 and "draws hidden random numbers" in err and err.count("\n") == 1
    assert not bench.results.exists()


def test_a_mistake_in_own_code_is_told_with_its_line(bench: Bench):
    bench.edit("value.totl")
    code, _, err = bench.command()
    assert code == 2 and err.count("\n") == 1
    assert "AttributeError: 'Loss' object has no attribute 'totl' (own.py, line 15)" in err


def test_stacked_and_single_runs_of_own_code_agree(bench: Bench):
    """A foreign network with batch norm and dropout, in float64; its record names its file."""
    bench.command("train.precision=fp64", "train.steps=5")
    together = {(r["method"], r["seed"]): r for r in bench.records()}
    assert {r["stack"] for r in together.values()} == {2}
    for record in together.values():
        assert record["config"]["backbone"]["name"] == "./own.py:make"
    other = bench.results.with_name("alone")
    words = ["train.precision=fp64", "train.steps=5", "train.stack=1", "--results", str(other)]
    cli.main(["run", str(bench.file), *words])
    for record in Store(other, "exp").read():
        expected = together[record["method"], record["seed"]]
        assert record["arrays"] == expected["arrays"] and record["key"] == expected["key"]


def test_debug_runs_one_seed_eagerly_with_prints_and_touches_nothing(bench: Bench, monkeypatch):
    """Under a name of its own, with the same keys, each time anew."""
    seen, original = [], protocol.run_stack

    def spy(run, *args, **kwargs):
        seen.append((len(run.seeds), run.train.compile, run.train.stack))
        return original(run, *args, **kwargs)

    bench.command()
    before = {p: p.read_bytes() for p in bench.results.rglob("*") if p.is_file()}
    monkeypatch.setattr(protocol, "run_stack", spy)
    bench.edit(ITEM)
    bench.file.write_text(FILE + "debug: true\n")
    for _ in range(2):
        code, out, err = bench.command()
        assert (code, err) == (0, "")
        assert out.count("the loss is") == 2 * 2 * 2  # seeds × tasks × steps
    assert seen == [(1, False, 1)] * 8
    assert all(p.read_bytes() == content for p, content in before.items())
    assert (bench.results / "exp+debug.md").exists()
    keys = [{r["key"] for r in bench.records(table)} for table in ("exp", "exp+debug")]
    assert keys[0] == keys[1]


def test_debug_starts_anew_where_a_run_was_left(bench: Bench):
    """A checkpoint, here one that cannot be read, is not gone on with."""
    made = experiment.load(bench.file, ["debug=true"])
    plan, store = bench.plan("debug=true")[0], Store(bench.results, made.name)
    stack = plan.stacks[0]
    left = local.run_files(store, stack, local.sources_of(stack.cells[0].config)).checkpoint
    left.parent.mkdir(parents=True)
    left.write_text("half")
    assert bench.command("debug=true")[0] == 0


def test_debug_shows_the_traceback_of_a_mistake(bench: Bench):
    """Nothing is tried beforehand, and nothing stands between the loss and the reader."""
    bench.edit("value.totl")
    with pytest.raises(AttributeError, match="totl"):
        bench.command("debug=true")


TASKWISE = """
    def after_task(self, networks, state, data):
        LINE
"""


def test_a_mistake_that_only_real_data_show_is_one_sentence(bench: Bench):
    """With file and line, and how to see the traceback; what was done before stays done."""
    own = bench.file.with_name("own.py")
    own.write_text(OWN.replace("LINE", "pass") + TASKWISE.replace("LINE", "state.nothing"))
    code, _, err = bench.command("methods.naive={name: naive}", "backbone=mlp")
    assert code == 2 and err.startswith(f"tlresearch: {bench.file}: mine seed 0")
    assert "cannot be run: AttributeError: " in err and "(own.py, line 19)" in err
    assert "add 'debug=true' to the command to see the whole traceback" in err
    assert err.count("\n") == 1 and len(bench.records("exp")) == 2
    with pytest.raises(AttributeError, match="nothing"):
        bench.command("debug=true")


@pytest.mark.parametrize(
    ("line", "expected"),
    [("import bdb; raise bdb.BdbQuit", 130), ("raise KeyboardInterrupt", 130),
     ("from tlresearch.errors import UserError; raise UserError('mind the gap')", 2),
     ("raise BrokenPipeError", 0), ("raise OSError(28, 'full')", 2)],
)  # fmt: skip
def test_what_is_no_mistake_of_own_code_passes(bench: Bench, monkeypatch, line: str, expected: int):
    monkeypatch.setattr(cli, "_drop_output", lambda: None)
    own = bench.file.with_name("own.py")
    own.write_text(OWN.replace("LINE", "pass") + TASKWISE.replace("LINE", line))
    code, _, err = bench.command()
    assert code == expected and "debug=true" not in err


def test_leaving_the_debugger_ends_the_command(bench: Bench):
    bench.edit("import bdb; raise bdb.BdbQuit")
    code, _, err = bench.command("debug=true")
    assert code == 130 and "stopped" in err


def test_debug_cannot_be_swept_and_is_true_or_false(bench: Bench):
    refused = {"sweep={debug: [true]}": "not part of a run", "debug=3": "true or false"}
    for override, words in refused.items():
        with pytest.raises(UserError, match=words):
            experiment.load(bench.file, [override])


def test_debug_is_no_part_of_the_key(bench: Bench):
    plain, debug = (experiment.load(bench.file, [f"debug={d}"]).cells for d in ("false", "true"))
    assert [c.key("") for c in plain] == [c.key("") for c in debug]
    config = debug[0].config
    assert dataclasses.replace(config.train, stack="auto") == plain[0].config.train
    json.dumps(experiment.plain_config(config))
