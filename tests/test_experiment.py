"""Experiment files: their cells, overrides and keys, and what is refused."""

import dataclasses
import random
from pathlib import Path

import pytest
import yaml

from tlresearch import experiment
from tlresearch.continual.ewc import EWC
from tlresearch.continual.naive import Naive
from tlresearch.errors import UserError
from tlresearch.launch.outputs import output_name

BASE = {
    "family": "continual",
    "benchmark": {"dataset": "optdigits"},
    "backbone": {"name": "mlp", "hidden": [8]},
    "methods": {"naive": {"name": "naive"}, "ewc": {"name": "ewc"}},
    "train": {"steps": 3},
    "seeds": [0, 1],
}


@pytest.fixture
def load(tmp_path: Path):
    """Loads `BASE` with top-level keys changed, and with overrides."""

    def load_(*overrides: str, **changes) -> experiment.Experiment:
        path = tmp_path / "exp.yaml"
        path.write_text(yaml.safe_dump(BASE | changes, sort_keys=False))
        return experiment.load(path, list(overrides))

    return load_


@pytest.fixture
def refusal(load):
    """The one sentence with which an experiment is refused."""

    def refusal_(*overrides: str, **changes) -> str:
        with pytest.raises(UserError) as caught:
            load(*overrides, **changes)
        message = str(caught.value)
        assert "\n" not in message and ("exp.yaml" in message or "argument '" in message)
        return message

    return refusal_


def rows(made: experiment.Experiment) -> list[tuple[str, str, int]]:
    return [(cell.method, cell.setting, cell.seed) for cell in made.cells]


def strengths(made: experiment.Experiment) -> list[tuple[str, float]]:
    """(setting, strength) of the cells of EWC with seed 0."""
    cells = [cell for cell in made.cells if cell.method == "ewc" and cell.seed == 0]
    return [(cell.setting, cell.config.method.strength) for cell in cells]


def keys(made: experiment.Experiment, fingerprint: str = "data") -> list[str]:
    return [cell.key(fingerprint) for cell in made.cells]


def test_cells_are_methods_times_seeds_in_order(load):
    made = load()
    expected = [("naive", "", 0), ("naive", "", 1), ("ewc", "", 0), ("ewc", "", 1)]
    assert rows(made) == expected
    assert [type(cell.config.method) for cell in made.cells] == [Naive, Naive, EWC, EWC]
    assert {cell.config.train.steps for cell in made.cells} == {3}
    assert made.method_labels == ["naive", "ewc"] and made.setting_labels == [""]


def test_settings_and_sweeps_multiply_in_order(load):
    """Settings outermost, then the general sweep, methods, a method's own sweep, seeds."""
    made = load(
        settings={"b": {"benchmark.scenario": "task"}, "a": {"benchmark.scenario": "domain"}},
        sweep={"train.lr": [0.1, 1e-3], "methods.ewc.strength": [1, 2]},
    )
    expected = [
        (method, ", ".join(filter(None, [name, lr, own])), seed)
        for name in ("b", "a")
        for lr in ("lr=0.1", "lr=0.001")
        for method, owns in (("naive", [""]), ("ewc", ["strength=1", "strength=2"]))
        for own in owns
        for seed in (0, 1)
    ]
    assert rows(made) == expected
    cell = next(c for c in made.cells if c.setting == "a, lr=0.001, strength=2")
    config = cell.config
    assert (config.benchmark.scenario, config.train.lr) == ("domain", 1e-3)
    assert config.method.strength == 2.0


def test_a_sweep_over_several_keys_is_their_product(load):
    made = load(sweep={"methods.ewc.strength": [1, 2], "methods.ewc.fisher.samples": [8, 9]})
    expected = [f"strength={s}, samples={n}" for s in (1, 2) for n in (8, 9)]
    assert [setting for setting, _ in strengths(made)] == expected


def test_a_scalar_override_replaces_and_creates(load):
    made = load("train.steps=7", "train.lr=1e-2", "methods.ewc.fisher.labels=sample")
    assert {(c.config.train.steps, c.config.train.lr) for c in made.cells} == {(7, 0.01)}
    assert made.cells[-1].config.method.fisher.labels == "sample"
    assert len(made.cells) == 4 and made.overrides[0] == "train.steps=7"


def test_a_list_for_a_list_field_does_not_sweep(load):
    made = load("backbone.hidden=[16, 4]", "seeds=[5, 6, 7]")
    assert {cell.config.backbone.hidden for cell in made.cells} == {(16, 4)}
    assert [cell.seed for cell in made.cells] == [5, 6, 7] * 2


