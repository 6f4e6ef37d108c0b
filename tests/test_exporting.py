"""Weights that are kept, found and exported, and load elsewhere."""

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tlresearch import __version__, backbones, cli, experiment, exporting
from tlresearch.errors import UserError
from tlresearch.launch import local, outputs, plan
from tlresearch.results import weights as kept
from tlresearch.results.store import Store
from tlresearch.training import device

BASE = """
family: continual
benchmark: {dataset: optdigits, tasks: 2, scenario: task, pad: 1}
backbone: {name: mlp, hidden: [8], norm: batch, dropout: 0.2}
methods: {ewc: {name: ewc}}
train: {steps: 3, batch_size: 8, lr: 0.05, precision: fp64}
settings: {a b: {train.lr: 0.05}, c: {train.lr: 0.01}}
seeds: [0, 1]
"""


def run(*overrides: str, results: str = "results", weights: bool = True) -> None:
    """Runs the experiment as the command does, without its tables."""
    file = Path("tiny.yaml")
    file.write_text(BASE)
    made = experiment.load(file, list(overrides))
    plan_store = Store(Path(results), outputs.output_name(made))
    planned = plan.make_plan(made, plan_store, torch.device("cpu"))
    plan.write_plan(planned, plan_store)
    store = Store(Path(results), made.name)
    local.run(local.Work(made, planned, store, torch.device("cpu"), weights=weights))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of the experiment: two settings, a stack of two seeds each."""
    folder = tmp_path_factory.mktemp("finished")
    with contextlib.chdir(folder):
        run()
    return folder


@pytest.fixture
def here(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of the results."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(pattern: str) -> list[Path]:
    return sorted(Path("results/records").rglob(pattern))


def refusal(run: str, results: Path = Path("results"), **options: Any) -> str:
    """The sentence with which an export is refused; nothing is written."""
    before = sorted(Path().rglob("*"))
    with pytest.raises(UserError) as refused:
        exporting.export(run, results, options.get("target"), options.get("force", False))
    assert sorted(Path().rglob("*")) == before
    return str(refused.value)


def load_as_printed(lines: list[str], **names: Any) -> nn.Module:
    """The module that the printed lines make."""
    exec("\n".join(lines), names)
    return names["model"].eval()


def test_every_finished_run_keeps_its_weights_beside_its_record(here):
    """With metadata that say which run it is."""
    records = files("seed*.json")
    assert len(records) == 4
    assert files("*.safetensors") == [path.with_suffix(".safetensors") for path in records]
    for path in records:
        record = json.loads(path.read_text())
        _, about = kept.read(path.with_suffix(".safetensors"))
        assert json.loads(about.pop("config")) == record["config"]
        assert about.pop("tlresearch") == __version__ and about.pop("table") == "tiny"
        assert about == {k: str(record[k]) for k in ("key", "method", "setting", "seed")}


def test_weights_beside_a_record_are_its_own(here):
    """A run that is made again without keeping them leaves no older ones; the others' stay."""
    first, second, *_ = files("*.safetensors")
    old = second.read_bytes()
    first.with_suffix(".json").unlink()
    run("seeds=[0]", "settings={a b: {train.lr: 0.05}}", weights=False)
    assert first.with_suffix(".json").exists() and not first.exists()
    assert second.read_bytes() == old
    assert "--rerun all" in refusal("tiny/ewc/a b/seed0")


def test_a_failed_run_keeps_none(here):
    """It has no final weights, and an export says why."""
    run("train.lr=1e200", "train.optimizer=sgd", "settings={}", "seeds=[0]")
    assert len(files("seed*.json")) == 5 and len(files("*.safetensors")) == 4
    assert "failed (the loss was" in refusal("tiny/ewc/seed0")


def test_the_command_keeps_none_if_told_so(here, monkeypatch):
    """`--no-weights`."""
    told = []
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    monkeypatch.setattr(local, "run", lambda work, again: told.append(work.weights))
    words = ["run", "tiny.yaml", "seeds=[7]", "settings={}"]
    assert cli.main(words) == 0 and cli.main([*words, "--no-weights"]) == 0
    assert told == [True, False]


def test_weights_are_there_before_the_record(tmp_path, monkeypatch):
    """A process that ends between the two has lost nothing."""

    def stop(store, record):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Store, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(files("*.safetensors")) == 1 and not files("seed*.json")


def test_exporting_a_seed_of_a_stack_equals_that_seed_alone(here):
    """In float64, names, order and shapes too; linear layers lie turned in a stack."""
    run("train.stack=1", results="alone")
    paths = files("*.safetensors")
    assert len(paths) == 4
    assert {json.loads(path.read_text())["stack"] for path in files("seed*.json")} == {2}
    for path in paths:
        stacked, alone = load_file(path), load_file("alone" / path.relative_to("results"))
        assert list(stacked) == list(alone) and "head.weight" in stacked
        assert not any("key" in name for name in stacked)
        for name, value in stacked.items():
            assert value.dtype == (torch.int64 if "batches" in name else torch.float64)
            torch.testing.assert_close(value, alone[name], atol=1e-9, rtol=0)
    first, other = (load_file(path)["head.weight"] for path in paths[:2])
    assert not torch.equal(first, other)


