"""Few-shot experiments that cannot work: one sentence each, exit code 2, nothing written."""

import sys
from pathlib import Path

import pytest
from peers import peer
from small_fewshot import use

from tlresearch import cli, experiment
from tlresearch.data import class_tables
from tlresearch.data.lake import find_runs
from tlresearch.errors import UserError
from tlresearch.launch import outputs
from tlresearch.launch import plan as plans
from tlresearch.results.store import Store
from tlresearch.training import device

FILE = """
family: fewshot
benchmark: {dataset: glyphs, episodes: 20}
backbone: {name: mlp, hidden: [8]}
methods: {protonet: {name: protonet}, maml: {name: maml, tasks: 2}}
train: {steps: 2}
seeds: [0, 1]
"""
OMNIGLOT = "benchmark.dataset=omniglot"
SINUSOID = "benchmark={dataset: sinusoid, shots: 5, queries: 5}"
LAKE = "benchmark={dataset: omniglot, draw: lake, ways: 20, shots: 1, queries: 1, episodes: 20}"
MAML_ONLY = "methods={maml: {name: maml}}"

CASES = {
    "more ways than classes": (
        ["benchmark.ways=122"],
        "benchmark.ways: 122 ways, but the test part of glyphs has 121 classes; ask for "
        "at most 121",
    ),
    "more ways than there are to select by": (
        [
            *("benchmark.ways=100", "benchmark.queries=2", "methods.protonet.train_ways=5"),
            *("train.checkpoint=selected", "train.evaluate_every=1", "methods.maml.name=protonet"),
            *("methods.maml.tasks=1", "methods.maml.train_ways=5"),
        ],
        "benchmark.ways: 100 ways, but the validation part of glyphs, by which weights are "
        "selected, has 72 classes",
    ),
    "the training classes as a target": (
        ["benchmark.target=glyphs"],
        "benchmark.target: glyphs is what methods are trained on",
    ),
    "groups of a set without groups": (
        ["benchmark.target=mnist5k", "benchmark.draw=group", "benchmark.size=28"],
        "benchmark.draw: the classes of mnist5k have no groups",
    ),
    "one way": (["benchmark.ways=1"], "benchmark.ways: one way is always right"),
    "one way in training": (
        ["methods.protonet.train_ways=1"],
        "methods.protonet.train_ways: one way is always right",
    ),
    "a peer's engine compiled": (
        ["methods.maml.engine=higher", "train.compile=true"],
        "methods.maml.engine: higher cannot be compiled",
    ),
    "one loss of several": (
        ["methods.maml.multi_step_loss=50"],
        "methods.maml.multi_step_loss: one inner step has one loss",
    ),
    "weights that follow the passes": (
        [
            *("methods.maml.multi_step_loss=50", "methods.maml.inner_steps=2"),
            "train.accumulate=2",
        ],
        "methods.maml.multi_step_loss: its weights follow the passes",
    ),
    "episodes for who trains on none": (
        ["methods={s: {name: simpleshot, train_ways: 9}}"],
        "methods.s.train_ways: SimpleShot trains on no episodes",
    ),
    "ways of functions": (
        ["benchmark={dataset: sinusoid, ways: 7}", MAML_ONLY],
        "benchmark.ways: the sinusoids are functions",
    ),
    "training ways of functions": (
        [SINUSOID, "methods={maml: {name: maml, train_ways: 9}}"],
        "methods.maml.train_ways: the sinusoids have no classes",
    ),
    "an error where there are classes": (
        ["metrics=[mse]"],
        "'metrics' names 'mse', which no run of this table has",
    ),
    "a step that no curve reaches": (
        ["metrics=[acc_7]"],
        "'metrics' names 'acc_7', which no run of this table has",
    ),
    "more ways than validation classes": (
        ["benchmark.ways=73", "benchmark.evaluate=validation"],
        "the validation part of glyphs has 72 classes",
    ),
    "more training ways than classes": (
        ["methods.protonet.train_ways=301"],
        "methods.protonet.train_ways: 301 ways, but the training part of glyphs has 300 classes",
    ),
    "more samples than images": (
        ["benchmark.shots=6"],
        "benchmark.shots, benchmark.queries: 6 shots and 15 queries of a class, but the test part "
        "of glyphs has 20 images a class; ask for at most 20 together",
    ),
    "more training samples than images": (
        ["methods.protonet.train_queries=20"],
        "benchmark.shots, methods.protonet.train_queries: 1 shots and 20 queries",
    ),
    "0 shots": (["benchmark.shots=0"], "'benchmark.shots' must be a number at least 1, not 0"),
    "0 training shots": (["methods.protonet.train_shots=0"], "'methods.protonet.train_shots'"),
    "0 queries": (["benchmark.queries=0"], "'benchmark.queries' must be a number at least 1"),
    "0 episodes": (["benchmark.episodes=0"], "'benchmark.episodes' must be a number at least 1"),
    "another head than in the test": (
        ["methods.maml.train_ways=9"],
        "methods.maml.train_ways: MAML has an output for each way, so it trains with as many as it "
        "is tested with, 5; leave the key out",
    ),
    "unknown data set": (
        ["benchmark.dataset=omniglto"],
        "benchmark.dataset: unknown data set 'omniglto'; did you mean omniglot or mnist?",
    ),
    "unknown split": (
        [OMNIGLOT, "benchmark.split=vinyal"],
        "benchmark.split: omniglot has no split 'vinyal'; did you mean vinyals?",
    ),
    "unknown target": (["benchmark.target=minst"], "benchmark.target: unknown data set 'minst'"),
    "a target without validation classes": (
        ["benchmark.target=mnist", "benchmark.evaluate=validation"],
        "benchmark.evaluate: the validation part of mnist has no classes",
    ),
    "a split without validation classes": (
        [OMNIGLOT, "benchmark.split=background", "benchmark.evaluate=validation"],
        "benchmark.evaluate: the validation part of omniglot has no classes",
    ),
    "nothing to select by": (
        [OMNIGLOT, "benchmark.split=background", "train.checkpoint=selected"],
        "train.checkpoint: 'selected' needs validation classes",
    ),
    "nothing to train on": (
        ["benchmark.split=all", "methods={simpleshot: {name: simpleshot}}"],
        "benchmark.split: SimpleShot learns from training classes, and this split of glyphs has "
        "none",
    ),
    "a regression on images": (
        ["methods.maml={name: pretrained}"],
        "methods.maml: Pretrained learns a regression; give benchmark.dataset: sinusoid",
    ),
    "a classifier of sinusoids": (
        [SINUSOID],
        "methods.protonet: PrototypicalNetwork classifies, and the sinusoids are a regression; "
        "choose one such as maml",
    ),
    "turned sinusoids": (
        [SINUSOID, MAML_ONLY, "benchmark.rotations=true"],
        "benchmark.rotations: the sinusoids are functions, not images; remove the key",
    ),
    "groups of sinusoids": ([SINUSOID, MAML_ONLY, "benchmark.draw=group"], "functions without"),
    "Lake's ways": ([LAKE, "benchmark.ways=5"], "benchmark.ways: Lake's runs have 20; write"),
    "Lake's shots": ([LAKE, "benchmark.shots=5"], "benchmark.shots: Lake's runs have 1"),
    "Lake's queries": ([LAKE, "benchmark.queries=5"], "benchmark.queries: Lake's runs have 1"),
    "Lake's episodes": ([LAKE, "benchmark.episodes=99"], "benchmark.episodes: Lake's runs have 20"),
    "Lake's runs of glyphs": (
        [LAKE, "benchmark.dataset=glyphs", "benchmark.ways=5"],
        "benchmark.draw: Lake's runs are of omniglot",
    ),
    "an engine and its limits": (
        ["methods.maml.engine=higher", "methods.maml.task_chunk=2"],
        "methods.maml.task_chunk: higher takes one task at a time",
    ),
    "an unknown engine": (["methods.maml.engine=l2l"], "'methods.maml.engine' must be one of func"),
    "an unknown method": (["methods.maml.name=mmal"], "did you mean 'maml'"),
    "an inner learning rate of 0": (["methods.maml.inner_lr=0"], "'methods.maml.inner_lr' must be"),
    "a size too small": (["benchmark.size=4"], "'benchmark.size' must be a number at least 8"),
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    monkeypatch.setattr(outputs, "_write_figures", lambda *args: [])
    path = tmp_path / "exp.yaml"
    path.write_text(FILE)
    return path


def refusal(file: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence; the results folder, which a run makes, is not there."""
    results = file.parent / "results"
    code = cli.main(["run", str(file), *words, "--results", str(results)])
    out, err = capsys.readouterr()
    assert code == 2 and not results.exists(), out + err
    assert err.startswith("tlresearch: ") and err.count("\n") == 1 and "Traceback" not in err
    assert len(err) < 1000
    return err


@pytest.mark.parametrize(("words", "expected"), CASES.values(), ids=CASES)
def test_bad_input_is_one_sentence(file, capsys, words, expected):
    """Before data are read."""
    err = refusal(file, capsys, *words)
    assert expected in err and str(file) in err


@pytest.mark.parametrize(
    ("engine", "command"),
    [
        ("higher", "pip install 'tlresearch[compare]'"),
        ("learn2learn", "pip install --no-deps -r requirements-learn2learn.txt"),
    ],
)
def test_an_engine_that_is_not_installed(file, capsys, monkeypatch, engine, command):
    """The sentence says how to install it."""
    monkeypatch.setitem(sys.modules, engine, None)
    err = refusal(file, capsys, f"methods.maml.engine={engine}")
    assert f"methods.maml.engine: {engine} cannot be imported" in err
    assert f"install it by {command}, or set engine: func" in err


def test_more_ways_than_a_group_has(file, capsys, monkeypatch):
    """Known once the classes are loaded, and said before anything is trained."""
    use(monkeypatch)
    err = refusal(file, capsys, "benchmark.draw=group", "benchmark.queries=1")
    assert "5 ways within a group, but even has 3 classes here; ask for at most 3" in err
    samples = ["benchmark.ways=3", "benchmark.shots=4", "benchmark.queries=4"]
    assert cli.main(["run", str(file), "benchmark.draw=group", *samples, "--dry-run"]) == 0


def test_lakes_runs_that_are_not_there(file, capsys, monkeypatch):
    """Said before training, too."""
    splits = use(monkeypatch)
    monkeypatch.setattr("tlresearch.data.lake._places", find_runs)
    monkeypatch.delenv("TLRESEARCH_DATA", raising=False)
    facts = class_tables.Facts((1, 6, 6), 40, 5, 20, 8)
    monkeypatch.setattr(class_tables, "facts", lambda *args: facts)
    assert splits.test.classes == 6
    assert "Lake's one-shot runs are not here" in refusal(file, capsys, LAKE)


def test_splits_that_overlap(file, capsys, monkeypatch):
    """A class in two parts of a split."""
    monkeypatch.setitem(class_tables._SIZES, "optdigits", (4, 2))
    monkeypatch.setitem(class_tables._SPLITS, "optdigits", ("standard",))
    parts = (range(4), range(3, 6), range(6, 10))
    monkeypatch.setattr(class_tables, "parts", lambda *args: parts)
    words = ["benchmark={dataset: optdigits, ways: 3}"]
    err = refusal(file, capsys, *words)
    assert "the train and validation classes of the split overlap: 1 in both, such as '3'" in err


def test_an_inner_learning_rate_that_gives_nan_stops_its_runs_and_no_others(
    file, capsys, monkeypatch
):
    """The step is named, the other rows are there, and the command ends with 1 as for any
    failed run."""
    use(monkeypatch)
    results = file.parent / "results"
    words = ["benchmark.queries=3", "methods.maml.inner_lr=1e30", "methods.maml.inner_steps=3"]
    code = cli.main(["run", str(file), *words, "train.steps=4", "--results", str(results)])
    out, err = capsys.readouterr()
    assert code == 1 and "Traceback" not in err
    records = Store(results, "exp").read()
    failed = {(r["method"], r["seed"]): r["reason"] for r in records if r["status"] == "failed"}
    assert failed.keys() == {("maml", 0), ("maml", 1)} and len(records) == 4
    expected = (
        "the loss was nan at step 0 of meta-training, of 3 inner steps at a rate of 1e+30 "
        "(inner_lr)"
    )
    assert all(reason == expected for reason in failed.values())
    assert expected in out


STACKS = ["train.stack=2", "train.stack=auto", "debug=true"]


@pytest.mark.parametrize("how", STACKS)
@pytest.mark.parametrize("engine", ["func", "higher"])
def test_a_peers_engine_is_planned_one_seed_at_a_time(file, capsys, monkeypatch, engine, how):
    """And runs so, where our own stacks."""
    peer("higher")
    use(monkeypatch)
    results = file.parent / "results"
    words = [f"methods={{maml: {{name: maml, engine: {engine}}}}}", "benchmark.queries=3", how]
    assert cli.main(["run", str(file), *words, "--results", str(results)]) == 0
    table = "exp+debug" if how == "debug=true" else "exp"
    sizes = {record["stack"] for record in Store(results, table).read()}
    assert sizes == ({2} if engine == "func" and how != "debug=true" else {1})


def test_a_stack_planned_for_our_engine_is_not_run_by_a_peers(file, monkeypatch):
    """A plan on disk is continued; what can no longer be one program is taken apart."""
    peer("higher")
    use(monkeypatch)
    store = Store(file.parent / "results", "exp")
    words = ["methods={maml: {name: maml}}", "benchmark.queries=3"]
    loaded = experiment.load(file, words)
    made = plans.make_plan(loaded, store, device.choose_device("cpu"))
    plans.write_plan(made, store)
    assert [len(stack.keys) for stack in made.stacks] == [2]
    monkeypatch.setattr("tlresearch.fewshot.maml.MAML.stackable", False)
    again = plans.make_plan(loaded, store, device.choose_device("cpu"))
    assert [len(stack.keys) for stack in again.stacks] == [1, 1]


def test_several_processes_are_refused_by_the_plan(file, monkeypatch):
    """All processes meet it together, so that the command says it once."""
    use(monkeypatch)
    loaded = experiment.load(file, ["benchmark.queries=3"])
    store = Store(file.parent / "results", "exp")
    with pytest.raises(UserError, match=r"^family: fewshot trains in one process.*torchrun"):
        plans.make_plan(loaded, store, device.choose_device("cpu"), processes=2)
