"""Plans: which cells train together, and that a plan once begun is continued."""

import json
from pathlib import Path

import pytest
import torch

from tlresearch import experiment
from tlresearch.continual.ewc import EWC
from tlresearch.continual.online_ewc import OnlineEWC
from tlresearch.data import catalogue
from tlresearch.errors import UserError
from tlresearch.launch import plan as plans
from tlresearch.results.store import Store

BASE = """
family: continual
benchmark: {dataset: optdigits, tasks: 2}
backbone: {name: mlp, hidden: [8]}
methods: {naive: {name: naive}, ewc: {name: ewc}}
train: {steps: 3, batch_size: 8}
seeds: [0, 1]
"""
CPU = torch.device("cpu")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results", "exp")


@pytest.fixture
def make(tmp_path: Path, store: Store):
    """The plan of `BASE` with lines added and with overrides."""

    def make_(
        *overrides: str, more: str = "", device: torch.device = CPU, processes: int = 1
    ) -> plans.Plan:
        path = tmp_path / "exp.yaml"
        path.write_text(BASE + more)
        loaded = experiment.load(path, list(overrides))
        return plans.make_plan(loaded, store, device, processes=processes)

    return make_


def shape(plan: plans.Plan) -> list[tuple[str, list[tuple[str, int]]]]:
    """Method and (setting, seed) of the cells, stack by stack."""
    return [
        (stack.cells[0].method, [(cell.setting, cell.seed) for cell in stack.cells])
        for stack in plan.stacks
    ]


def partition(plan: plans.Plan) -> list[tuple[str, ...]]:
    return [stack.keys for stack in plan.stacks]


def test_seeds_of_a_method_train_together(make):
    assert shape(make()) == [("naive", [("", 0), ("", 1)]), ("ewc", [("", 0), ("", 1)])]


def test_numeric_sweeps_of_a_method_train_together(make):
    """Their values become a tensor over the stack, in the order of its cells."""
    plan = make("methods.ewc.strength=1,20")
    assert shape(plan)[1] == (
        "ewc",
        [("strength=1", 0), ("strength=1", 1), ("strength=20", 0), ("strength=20", 1)],
    )
    assert plan.stacks[1].fields == {"strength": [1.0, 1.0, 20.0, 20.0]}
    assert plan.stacks[0].fields == {}
    run = plans.stack_run(plan.stacks[1])
    assert run.seeds == [0, 1, 0, 1] and run.fields == plan.stacks[1].fields


@pytest.mark.parametrize(
    "override",
    [
        "train.lr=1e-2,1e-3",
        "train.steps=3,4",
        "backbone.dropout=0,0.5",
        "benchmark.scenario=task,class",
        "methods.ewc.fisher.labels=exact,sample",
        "methods.ewc.fisher.samples=1,2",
    ],
)
def test_what_changes_the_program_is_never_stacked(make, override: str):
    for stack in make(override).stacks:
        assert len({cell.setting for cell in stack.cells}) == 1
        assert [cell.seed for cell in stack.cells] == [0, 1]


def test_a_methods_own_training_is_a_program_of_its_own(make):
    plan = make("methods.ewc.train.lr=1,2")
    assert [[seed for _, seed in cells] for _, cells in shape(plan)] == [[0, 1]] * 3
    rates = [{cell.config.train.lr for cell in stack.cells} for stack in plan.stacks]
    assert rates == [{1e-3}, {1.0}, {2.0}]
    assert plans.stack_run(plan.stacks[2]).train.lr == 2.0


def test_two_labels_of_one_method_are_not_stacked(make):
    """Each stack belongs to one row of the plan and of the source hashes."""
    plan = make("methods={weak: {name: ewc, strength: 1}, strong: {name: ewc, strength: 9}}")
    assert [len({cell.method for cell in stack.cells}) for stack in plan.stacks] == [1, 1]


def test_the_setting_limits_a_stack(make):
    plan = make("train.stack=2", "seeds=[3, 4, 5, 6, 7]")
    sizes = [[seed for _, seed in cells] for method, cells in shape(plan) if method == "ewc"]
    assert sizes == [[3, 4], [5, 6], [7]]
    assert all(len(stack.keys) == 1 for stack in make("train.stack=1").stacks)


def test_every_cell_is_planned_once_with_its_key(make):
    plan = make("methods.ewc.strength=1,2,3", "train.stack=4")
    cells = [(cell, key) for s in plan.stacks for cell, key in zip(s.cells, s.keys, strict=True)]
    assert len({key for _, key in cells}) == len(cells) == 8
    fingerprint = catalogue.load("optdigits").fingerprint
    assert all(cell.key(fingerprint) == key for cell, key in cells)


def test_a_plan_begun_is_continued(make, store: Store):
    """Stacks on disk stay as they are; new cells follow in stacks of their own."""
    first = make("seeds=[0, 1, 2]")
    plans.write_plan(first, store)
    more = make("seeds=[0, 1, 2, 3, 4]")
    assert partition(more)[:2] == partition(first)
    assert [seeds for _, seeds in shape(more)[2:]] == [[("", 3), ("", 4)]] * 2
    plans.write_plan(more, store)
    assert partition(make("seeds=[4, 3, 2, 1, 0]")) == partition(more)


def test_a_plan_of_other_cells_is_not_continued(make, store: Store):
    plans.write_plan(make(), store)
    assert shape(make("train.steps=5")) == shape(make())
    assert not set(sum(partition(make("train.steps=5")), ())) & set(sum(partition(make()), ()))
    fewer = make("seeds=[1]")
    assert [len(stack.keys) for stack in fewer.stacks] == [1, 1]


