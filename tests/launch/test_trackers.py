"""What trackers are told: TensorBoard's files read back, wandb's calls on a stand-in."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tlresearch import experiment
from tlresearch.continual import protocol
from tlresearch.errors import UserError
from tlresearch.launch import local, plan, trackers
from tlresearch.launch.local import Reporter
from tlresearch.results.store import Store
from tlresearch.training import observer

BASE = """
family: continual
benchmark: {dataset: optdigits, tasks: 2, scenario: task}
backbone: {name: mlp, hidden: [4]}
methods: {ewc: {name: ewc}}
train: {steps: 5, batch_size: 8, precision: fp64}
settings: {a/b: {train.lr: 0.05}}
seeds: [0, 1]
"""
STEPS = [0, 2, 4, 5, 7, 9]
"""Where both stages of five steps are logged, every second step."""


@pytest.fixture(autouse=True)
def logged_often(monkeypatch: pytest.MonkeyPatch):
    """Every second step; and no settings of the user's."""
    monkeypatch.setattr(observer, "LOG_EVERY", 2)
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


def run(folder: Path, *names: str) -> list[dict[str, Any]]:
    """Runs what the experiment still lacks, followed by trackers; its records."""
    (folder / "tiny.yaml").write_text(BASE)
    made = experiment.load(folder / "tiny.yaml")
    store = Store(folder / "results", made.name)
    planned = plan.make_plan(made, store, torch.device("cpu"))
    with trackers.following(list(names), made.name, store.root, Reporter()) as reporter:
        local.run(local.Work(made, planned, store, torch.device("cpu"), reporter=reporter))
    return store.read()


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The process is stopped in the second stage, behind a checkpoint of its third step."""
    after = observer.RunObserver.after_step

    def stopping(self, done, loss):
        after(self, done, loss)
        if (self.stage, done) == (1, 2):
            self.save(3)
        if (self.stage, done) == (1, step):
            raise KeyboardInterrupt

    monkeypatch.setattr(observer.RunObserver, "after_step", stopping)


def events(folder: Path, record: dict[str, Any]) -> Any:
    """What TensorBoard shows of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    name = f"ewc-a%2Fb-seed{record['seed']}-{record['key'][:8]}"
    shown = EventAccumulator(str(folder / "results/track/tensorboard/tiny" / name))
    return shown.Reload()


def curve(shown: Any, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in shown.Scalars(name)]


def logged(folder: Path) -> list[dict[str, Any]]:
    (log,) = (folder / "results").rglob("metrics.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_tensorboard_shows_the_log_and_the_final_metrics(tmp_path):
    """One run for each cell; x counts the steps of all stages."""
    records = run(tmp_path, "tensorboard")
    lines = logged(tmp_path)
    assert len(records) == 2
    for place, record in enumerate(records):
        shown = events(tmp_path, record)
        losses = [line["loss"][place] for line in lines]
        assert curve(shown, "loss") == list(zip(STEPS, map(pytest.approx, losses), strict=True))
        assert {"cross_entropy", "loss"} < set(shown.Tags()["scalars"])
        for name, value in record["metrics"].items():
            assert curve(shown, f"final/{name}") == [(10, pytest.approx(value))]
        for name in ("samples_per_second", "memory_bytes"):  # of the stack: the same for both
            costs = [pytest.approx(line[name]) for line in lines]
            assert curve(shown, name) == list(zip(STEPS, costs, strict=True))


@pytest.mark.parametrize("step", [3, 4])
def test_tensorboard_shows_nothing_twice_after_a_resume(tmp_path, monkeypatch, step):
    """What was logged behind the checkpoint is hidden, or logged by nobody again."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, step)
        run(tmp_path, "tensorboard")
    (record, _) = run(tmp_path, "tensorboard")
    shown = events(tmp_path, record)
    assert [at for at, _ in curve(shown, "loss")] == STEPS
    (folder,) = (tmp_path / "results/track/tensorboard/tiny").glob("ewc-*-seed0-*")
    assert len(list(folder.iterdir())) == 2


@dataclass
class FakeRun:
    options: dict[str, Any]
    metrics: list[tuple] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    code: int | None = None

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.metrics.append((name, step_metric))

    def log(self, values: dict[str, Any]) -> None:
        assert self.code is None
        self.lines.append(values)

    def finish(self, exit_code: int) -> None:
        assert self.code is None
        self.code = exit_code


class WandbError(Exception):
    pass


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """The runs that a stand-in for wandb was asked for."""
    runs: list[FakeRun] = []

    def init(**options: Any) -> FakeRun:
        if options["mode"] == "online":
            raise WandbError("no network")
        assert Path(options["dir"]).is_dir()
        runs.append(FakeRun(options))
        return runs[-1]

    fake = SimpleNamespace(init=init, Settings=dict, Error=WandbError)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return runs


def test_wandb_has_a_run_for_each_cell(tmp_path, wandb):
    """Run = method-setting-seed, group = table, offline; losses by step, metrics as summary."""
    records = run(tmp_path, "wandb", "wandb")
    lines = logged(tmp_path)
    assert len(wandb) == len(records) == 2
    for place, (made, record) in enumerate(zip(wandb, records, strict=True)):
        options = made.options
        assert options["name"] == f"ewc-a/b-seed{place}" and options["group"] == "tiny"
        assert options["id"] == record["key"][:16] and options["resume"] == "allow"
        assert (options["mode"], options["reinit"]) == ("offline", "create_new")
        assert options["settings"] == {"silent": True, "console": "off"}
        assert Path(options["dir"]) == tmp_path / "results/track"
        assert options["config"]["train"]["lr"] == 0.05 and options["config"]["seed"] == place
        assert ("*", "step") in made.metrics
        assert [line["step"] for line in made.lines] == STEPS
        assert [line["loss"] for line in made.lines] == [line["loss"][place] for line in lines]
        for name in ("samples_per_second", "memory_bytes"):
            assert [line[name] for line in made.lines] == [line[name] for line in lines]
        assert made.summary == record["metrics"] | {"status": "finished"} and made.code == 0


def test_wandb_goes_on_under_the_same_id(tmp_path, monkeypatch, wandb):
    """A stopped run is closed as such; the resumed one logs the same values at the same steps."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 4)
        run(tmp_path, "wandb")
    assert [made.code for made in wandb] == [1, 1]
    run(tmp_path, "wandb")
    stopped, _, resumed, _ = wandb
    assert stopped.options["id"] == resumed.options["id"] and resumed.code == 0
    assert [line["step"] for line in resumed.lines] == STEPS[5:]
    costs = ("samples_per_second", "memory_bytes")
    again, before = (
        {name: value for name, value in line.items() if name not in costs}
        for line in (resumed.lines[0], stopped.lines[5])
    )
    assert again == before and "loss" in again


def test_wandb_follows_the_users_environment(tmp_path, monkeypatch, wandb):
    """WANDB_PROJECT and WANDB_MODE; what cannot be begun is one sentence."""
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    run(tmp_path, "wandb")
    assert wandb[0].options["project"] == "mine"
    monkeypatch.setenv("WANDB_MODE", "online")
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UserError, match=r"no network.*WANDB_MODE=offline"):
        run(other, "wandb")


