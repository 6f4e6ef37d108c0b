"""A small set of images, and runs of methods of distillation on it by the real protocol."""

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peers import peer
from small_rounds import same_bits
from torch import Tensor

from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.mlp import MLP
from tlresearch.data import catalogue
from tlresearch.data.catalogue import ImageData
from tlresearch.data.formats import Split
from tlresearch.distillation import METHODS, course, protocol, teaching
from tlresearch.distillation.images import Images, load_images
from tlresearch.distillation.pruned import Pruned
from tlresearch.distillation.settings import DistillationSettings, TeacherSettings
from tlresearch.training.loop import Training
from tlresearch.training.observer import RunFiles
from tlresearch.training.runs import Outcome, StackRun
from tlresearch.training.settings import Train

__all__ = ["Lessons", "same_bits"]

CPU, F64 = torch.device("cpu"), torch.float64
CLASSES, SHAPE = 4, (1, 4, 4)
SETTINGS = DistillationSettings("tiny", validation=0.2)
TRAIN = Train(
    steps=4, batch_size=8, lr=0.05, optimizer="sgd", momentum=0.9, clip=1.0, precision="fp64"
)
"""Not Adam, which makes whole steps of the rounding in a bias in front of a batch norm."""
PLAIN = MLP(hidden=(8,))
NOISY = MLP(hidden=(12, 8), norm="batch", dropout=0.2)
"""What makes a stack hard, and a teacher that is not in evaluation mode another one."""
MAPS = Conv4(channels=2, pools=1)
BIG: dict[str, Any] = {"name": "mlp", "hidden": [16, 8], "norm": "batch", "dropout": 0.2}
BIG_MAPS: dict[str, Any] = {"name": "conv4", "channels": 4, "pools": 1}
TEACHER = TeacherSettings(backbone=BIG)


def tiny(each: int = 20, classes: int = CLASSES) -> ImageData:
    """Noisy images of 4 x 4 around centres, `each` of a class to train and 6 to test."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randint(0, 256, (classes, *SHAPE), generator=generator).float()

    def split(count: int) -> Split:
        labels = torch.arange(classes).repeat(count)
        noise = 90 * torch.randn(len(labels), *SHAPE, generator=generator)
        return Split((means[labels] + noise).clamp(0, 255).to(torch.uint8), labels)

    return ImageData("tiny", split(each), split(6), tuple("abcdefgh"[:classes]), "here", "1")


def method_of(name: str, **settings: Any) -> Any:
    """A method by its key, taught by `TEACHER` where it is taught; maps for attention."""
    kind = METHODS[name]
    if name == "attention":
        taps = {"student": ("backbone.layers.1", "backbone.layers.3")}
        settings = {"teacher": TeacherSettings(backbone=BIG_MAPS)} | taps | settings
    elif name not in ("born_again", "pruned") and kind.taught:
        settings = {"teacher": TEACHER} | settings
    if name == "crd":
        settings = {"negatives": 5, "dim": 4} | settings
    return kind(**settings)


def backbone_of(name: str, other: Any = NOISY) -> Any:
    """Of a student of that method."""
    return MAPS if name == "attention" else other


@dataclass
class Begun:
    """A training that a run began, and who it was of."""

    training: Training
    method: Any
    seeds: list[int]


class Lessons:
    """Runs methods; remembers the trainings of teachers and students."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder, self.runs = folder, 0
        self.speeds: list[float] = []
        self.teachers, self.students = list[Begun](), list[Begun]()
        self.data = tiny()
        begin = course.begin

        def spy(kept: list[Begun]) -> Any:
            def begun(backbone: Any, method: Any, *args: Any) -> Training:
                training = begin(backbone, method, *args)
                kept.append(Begun(training, method, training.seeds))
                return training

            return begun

        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.setattr(catalogue, "load", lambda name, root=None: self.data)
        monkeypatch.setattr(protocol, "begin", spy(self.students))
        monkeypatch.setattr(teaching, "begin", spy(self.teachers))

    def run(
        self,
        method: Any,
        seeds: list[int] | None = None,
        backbone: Any = None,
        fields: dict[str, list[float]] | None = None,
        files: RunFiles | None = None,
        progress: Any = lambda steps: None,
        checkpoint_seconds: float = 60.0,
        fails: bool = False,
        **changes: Any,
    ) -> list[Outcome]:
        """What a stack comes to, apart from its speed, which no two runs share.

        `changes` are of the benchmark or of the training, by name.
        """
        if isinstance(method, str):
            backbone, method = backbone or backbone_of(method), method_of(method)
        if isinstance(method, Pruned):
            peer("torch_pruning")
        benchmark, train = changed(SETTINGS, changes), changed(TRAIN, changes)
        own = StackRun(benchmark, backbone or NOISY, method, train, seeds or [0], fields or {})
        self.runs += 1
        files = files or self.files(f"run{self.runs}")
        found = protocol.run_stack(
            own, CPU, files, progress=progress, checkpoint_seconds=checkpoint_seconds
        )
        assert fails or [one.reason for one in found] == [None] * len(own.seeds)
        self.speeds = [one.metrics.pop("steps_per_second", math.nan) for one in found]
        return found

    def files(self, name: str) -> RunFiles:
        """Where a run keeps its checkpoint; trained teachers are shared by all."""
        at = self.folder / name
        return RunFiles(at / "checkpoint.pt", at / "log.jsonl", self.folder / "trained")

    def interrupted(self, at: int, files: RunFiles, method: Any, **more: Any) -> None:
        """A run that is stopped by hand once `at` of its steps are reported."""
        done = [0]

        def progress(steps: int) -> None:
            done[0] += steps
            if done[0] >= at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.run(method, files=files, progress=progress, checkpoint_seconds=0.0, **more)

    def images(self, **changes: Any) -> Images:
        """In float64."""
        return load_images(changed(SETTINGS, changes), CPU, F64)


def changed(settings: Any, changes: dict[str, Any]) -> Any:
    """With those of the changes that are its own."""
    return replace(settings, **{k: v for k, v in changes.items() if hasattr(settings, k)})


def _named(name: str, message: str) -> str:
    return f"{name}: {message}"


def assert_close(ours: dict[str, Tensor], others: dict[str, Tensor], atol: float = 1e-10) -> None:
    """Two sets of weights."""
    assert ours.keys() == others.keys()
    for name, value in others.items():
        torch.testing.assert_close(ours[name], value, atol=atol, rtol=0, msg=partial(_named, name))
