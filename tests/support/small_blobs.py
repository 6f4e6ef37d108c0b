"""Small pairs of domains by name, and runs on them, for several test files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlresearch.adaptation import METHODS, protocol
from tlresearch.adaptation.batches import SeedData
from tlresearch.adaptation.dann import DANN
from tlresearch.adaptation.networks import AdaptedClassifier
from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.adaptation.trained import Trained
from tlresearch.backbones.mlp import MLP
from tlresearch.data import domain_tables
from tlresearch.data.domain_files import Entry
from tlresearch.data.domains import Domain, Labelled, Opened
from tlresearch.data.pairs import make_pair
from tlresearch.training.observer import RunFiles
from tlresearch.training.runs import Outcome, StackRun
from tlresearch.training.settings import Train

CPU = torch.device("cpu")
NAMES = ("blobs", "far_blobs")
BENCHMARK = AdaptationSettings(*NAMES, normalise="none", validation=0.25)
INIT = 5
"""Seed of the networks of `trained`: one whose predictions are right and wrong in turn."""
TRAIN = Train(steps=30, batch_size=8, lr=0.01, precision="fp64")


def blobs(
    name: str, count: int = 48, classes: int = 3, shift: float = 0.0, dims: int = 2, seed: int = 0
) -> Domain:
    """Classes on a circle, moved to the right by `shift`; as many test samples."""
    rng = torch.Generator().manual_seed(seed)
    angle = 2 * torch.pi * torch.arange(classes) / classes
    centres = torch.zeros(classes, dims)
    centres[:, :2] = 2 * torch.stack([angle.cos(), angle.sin()], 1)

    def part() -> Labelled:
        y = torch.arange(count) % classes
        x = centres[y] + 0.4 * torch.randn(count, dims, generator=rng)
        x[:, 0] += shift
        return Labelled(x.view(count, dims, 1, 1), y)

    return Domain(name, part(), part(), tuple(map(str, range(classes))), f"{name} {seed}")


def entry_of(domain: Domain) -> Entry:
    """What the table of domains says of it."""
    dims, samples = domain.train.images.shape[1], len(domain.train.labels)
    return Entry(
        title=domain.name,
        read=lambda root: domain,
        shape=(dims, 1, 1),
        class_names=domain.class_names,
        sizes=(samples, samples),
        licence="none",
        recipe=domain.fingerprint,
    )


@contextmanager
def domains(**changes: Any) -> Iterator[None]:
    """Within: the domains `blobs` and `far_blobs` have names; changes are those of `blobs`."""
    near, far = blobs(NAMES[0], **changes), blobs(NAMES[1], shift=1.0, seed=1, **changes)
    added = [name for name in NAMES if name not in domain_tables.DOMAINS]
    for domain in (near, far):
        domain_tables.DOMAINS[domain.name] = entry_of(domain)
    domain_tables._prepared.cache_clear()
    try:
        yield
    finally:
        for name in added:
            del domain_tables.DOMAINS[name]
        domain_tables._prepared.cache_clear()


def run_of(method: Any = "dann", seeds: tuple[int, ...] = (0, 1), **changes: Any) -> StackRun:
    """Changes are of the benchmark or of the training, by their names."""
    if isinstance(method, str):
        method = DANN(discriminator=(8,)) if method == "dann" else METHODS[method]()
    benchmark = {k: v for k, v in changes.items() if hasattr(BENCHMARK, k)}
    train = {k: v for k, v in changes.items() if k not in benchmark}
    return StackRun(
        replace(BENCHMARK, **benchmark),
        MLP(hidden=(8,)),
        method,
        replace(TRAIN, **train),
        list(seeds),
        {},
    )


def trained(method: Any = "dann", seeds: tuple[int, ...] = (0,), **changes: Any) -> Trained:
    """The first seed's model at initialisation, of a pair of blobs; changes as for `run_of`."""
    run = run_of(method, seeds, **changes)
    near, far = blobs(NAMES[0]), blobs(NAMES[1], shift=1.0, seed=1)
    pair, _ = make_pair(run.benchmark, near, far, run.seeds, CPU, torch.float64)
    networks = run.method.networks(run.backbone, pair.shape, pair.classes, INIT)
    return Trained(run.method, networks.double().eval(), {}, SeedData(pair, 0, 1))


def networks_of(model: Trained) -> AdaptedClassifier:
    """Of a deep method."""
    assert isinstance(model.networks, AdaptedClassifier)
    return model.networks


def opened(near: Domain | None = None, far: Domain | None = None) -> Opened:
    """The labels of the pair of `trained`."""
    near, far = near or blobs(NAMES[0]), far or blobs(NAMES[1], shift=1.0, seed=1)
    assert far.test is not None
    return Opened(far.test, [far.train.labels], near.test)


def files_in(folder: Path) -> RunFiles:
    return RunFiles(folder / "checkpoint.pt", folder / "metrics.jsonl")


def outcomes(run: StackRun, folder: Path, **more: Any) -> list[Outcome]:
    """The protocol on the CPU, within `domains`."""
    return protocol.run_stack(run, CPU, files_in(folder), **more)


def rows(values: list[list[float]]) -> Tensor:
    """float64."""
    return torch.tensor(values, dtype=torch.float64)
