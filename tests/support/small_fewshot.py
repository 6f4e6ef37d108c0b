"""A small set of classes in place of the glyphs, and few-shot runs on it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tlresearch.backbones.mlp import MLP
from tlresearch.data import class_tables
from tlresearch.data.class_sets import ClassSet, ClassSplits
from tlresearch.fewshot import checks, protocol, tasks
from tlresearch.fewshot.settings import FewShotSettings
from tlresearch.training.observer import RunFiles
from tlresearch.training.runs import Outcome, StackRun
from tlresearch.training.settings import Train

CPU = torch.device("cpu")
SIDE = 6
EACH = 8
"""Images of a class."""
CLASSES = {"train": 40, "validation": 5, "test": 6}
BENCHMARK = FewShotSettings("glyphs", ways=4, shots=1, queries=3, episodes=60)
TRAIN = Train(steps=30, lr=0.01, precision="fp64", batch_size=16)
BACKBONE = MLP(hidden=(16,), norm="batch")


def class_set(part: str, first: int, classes: int, seed: int = 0) -> ClassSet:
    """Classes that differ in six pixels; the other thirty vary as much and say nothing."""
    generator = torch.Generator().manual_seed(100 * seed + first)
    images = 18 + 220 * torch.rand(classes, EACH, 1, SIDE, SIDE, generator=generator)
    pixels = 255 * torch.rand(classes, 1, SIDE, generator=generator)
    noise = 12 * torch.randn(classes, EACH, SIDE, generator=generator)
    images[:, :, 0, 0] = (pixels + noise).clamp(0, 255)
    count = torch.full((classes,), EACH)
    names = tuple(f"{part}{i}" for i in range(classes))
    groups = torch.arange(classes) % 2
    content = images.flatten(0, 1).to(torch.uint8)
    return ClassSet(content, count.cumsum(0) - count, count, names, groups, ("odd", "even"))


def toy(changed: str | None = None) -> ClassSplits:
    """Three parts; the images of one may be `changed`."""
    train, validation, test = (
        class_set(part, 10 * i, size, int(part == changed))
        for i, (part, size) in enumerate(CLASSES.items())
    )
    return ClassSplits(train, validation, test, "toy")


def use(monkeypatch: pytest.MonkeyPatch, splits: ClassSplits | None = None) -> ClassSplits:
    """Lets runs take the toy for whatever data set they name."""
    found = splits or toy()
    facts = class_tables.Facts((1, SIDE, SIDE), **CLASSES, images=EACH)
    monkeypatch.setattr(tasks, "class_splits", lambda *args, **options: found)
    monkeypatch.setattr(tasks, "facts", lambda *args: facts)
    monkeypatch.setattr(checks.class_tables, "facts", lambda *args: facts)
    return found


def files_in(folder: Path, trained: Path | None = None) -> RunFiles:
    return RunFiles(folder / "checkpoint.pt", folder / "metrics.jsonl", trained)


def run_of(method: Any, seeds: list[int], **changes: Any) -> StackRun:
    """Changes are of the benchmark or of the training, by their names; or the backbone."""
    backbone = changes.pop("backbone", BACKBONE)
    benchmark = {k: v for k, v in changes.items() if hasattr(BENCHMARK, k)}
    train = {k: v for k, v in changes.items() if k not in benchmark}
    return StackRun(
        replace(BENCHMARK, **benchmark), backbone, method, replace(TRAIN, **train), seeds, {}
    )


def outcomes_of(folder: Path, run: StackRun, shared: Path | None = None, **more) -> list[Outcome]:
    return protocol.run_stack(run, CPU, files_in(folder, shared), **more)


def same_weights(one: Outcome, other: Outcome) -> bool:
    assert one.weights and one.weights.keys() == other.weights.keys()
    return all(torch.equal(one.weights[k], w) for k, w in other.weights.items())


def steps_logged(folder: Path) -> list[int]:
    """Steps in a run's log; none where nothing was trained."""
    log = folder / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return [json.loads(line)["step"] for line in lines]