def test_commas_sweep_a_scalar(load):
    made = load("methods.ewc.strength=1,2e1,3")
    assert strengths(made) == [("strength=1", 1), ("strength=20", 20), ("strength=3", 3)]
    assert sum(cell.method == "naive" for cell in made.cells) == 2
    made = load("benchmark.scenario=task,class")
    assert made.setting_labels == ["scenario=task", "scenario=class"] and len(made.cells) == 8


def test_commas_do_not_sweep_a_list_field(refusal):
    """`hidden=8,8` would be one list for some and two runs for others."""
    assert "must be a list" in refusal("backbone.hidden=8,8")
    assert "must be a list" in refusal("seeds=0,1")


def test_commas_in_a_text_are_not_a_sweep(load):
    assert len(load("title=Strong, then weak").cells) == 4


def test_an_override_of_a_swept_key_ends_its_sweep(load):
    sweep = {"methods.ewc.strength": [1, 2]}
    assert strengths(load("methods.ewc.strength=5", sweep=sweep)) == [("", 5.0)]
    made = load("methods.ewc.strength=6,7", sweep=sweep)
    assert strengths(made) == [("strength=6", 6.0), ("strength=7", 7.0)]


def test_an_override_is_not_silently_undone_by_a_setting(load):
    """It wins, or is refused with a sentence; the file's value must not run under its name."""
    settings = {"weak": {"methods.ewc.strength": 1}}
    try:
        made = load("methods.ewc.strength=5", settings=settings)
    except UserError:
        return
    assert [strength for _, strength in strengths(made)] == [5.0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.steps", "expected dotted.key=value"),
        ("=3", "expected dotted.key=value"),
        ("trian.steps=3", "did you mean 'train'"),
        ("train.stesp=3", "unknown key 'train.stesp'; did you mean 'steps'"),
        ("methods.ewk.strength=3", "no method is labelled 'ewk'; did you mean 'ewc'"),
        ("methods.ewc.lambda=3", "it is called 'strength' here"),
        ("train.steps.x=3", "'train.steps' is 3, not a group of settings"),
        ("train=3", "key 'train' must be keys and values"),
        ("train.steps=", "key 'train.steps' must be a whole number, not nothing"),
        ("train.steps=[1", "not valid YAML"),
        ("train.steps=1,x", "key 'train.steps' must be a whole number"),
        ("model=mlp", "it is called 'backbone' here"),
    ],
)
def test_a_wrong_override_is_refused(refusal, override: str, words: str):
    assert words in refusal(override)


def test_keys_do_not_depend_on_labels_order_or_layout(load, tmp_path):
    """The label of a method, the order of keys and methods, comments and quotes do not count."""
    known = set(keys(load()))
    relabelled = BASE["methods"]["ewc"], BASE["methods"]["naive"]
    assert set(keys(load(methods=dict(zip("ab", relabelled, strict=True))))) == known
    items = list(BASE.items())
    random.Random(0).shuffle(items)
    other = tmp_path / "other.yaml"
    other.write_text("# a comment\n" + yaml.safe_dump(dict(items), default_flow_style=True))
    assert set(keys(experiment.load(other))) == known
    assert set(keys(load("title=x", settings={"a": {}}))) == known


def test_keys_do_not_depend_on_defaults_written_out(load):
    """So a new field whose default is the old behaviour keeps old keys."""
    written = load(
        benchmark={"dataset": "optdigits", "stream": "split", "tasks": 5.0, "pad": 0},
        methods={
            "naive": {"name": "naive"},
            "ewc": {"name": "ewc", "strength": 400, "fisher": {"labels": "exact", "batch": 1}},
        },
        train={"steps": 3, "lr": 1e-3, "betas": [0.9, 0.999], "stack": "auto"},
    )
    assert keys(written) == keys(load())


@pytest.mark.parametrize(
    "override",
    [
        *("train.steps=4", "train.lr=2e-3", "train.precision=fp64", "train.schedule=cosine"),
        *("train.optimizer=sgd", "train.batch_size=64", "train.betas=[0.8, 0.999]"),
        *("benchmark.tasks=2", "benchmark.scenario=task", "benchmark.validation=0.1"),
        *("benchmark.class_order=random", "benchmark.pad=1", "backbone.hidden=[8, 8]"),
        *("backbone.dropout=0.1", "backbone={name: conv4}", "seeds=[2, 3]"),
    ],
)
def test_keys_change_with_every_setting(load, override: str):
    assert not set(keys(load(override))) & set(keys(load()))


