"""A small pair of domains, and runs of methods on it by the real protocol."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tlresearch.adaptation import journey, protocol
from tlresearch.adaptation.protocol import StackRun, run_stack
from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.backbones.mlp import MLP
from tlresearch.data.domains import Domain, Labelled, Pair, Sealed
from tlresearch.data.pairs import make_pair
from tlresearch.training.loop import Training
from tlresearch.training.observer import RunFiles
from tlresearch.training.runs import Outcome
from tlresearch.training.settings import Train

CPU = torch.device("cpu")
SETTINGS = AdaptationSettings("left", "right", validation=0.2)
TRAIN = Train(steps=10, batch_size=16, lr=0.02, precision="fp64")
BACKBONE = MLP(hidden=(12, 8), norm="batch", dropout=0.2)
CLASSES = 3


def domain(
    name: str, each: int = 20, shift: int = 0, classes: int = CLASSES, noise: int = 50
) -> Domain:
    """Noisy images of 4 x 4 around centres that all domains share, `shift` brighter."""
    centres = torch.randint(40, 180, (classes, 1, 4, 4), generator=_generator("centres"))
    rng = _generator(name)

    def part(count: int) -> Labelled:
        y = torch.arange(classes).repeat(count)[torch.randperm(count * classes, generator=rng)]
        x = centres[y] + shift + noise * torch.randn(len(y), 1, 4, 4, generator=rng)
        return Labelled(x.clamp(0, 255).to(torch.uint8), y)

    return Domain(name, part(each), part(8), tuple("abcdefgh"[:classes]), name)


def _generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(sum(map(ord, name)))


def relabelled(one: Domain) -> Domain:
    """The same inputs with labels that say nothing: 0 after the first few."""

    def part(of: Labelled) -> Labelled:
        labels = torch.zeros_like(of.labels)
        labels[:CLASSES] = torch.arange(CLASSES)
        return Labelled(of.images, labels)

    assert one.test is not None
    return Domain(one.name, part(one.train), part(one.test), one.class_names, one.fingerprint)


class Bench:
    """Runs methods on two domains; remembers the trainings and the pairs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder, self.trainings, self.pairs = folder, list[Training](), list[Pair]()
        self.domains = {"left": domain("left", 30), "right": domain("right", 20, 40)}
        begin = journey.begin

        def load(
            settings: Any, seeds: Any, device: Any, dtype: Any, root: Any, oracle: bool = False
        ) -> Any:
            names = (settings.target if oracle else settings.source, settings.target)
            source, target = (self.domains[name] for name in names)
            made = make_pair(settings, source, target, seeds, device, dtype, oracle)
            self.pairs.append(made[0])
            return made

        def spy(*args: Any) -> Training:
            self.trainings.append(begin(*args))
            return self.trainings[-1]

        monkeypatch.setattr(protocol, "load_pair", load)
        monkeypatch.setattr(journey, "begin", spy)

    def pair(self, seeds: list[int] | None = None, **settings: Any) -> tuple[Pair, Sealed]:
        """The pair itself."""
        benchmark = _changed(SETTINGS, settings)
        source, target = (self.domains[n] for n in (benchmark.source, benchmark.target))
        return make_pair(benchmark, source, target, seeds or [0], CPU, torch.float64)

    def run(
        self,
        method: Any,
        seeds: list[int] | None = None,
        backbone: Any = BACKBONE,
        fields: dict[str, list[float]] | None = None,
        files: RunFiles | None = None,
        progress: Any = lambda steps: None,
        checkpoint_seconds: float = 60.0,
        **changes: Any,
    ) -> list[Outcome]:
        """What a stack comes to; `changes` are of the benchmark or of the training, by name."""
        benchmark, train = _changed(SETTINGS, changes), _changed(TRAIN, changes)
        own = StackRun(benchmark, backbone, method, train, seeds or [0], fields or {})
        files = files or self.files(f"run{len(self.trainings)}")
        return run_stack(own, CPU, files, progress=progress, checkpoint_seconds=checkpoint_seconds)

    def files(self, name: str) -> RunFiles:
        """Where a run keeps its checkpoint."""
        return RunFiles(self.folder / name / "checkpoint.pt", self.folder / name / "log.jsonl")

    def interrupted(self, at: int, files: RunFiles, method: Any, **more: Any) -> None:
        """A run that is stopped by hand once `at` of its steps are reported."""
        done = [0]

        def progress(steps: int) -> None:
            done[0] += steps
            if done[0] >= at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.run(method, files=files, progress=progress, checkpoint_seconds=0.0, **more)


def _changed(settings: Any, changes: dict[str, Any]) -> Any:
    return replace(settings, **{k: v for k, v in changes.items() if hasattr(settings, k)})


def same_bits(ours: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    """Whether two sets of weights are equal to the byte."""
    return ours.keys() == others.keys() and all(torch.equal(ours[k], others[k]) for k in ours)
