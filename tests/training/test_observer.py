"""What is logged, saved and reported, step by step."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tlresearch.backbones.mlp import MLP
from tlresearch.continual import Naive
from tlresearch.continual.protocol import StackRun, begin
from tlresearch.data import catalogue
from tlresearch.data.tasks import StreamSettings, make_stream
from tlresearch.training import observer as module
from tlresearch.training.loop import Training
from tlresearch.training.method import Loss
from tlresearch.training.observer import RunFiles, RunObserver
from tlresearch.training.settings import Train


@pytest.fixture
def files(tmp_path: Path) -> RunFiles:
    return RunFiles(tmp_path / "run" / "checkpoint.pt", tmp_path / "run" / "metrics.jsonl")


def training_of(seeds: list[int]) -> Training:
    settings = StreamSettings("optdigits", tasks=2)
    run = StackRun(settings, MLP(hidden=(2,)), Naive(), Train(), seeds, {})
    stream = make_stream(settings, catalogue.load("optdigits"), seeds)
    return begin(run, stream, torch.device("cpu"))


def make(files: RunFiles, seeds: list[int], seconds: float = 1e9, **more: Any) -> RunObserver:
    place = more.pop("place", lambda step: {"step": step})
    observed = training_of(seeds)
    return RunObserver(observed, files, place, checkpoint_seconds=seconds, stage=3, **more)


def loss_at(step: int, seeds: int) -> Loss:
    """S = 1 has 0-dimensional losses."""
    total = torch.arange(seeds) + float(step)
    total = total[0] if seeds == 1 else total
    return Loss(total, {"penalty": total / 2})


@pytest.mark.parametrize("seeds", [[7], [7, 9]])
def test_every_hundredth_step_is_a_line(files, seeds):
    """Stage, step, seeds, and the loss and its terms of each seed."""
    observer = make(files, seeds)
    for step in range(201):
        observer.after_step(step, loss_at(step, len(seeds)))
    lines = [json.loads(line) for line in files.log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 100, 200]
    for line in lines:
        losses = [line["step"] + float(i) for i in range(len(seeds))]
        half = [value / 2 for value in losses]
        assert line.pop("samples_per_second") > 0
        assert line.pop("memory_bytes") > 1e6
        expected = {"stage": 3, "step": line["step"], "seeds": seeds}
        assert line == expected | {"loss": losses, "penalty": half}


def test_throughput_counts_the_samples_of_all_seeds(files, monkeypatch):
    """A step a second, 2 seeds, batches of 128: 256 samples a second, at the first line too."""
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    observer = make(files, [7, 9], _last_save=0.0, _last_log=0.0)
    for step in range(101):
        now[0] += 1.0
        observer.after_step(step, loss_at(step, 2))
    lines = [json.loads(line) for line in files.log.read_text().splitlines()]
    assert [line["samples_per_second"] for line in lines] == [256.0, 256.0]


def test_every_step_is_reported_once(files):
    """45 steps: 20, 20, and the rest when it is asked for."""
    told: list[int] = []
    observer = make(files, [7], progress=told.append)
    for step in range(45):
        observer.after_step(step, loss_at(step, 1))
    assert told == [20, 20]
    observer.flush()
    assert told == [20, 20, 5]


def test_no_checkpoint_before_its_time(files):
    """An observer with time left writes none; one without writes the step that comes next."""
    patient, hasty = make(files, [7]), make(files, [7], seconds=0.0)
    for step in range(20):
        patient.after_step(step, loss_at(step, 1))
    assert not files.checkpoint.exists()
    for step in range(20):
        hasty.after_step(step, loss_at(step, 1))
    plain = torch.load(files.checkpoint, weights_only=True)
    assert plain["place"] == {"step": 20}


def test_checkpoints_by_the_clock(files, monkeypatch):
    """With a step a second and 60 seconds between: after 60 and after 120 of 150 steps."""
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    saved: list[int] = []

    def place(step: int) -> dict[str, int]:
        saved.append(step)
        return {}

    observer = make(files, [7], seconds=60.0, place=place, _last_save=0.0)
    for step in range(150):
        now[0] += 1.0
        observer.after_step(step, loss_at(step, 1))
    assert saved == [60, 120]


def test_lines_from_a_place_on_are_dropped(files):
    """Kept: what lies before (stage 1, step 100); a line cut short by a crash goes too."""
    files.log.parent.mkdir()
    places = [(0, 0), (0, 100), (1, 0), (1, 100), (1, 200), (2, 0)]
    lines = [json.dumps({"stage": stage, "step": step}) + "\n" for stage, step in places]
    files.log.write_text("".join(lines) + '{"stage": 1, "st')
    files.log_lines_before(1, 100)
    assert files.log.read_text() == "".join(lines[:3])
    files.log_lines_before(0, 0)
    assert files.log.read_text() == ""


def test_no_log_is_no_trouble(files):
    """Nothing is dropped and nothing is made."""
    files.log_lines_before(1, 0)
    assert not files.log.exists()