def test_keys_tell_methods_their_settings_seeds_and_data_apart(load):
    plain = keys(load())
    assert len(set(plain)) == 4
    assert not set(keys(load(), "other data")) & set(plain)
    for override in ("strength=401", "fisher.labels=sample", "fisher.samples=10"):
        changed = keys(load(f"methods.ewc.{override}"))
        assert changed[:2] == plain[:2] and not set(changed[2:]) & set(plain)
    online = load(methods={"ewc": {"name": "online_ewc"}, "naive": {"name": "naive"}})
    assert not set(keys(online)[:2]) & set(plain)


def test_a_key_is_a_hash_in_hexadecimal(load):
    cell = load().cells[0]
    assert len(cell.key("data")) == 64 and int(cell.key("data"), 16) >= 0
    assert cell.key("data") == dataclasses.replace(cell, method="x", setting="y").key("data")


def test_plain_config_keeps_or_leaves_out_defaults():
    short = experiment.plain_config(EWC(strength=3.0), defaults=False)
    assert short == {"kind": "EWC", "strength": 3.0}
    whole = experiment.plain_config(EWC(strength=3.0))
    assert whole["fisher"]["labels"] == "exact" and whole["strength"] == 3.0


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("experiments/continual/split.yaml", "continual/split"),
        ("experiments/a/experiments/b/c.yaml", "b/c"),
        ("elsewhere/split.yaml", "split"),
        ("experiments.yaml", "experiments"),
        ("experiments/split.v2.yaml", "split.v2"),
    ],
)
def test_a_table_is_named_after_its_place(path: str, name: str):
    assert experiment.table_name(Path("/home") / path) == name


def test_overrides_do_not_overwrite_the_table_of_the_plain_file(load):
    names = [output_name(load(*o)) for o in ([], ["train.steps=4"], ["train.steps=5"])]
    assert names[0] == "exp" and len(set(names)) == 3
    both = ["train.steps=4", "train.lr=1"]
    assert output_name(load(*both)) == output_name(load(*both[::-1]))


def published(**changes) -> list[dict]:
    row = {"method": "ewc", "value": 90.0}
    block = {"source": "a paper", "metric": "acc", "rows": [row]}
    for key, value in changes.items():
        (block if key == "metric" else row)[key] = value
    return [block]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": {}}, "key 'methods' is empty"),
        ({"methods": {"a": {}}}, "key 'methods.a.name' is missing"),
        ({"backbone": {"name": "resnet2"}}, "or 'resnet20'"),
        ({"backbone": {}}, "key 'backbone.name' is missing"),
        ({"seeds": [0, 1, 0]}, "key 'seeds' names a seed twice"),
        ({"seeds": [0, -1]}, "key 'seeds' must be whole numbers from 0"),
        ({"seeds": [2**63]}, "key 'seeds' must be whole numbers from 0"),
        ({"metrics": ["accuracy"]}, "unknown metric 'accuracy' in 'metrics'"),
        ({"settings": {"a": {"methods.ewk.strength": 3}}}, "did you mean 'ewc'"),
        ({"sweep": {"methods.ewc": [{"name": "ewc"}]}}, "methods.ewc"),
        ({"published": published(method="ewk")}, "names method 'ewk'; did you mean 'ewc'?"),
        ({"published": published(setting="tsk")}, "'published' names setting 'tsk'"),
        ({"published": published(metric="ac")}, "'ac' in 'published'; did you mean 'acc'?"),
        ({"published": published(value="x")}, "key 'published[0].rows[0].value'"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused(refusal, changes: dict, words: str):
    """More of them in test_bad_input.py."""
    assert words in refusal(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"settings": {"one": {"train.steps": 2}}},
        {"settings": {"both": {"train.steps": 2}, "two": {"train.steps": 4}}},
        {
            "settings": {"one": {"train.steps": 2}, "two": {"train.steps": 4}},
            "sweep": {"train.lr": [0.1, 0.2]},
        },
    ],
)
def test_a_mean_needs_settings_and_a_name_of_its_own(refusal, load, changes: dict):
    assert "'mean' names the mean over several 'settings'" in refusal(mean="both", **changes)
    settings = {"one": {"train.steps": 2}, "two": {"train.steps": 4}}
    assert load(mean="both", settings=settings).header.mean == "both"


@pytest.mark.parametrize("axis", ["acc", "forgeting", "bwt"])
def test_the_axis_of_a_sweep_is_a_further_column(refusal, load, axis: str):
    """Neither the metric that is drawn, nor one that the table lacks."""
    changes = {"metrics": ["acc", "forgetting"], "sweep": {"train.lr": [0.1, 0.2]}}
    message = refusal(sweep_axis=axis, **changes)
    assert "'sweep_axis' must be a metric of the table after its first" in message
    assert axis != "forgeting" or "did you mean 'forgetting'?" in message
    assert load(sweep_axis="forgetting", **changes).header.sweep_axis == "forgetting"


