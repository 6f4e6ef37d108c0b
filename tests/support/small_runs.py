"""Small runs of the continual protocol on the fixture `tiny`, for several test files."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tlresearch.backbones.mlp import MLP
from tlresearch.continual import protocol
from tlresearch.continual.protocol import StackRun
from tlresearch.data.tasks import StreamSettings
from tlresearch.training.loop import Training
from tlresearch.training.observer import RunFiles
from tlresearch.training.settings import Train

CPU = torch.device("cpu")
STREAM = StreamSettings("tiny", tasks=3, scenario="class", class_order="random")
TRAIN = Train(steps=50, batch_size=16, lr=0.01, schedule="cosine", clip=1.0)
BACKBONE = MLP(hidden=(12,), dropout=0.3, norm="batch")
SELECTED = {"checkpoint": "selected", "validation": 0.3}


def files_in(folder: Any) -> RunFiles:
    return RunFiles(folder / "checkpoint.pt", folder / "metrics.jsonl")


def run_of(method: Any, seeds: list[int], **changes: Any) -> StackRun:
    """Changes are of the stream or of the training, by their names."""
    stream = {k: v for k, v in changes.items() if hasattr(STREAM, k)}
    train = {k: v for k, v in changes.items() if k not in stream}
    return StackRun(replace(STREAM, **stream), BACKBONE, method, replace(TRAIN, **train), seeds, {})


def scripted(monkeypatch: pytest.MonkeyPatch, table: dict[int, list[float]]) -> None:
    """Held-out accuracy by the steps done so far; the matrix is measured as it is."""
    measured = protocol.accuracy_per_seed

    def accuracy(training: Training, data: list[Any]) -> Tensor:
        if data[0] != "held out":
            return measured(training, data)
        return torch.tensor(table[training.steps[0]], dtype=torch.float64)

    monkeypatch.setattr(protocol._Journey, "_held_out", lambda self, place: "held out")
    monkeypatch.setattr(protocol, "accuracy_per_seed", accuracy)


def copies(training: Training) -> list[Tensor]:
    return [p.clone() for p in training.stack.params.values()]


def lines_of(files: RunFiles) -> list[dict[str, Any]]:
    """The log without what depends on the machine's speed."""
    lines = [json.loads(line) for line in files.log.read_text().splitlines()]
    costs = ("samples_per_second", "memory_bytes")
    return [{k: v for k, v in line.items() if k not in costs} for line in lines]