def test_threads_are_those_of_the_plan(make, store: Store):
    plans.write_plan(plans.Plan(make().stacks, 3, "cpu"), store)
    assert make().threads == 3


def corrupt(text: str, keys: list[list[str]]) -> str:
    """A plan file with `text` as its stacks."""
    return f'{{"threads": 1, "device": "cpu", "stacks": {text}}}'.replace(
        "KEYS", json.dumps(keys[0])
    )


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "\x00\xff", '{"stacks": 3, "threads": 1}', '{"threads": 1}']
    + ['{"stacks": [], "threads": "1"}', '{"stacks": [], "threads": 0}']
    + [
        corrupt(stacks, [["k"]])
        for stacks in ("[3]", "[[]]", "[[{}]]", "[[[1]]]", '["abc"]', "[null]")
    ],
)
def test_a_damaged_plan_is_ignored(make, store: Store, text: str):
    expected = partition(make())
    store.plan_path.parent.mkdir(parents=True)
    store.plan_path.write_bytes(text.encode("latin-1"))
    plan = make()
    assert partition(plan) == expected and plan.threads >= 1


@pytest.mark.parametrize("twice", ["[KEYS, KEYS]", "[[KEY, KEY]]"])
def test_a_plan_that_names_a_cell_twice_is_no_traceback(make, store: Store, twice: str):
    keys = list(partition(make())[0])
    twice = twice.replace("KEYS", json.dumps(keys)).replace("KEY", json.dumps(keys[0]))
    store.plan_path.parent.mkdir(parents=True)
    store.plan_path.write_text(corrupt(twice, [keys]))
    planned = sorted(key for stack in make().stacks for key in stack.keys)
    assert len(planned) == len(set(planned)) == 4


def test_a_plan_file_says_on_what_it_was_made(make, store: Store):
    plan = make("methods.ewc.strength=1,2")
    plans.write_plan(plan, store)
    written = json.loads(store.plan_path.read_text())
    assert written["device"] == "cpu" and written["threads"] == torch.get_num_threads()
    assert written["versions"]["torch"] == torch.__version__
    assert set(written["versions"]) == {"tlresearch", "torch", "python"}
    assert written["stacks"] == [list(keys) for keys in partition(plan)]
    assert written["labels"] == ["naive seed 0-1", "ewc 2 settings seed 0-1"]
    configs = {(c["method"], c["setting"]): c["config"] for c in written["configs"]}
    assert set(configs) == {("naive", ""), ("ewc", "strength=1"), ("ewc", "strength=2")}
    assert configs["ewc", "strength=2"]["method"]["strength"] == 2.0
    assert configs["naive", ""]["train"]["lr"] == 1e-3  # in full, defaults too


@pytest.mark.parametrize(
    ("overrides", "size"),
    [
        ([], plans.LARGEST_STACK),
        (["train.batch_size=512", "backbone.hidden=[400, 400]"], 1),
        (["backbone={name: conv4}", "benchmark.pad=4"], 1),
        (["backbone={name: resnet20}", "benchmark.pad=4"], 1),
        (["train.stack=7"], 7),
        (["backbone={name: conv4}", "benchmark.pad=4", "train.stack=3"], 3),
    ],
)
def test_auto_stacks_small_perceptrons_on_a_cpu(tmp_path: Path, overrides: list[str], size: int):
    """Convolutions never paid; nor did steps whose arithmetic outweighs their overhead."""
    path = tmp_path / "exp.yaml"
    path.write_text(BASE)
    config = experiment.load(path, overrides).cells[0].config
    assert plans.stack_size(config, CPU) == size
    on_gpu = size if "train.stack" in " ".join(overrides) else plans.LARGEST_STACK
    assert plans.stack_size(config, torch.device("cuda")) == on_gpu


def test_the_limit_is_at_six_flops_a_parameter_and_sample(tmp_path: Path, monkeypatch):
    """64·8 + 8 + 8·10 + 10 = 610 parameters , 6 · 610 · 8 operations a step at batch 8."""
    path = tmp_path / "exp.yaml"
    path.write_text(BASE)
    config = experiment.load(path, ["benchmark.tasks=1"]).cells[0].config
    monkeypatch.setattr(plans, "CPU_STACK_FLOPS", 6 * 610 * 8)
    assert plans.stack_size(config, CPU) == plans.LARGEST_STACK
    monkeypatch.setattr(plans, "CPU_STACK_FLOPS", 6 * 610 * 8 - 1)
    assert plans.stack_size(config, CPU) == 1


def test_only_plain_fractions_of_a_method_are_stacked():
    """Not `fisher` (a group), and of the Fisher's settings none."""
    assert plans.numeric_fields(EWC()) == ["strength"]
    assert plans.numeric_fields(OnlineEWC()) == ["strength", "decay"]


def test_a_plan_says_how_many_processes_it_is_for(make, store):
    """Each seed is a stack of its own, and the plan of one process is not gone on with."""
    plans.write_plan(make(), store)
    shared = make(processes=2)
    assert [len(stack.keys) for stack in shared.stacks] == [1] * 4
    plans.write_plan(shared, store)
    assert json.loads(store.plan_path.read_text())["processes"] == 2
    assert make(processes=2).stacks == shared.stacks
    assert {len(stack.keys) for stack in make().stacks} == {2}


def test_a_batch_must_divide_into_parts(make):
    """Three processes, batches of eight: refused, naming the key."""
    with pytest.raises(UserError, match=r"train\.batch_size: 8 samples do not divide"):
        make(processes=3)