def test_a_scenario_that_a_method_cannot_do_is_refused(refusal, load, monkeypatch):
    monkeypatch.setattr(EWC, "scenarios", ("task", "domain"))
    message = refusal("benchmark.scenario=class")
    assert "methods.ewc: EWC cannot do the scenario 'class'; it can do task, domain" in message
    load("benchmark.scenario=task")


def test_published_numbers_of_known_rows_are_kept(load):
    made = load(
        settings={"task": {"benchmark.scenario": "task"}}, published=published(setting="task")
    )
    assert made.header.published[0].rows[0].setting == "task"
    load("train.lr=1,2", published=published(setting="lr=1"))


OWN = {"naive": {"name": "naive"}, "ewc": {"name": "ewc", "train": {"lr": 0.5, "steps": 7}}}
"""EWC with training settings of its own."""


def trained(made: experiment.Experiment, method: str) -> list[tuple[str, float, int]]:
    """(setting, lr, steps) of the rows of a method."""
    cells = [cell for cell in made.cells if cell.method == method and cell.seed == 0]
    return [(c.setting, c.config.train.lr, c.config.train.steps) for c in cells]


def test_a_methods_own_training_goes_over_the_tables(load):
    """What it does not name is the table's; the other methods notice nothing."""
    made = load(methods=OWN, train={"steps": 3, "batch_size": 16})
    assert trained(made, "naive") == [("", 1e-3, 3)] and trained(made, "ewc") == [("", 0.5, 7)]
    assert {cell.config.train.batch_size for cell in made.cells} == {16}
    plain = load(train={"steps": 3, "batch_size": 16})
    assert keys(made)[:2] == keys(plain)[:2] and not set(keys(made)[2:]) & set(keys(plain))
    table = load(train={"steps": 7, "batch_size": 16, "lr": 0.5})
    assert keys(made)[2:] == keys(table)[2:]  # a key is what a run depends on, however written


def test_own_training_is_swept_set_and_overridden_by_its_dotted_key(load):
    swept = load(sweep={"methods.ewc.train.lr": [1, 2]})
    assert trained(swept, "ewc") == [("lr=1", 1, 3), ("lr=2", 2, 3)]
    assert trained(swept, "naive") == [("", 1e-3, 3)]
    settings = {"short": {"methods.ewc.train.steps": 1}, "long": {"train.steps": 9}}
    made = load(methods=OWN, settings=settings)
    assert trained(made, "ewc") == [("short", 0.5, 1), ("long", 0.5, 7)]
    assert trained(made, "naive") == [("short", 1e-3, 3), ("long", 1e-3, 9)]
    assert trained(load("methods.ewc.train.lr=3", methods=OWN), "ewc") == [("", 3, 7)]
    assert trained(load("methods.ewc.train.lr=3,4"), "ewc") == [("lr=3", 3, 3), ("lr=4", 4, 3)]


def test_the_command_line_goes_before_a_methods_own_training(load):
    """Else `train.steps=2` would shorten some methods and not others."""
    made = load("train.steps=2", methods=OWN, settings={"a": {"methods.ewc.train.steps": 8}})
    assert trained(made, "ewc") == [("a", 0.5, 2)] and trained(made, "naive") == [("a", 1e-3, 2)]
    made = load("train.lr=1,2", methods=OWN)
    assert trained(made, "ewc") == [("lr=1", 1, 7), ("lr=2", 2, 7)]


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"stesp": 3}, "unknown key 'methods.ewc.train.stesp'; did you mean 'steps'"),
        ({"lr": -1}, "key 'methods.ewc.train.lr' must be a number above 0"),
        (3, "key 'methods.ewc.train' must be keys and values"),
        (None, "key 'methods.ewc.train' must be keys and values"),
        (
            {"momentum": 0.9},
            "'methods.ewc.train' over 'train': train.momentum: optimizer 'adam' does not use it",
        ),
    ],
)
def test_wrong_training_of_one_method_is_refused_by_its_place(refusal, train, words: str):
    assert words in refusal(methods={"ewc": {"name": "ewc", "train": train}})


def test_a_sweep_of_all_training_that_a_method_does_not_follow_is_refused(refusal):
    """Its row would be named `lr=1` and have run with another rate."""
    for wrong in (
        {"methods": OWN, "sweep": {"train.lr": [1, 2]}},
        {"sweep": {"train.lr": [1, 2], "methods.ewc.train.lr": [3, 4]}},
        {"methods": OWN, "select": {"grid": {"train.lr": [1, 2]}, "seeds": [9]}},
    ):
        message = refusal(**wrong)
        assert "'train.lr', which 'ewc' does not follow" in message
        assert "'methods.ewc.train.lr'" in message