def test_the_printed_lines_load_what_was_trained(here, capsys):
    """Into a network of ours; by the command."""
    assert cli.main(["export", "tiny/ewc/a b/seed1", "--to", "out.safetensors"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "Written: out.safetensors" and len(lines) == 4
    model = load_as_printed(lines)
    (path,) = files("ewc/a%20b/seed1*.safetensors")
    for name, value in load_file(path).items():
        assert torch.equal(model.state_dict()[name], value)
    assert model(torch.zeros(2, 1, 10, 10).double()).shape == (2, 10)


def test_a_run_is_named_by_path_by_labels_or_by_key(here):
    """All of them mean the same file."""
    (record,) = files("ewc/a%20b/seed1*.json")
    weights = record.with_suffix(".safetensors")
    key = json.loads(record.read_text())["key"]
    for name in (str(record), str(weights), "tiny/ewc/a b/seed1", "tiny/ewc/a%20b/seed1", key[:8]):
        assert exporting.find(name, Path("results")) == weights
    target, _ = exporting.export(key, Path("results"), None, False)
    assert target == Path("ewc-a%20b-seed1.safetensors") and target.is_file()


def test_what_is_no_run_or_several_is_refused(here):
    """With the nearest names, or all that are meant; nothing is written."""
    assert "nothing holds no records" in refusal("tiny/ewc/seed0", Path("nothing"))
    run("train.steps=2")
    name = "tiny/ewc/c/seed0"
    assert "did you mean 'tiny/ewc/c/seed" in refusal("tiny/ewk/c/seed0")
    assert "with TABLE tiny" in refusal("other")
    assert "begins with 00000000" in refusal("00000000")
    several = refusal(name)
    assert "names 2 runs: " in several and several.count(f"{name} (key ") == 2


def test_files_that_cannot_be_used_are_refused(here):
    """In the way, not kept, damaged; nothing is written."""
    (one,) = files("ewc/c/seed0*.safetensors")
    assert "there already; give --force" in refusal(str(one), target=Path("tiny.yaml"))
    assert "is a folder" in refusal(str(one), target=Path("results"))
    assert "cannot write" in refusal(str(one), target=Path("tiny.yaml/x.safetensors"))
    assert "not a record" in refusal(str(files("tiny.plan.json")[0]))
    assert "no such file" in refusal("absent.safetensors")
    assert "cannot be read" in refusal("absent.json")
    one.write_bytes(one.read_bytes()[:-1])
    assert "cannot be read" in refusal(str(one))
    one.unlink()
    assert "--rerun all" in refusal(str(one.with_suffix(".json")))


def test_force_replaces_and_files_of_others_are_refused(here):
    """A safetensors file without our metadata is no run."""
    target = Path("out.safetensors")
    for _ in range(2):
        exporting.export("tiny/ewc/c/seed0", Path("results"), target, force=True)
    assert load_file(target).keys() == load_file(files("*.safetensors")[0]).keys()
    kept.write(target, {"a": torch.zeros(1)}, {"format": "pt"})
    assert "its metadata lack key" in refusal(str(target))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_efficientnet", {}),
        ("test_vit", {"img_size": 16, "patch_size": 4, "weight_init": "jax"}),
    ],
)
def test_a_timm_run_loads_into_timm(tmp_path, monkeypatch, capsys, name, arguments):
    """Run, exported and loaded as printed, with its constructor's arguments: equal logits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    file = Path("tiny.yaml")
    backbone = json.dumps({"name": f"timm:{name}"} | arguments)
    file.write_text(
        f"family: continual\nbenchmark: {{dataset: optdigits, tasks: 2, scenario: task, pad: 4}}\n"
        f"backbone: {backbone}\nmethods: {{naive: {{name: naive}}}}\n"
        "train: {steps: 2, batch_size: 4, lr: 0.01}\nseeds: [0]\n"
    )
    assert cli.main(["run", str(file), "--device", "cpu"]) == 0
    capsys.readouterr()
    assert cli.main(["export", "tiny/naive/seed0", "--to", "out.safetensors"]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    shown = "".join(f", {key}={value!r}" for key, value in arguments.items())
    opening = f"timm.create_model({name!r}, num_classes=10, in_chans=1{shown}, checkpoint_path="
    assert opening in lines[1]
    model = load_as_printed(lines)
    settings: Any = experiment.load(file).cells[0].config
    network = backbones.build(settings.backbone, (1, 16, 16), 10, 3).eval()
    network.load_state_dict(load_file(files("*.safetensors")[0]))
    x = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(model(x), network(x), atol=1e-5, rtol=1e-5)
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "tlresearch[timm]" in refusal("tiny/naive/seed0", target=Path("x"))


def test_timm_names_move_and_nothing_is_lost():
    """Whatever timm calls its classifier; other names and clashes are refused."""
    one, two, three = torch.zeros(3)
    state = {"backbone.net.stem.weight": one, "head.weight": two, "head.bias": three}
    named = exporting.timm_names(state, "head.fc")
    assert list(named) == ["stem.weight", "head.fc.weight", "head.fc.bias"]
    assert [named[k] is v for k, v in zip(named, state.values(), strict=True)] == [True] * 3
    with pytest.raises(ValueError, match="adapter"):
        exporting.timm_names({"backbone.adapter.weight": one}, "fc")
    with pytest.raises(ValueError, match=r"fc\.weight"):
        exporting.timm_names({"backbone.net.fc.weight": one, "head.weight": two}, "fc")