def test_a_failed_run_is_marked(tmp_path, monkeypatch, wandb):
    """In wandb's exit code and summary."""
    original = protocol.run_stack

    def fails(*args: Any, **more: Any) -> list[Any]:
        good, bad = original(*args, **more)
        return [good, protocol.Outcome({}, bad.arrays, "failed", "lost")]

    monkeypatch.setattr(protocol, "run_stack", fails)
    run(tmp_path, "wandb", "tensorboard")
    assert [made.code for made in wandb] == [0, 1]
    assert wandb[1].summary == {"status": "failed"}


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_tracker_that_is_not_installed_is_named(name, monkeypatch):
    """With the extra that brings it."""
    trackers.check([name])
    for module in (name, "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"{name} is not installed.*tlresearch\[track\]"):
        trackers.check([name])


@pytest.mark.parametrize("mode", ["ofline", "Online", ""])
def test_a_mode_that_wandb_does_not_know_is_refused(mode, monkeypatch, wandb):
    """Before anything is run; it matters to wandb alone."""
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(UserError, match=rf"WANDB_MODE='{mode}'; expected one of online, offline"):
        trackers.check(["tensorboard", "wandb"])
    trackers.check(["tensorboard"])
    for known in trackers.WANDB_MODES:
        monkeypatch.setenv("WANDB_MODE", known)
        trackers.check(["wandb"])


def test_the_plain_reporter_is_told_too(tmp_path):
    """Trackers stand beside the progress bars, not in their place."""
    told: list[str] = []
    plain = Reporter(
        lambda stack, steps: told.append("begin"),
        lambda steps: told.append("advance"),
        lambda stack, outcomes: told.append("end"),
        lambda entry: told.append("log"),
    )
    with trackers.following([], "tiny", tmp_path, plain) as reporter:
        stack: Any = None
        reporter.begin(stack, 1)
        reporter.advance(1)
        reporter.log({})
        reporter.end(stack, [])
    assert told == ["begin", "advance", "log", "end"]


@pytest.mark.slow
def test_wandb_itself_writes_offline_and_says_nothing(tmp_path):
    """Nothing beside the table and its paths reaches the streams; two runs, two folders."""
    (tmp_path / "tiny.yaml").write_text(BASE)
    words = ["run", "tiny.yaml", "settings={}", "--threads", "1", "--track", "wandb"]
    root = Path(__file__).resolve().parents[2]
    call = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n"
            f"from tlresearch.cli import main; sys.exit(main({words!r}))"]  # fmt: skip
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "wandb" not in done.stdout
    assert len(list((tmp_path / "results/track/wandb").glob("offline-run-*/run-*.wandb"))) == 2
