"""The classifiers of seen classes whose features a benchmark may ask for, each trained once.

A training depends on data, split, backbone, `train` and seed, and not on the estimator: so methods,
values of a grid and tables share it (`results.trainings`).
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tlresearch import own
from tlresearch.configs import plain_config
from tlresearch.data.sampler import EpochSampler
from tlresearch.data.zero_shot import ZeroShotData, ZeroShotSplit, classes_in
from tlresearch.fewshot.zeroshot.features import as_inputs, network_of
from tlresearch.files import claim
from tlresearch.results import trainings
from tlresearch.results.provenance import source_hash
from tlresearch.training import checkpoint
from tlresearch.training.device import dtype_of
from tlresearch.training.loop import Training, start
from tlresearch.training.method import Method
from tlresearch.training.observer import CHECKPOINT_SECONDS, RunFiles, RunObserver
from tlresearch.training.runs import StackRun
from tlresearch.training.stack import stack_networks
from tlresearch.training.stage import Stage
from tlresearch.training.weights import weights_of


@dataclass
class Classifiers:
    """The trained networks of some seeds."""

    training: Training
    source: str | None
    """Hash of other code than the current one that trained them, if it did."""
    seconds: float
    """What the training took, whenever it was."""


@dataclass(frozen=True)
class Watch:
    """Who follows a training, and how often it is kept."""

    progress: Callable[[int], None] = lambda steps: None
    track: Callable[[dict[str, Any]], None] = lambda entry: None
    checkpoint_seconds: float = CHECKPOINT_SECONDS


class SeenBatches:
    """The batches of the seen classes' training images, by step: (S, B, …), (S, B), None."""

    def __init__(
        self,
        data: ZeroShotData,
        split: ZeroShotSplit,
        seeds: list[int],
        train: Any,
        device: torch.device,
    ) -> None:
        images = split.train
        self.raw = data.inputs[images].to(device)
        seen = classes_in(data.labels, images)
        self.units = torch.searchsorted(seen, data.labels[images]).to(device)
        sizes = [len(images)] * len(seeds)
        self.sampler = EpochSampler(seeds, sizes, train.batch_size, "zero-shot classifier")
        self.dtype, self.steps = dtype_of(train.precision), train.steps * train.accumulate
        self._first, self._block = 0, torch.empty(0, dtype=torch.int64)

    def __call__(self, step: int) -> tuple[Tensor | None, ...]:
        if not self._first <= step < self._first + len(self._block):
            count = min(self.sampler.block_steps, self.steps - step)
            self._first, self._block = step, self.sampler.block(step, count).to(self.raw.device)
        places = self._block[step - self._first]
        raw = self.raw.index_select(0, places.flatten())
        x = as_inputs(raw, self.dtype).view(*places.shape, *raw.shape[1:])
        return x, self.units[places], None


def classifiers(
    run: StackRun,
    data: ZeroShotData,
    split: ZeroShotSplit,
    seeds: list[int],
    device: torch.device,
    files: RunFiles,
    watch: Watch,
) -> Classifiers:
    """Trains the classifiers of some seeds as one stack, or takes what was trained before.

    It is plain cross-entropy for every method. Images of unseen classes are not in `split.train`
    and so in no batch.

    Args:
        run: its backbone, `train` and benchmark count.
        data: all of it.
        split: what is trained on.
        seeds: each once.
        device: where.
        files: checkpoint and log of the training, and the folder of shared trainings.
        watch: who follows it.
    """
    networks = [network_of(run.backbone, data, split, run.train, seed) for seed in seeds]
    if run.train.channels_last:
        networks = [network.to(memory_format=torch.channels_last) for network in networks]
    stack = stack_networks([network.to(device) for network in networks], device)
    training = start(seeds, stack, Method(), {}, run.train, {})
    batches = SeenBatches(data, split, seeds, run.train, device)
    work = _Work(training, files, watch)
    folder, keys = files.trained, [training_key(run, data, seed) for seed in seeds]
    if folder is None:
        return Classifiers(training, None, work.learn(batches))
    source = training_source(run)
    with claim(folder / f"{keys[0][:32]}.lock", lambda holder: None):
        found = _found(training, keys, files)
        if found is None:
            seconds = work.learn(batches)
            _keep(training, keys, files, seconds, source)
            return Classifiers(training, None, seconds)
    trainings.load_into(stack.params, stack.buffers, found)
    training.steps = [one.steps for one in found]
    watch.progress(run.train.steps)
    others = [one.source for one in found if one.source != source]
    return Classifiers(training, others[0] if others else None, sum(one.seconds for one in found))


def training_key(run: StackRun, data: ZeroShotData, seed: int) -> str:
    """SHA-256 of what the training of one seed depends on; hexadecimal."""
    plain = {
        "family": "zeroshot",
        "split": [run.benchmark.evaluate, run.benchmark.validation],
        "backbone": plain_config(run.backbone, defaults=False),
        "train": plain_config(replace(run.train, stack="auto"), defaults=False),
        "seed": seed,
        "data": data.fingerprint,
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def training_source(run: StackRun) -> str:
    """Hash of the code that trains the classifiers of a run."""
    return source_hash((__name__, type(run.backbone).__module__), own.sources(run.backbone))


def _found(training: Training, keys: list[str], files: RunFiles) -> list[trainings.Trained] | None:
    """What was trained before; None if a seed lacks."""
    assert files.trained is not None
    found = []
    for place, key in enumerate(keys):
        one = trainings.find(
            files.trained, key, weights_of(training.one(place)[1]), files.trained_since
        )
        if one is None:
            return None
        found.append(one)
    return found


def _keep(
    training: Training, keys: list[str], files: RunFiles, seconds: float, source: str
) -> None:
    """Keeps the networks of the seeds that did not fail."""
    assert files.trained is not None
    for place, (key, failure) in enumerate(zip(keys, training.failures, strict=True)):
        if failure is None:
            weights = weights_of(training.one(place)[1])
            done = trainings.Trained(weights, training.steps[place], seconds / len(keys), source)
            trainings.keep(files.trained, key, done, training.seeds[place])


class _Work:
    """One training on its way."""

    def __init__(self, training: Training, files: RunFiles, watch: Watch) -> None:
        self.training, self.files, self.watch = training, files, watch
        self.stage, self.seconds, self.began = Stage(training), 0.0, time.monotonic()

    def learn(self, batches: SeenBatches) -> float:
        """Trains to the end, from the checkpoint if there is one; seconds in all."""
        place = checkpoint.resume(self.files.checkpoint, self.training, self._fits)
        if place is None:
            self.stage.begin(0)
        else:
            self.seconds = place["seconds"]
            self.stage.go_to(place)
        self.files.log_lines_before(0, self.stage.step)
        observer = RunObserver(
            self.training, self.files, self._place, self.watch.progress,
            self.watch.checkpoint_seconds, track=self.watch.track,
        )  # fmt: skip
        observer.progress(self.stage.step)
        self.stage.learn(batches, observer, self._no_scores, "training")
        return self.seconds + time.monotonic() - self.began

    def _place(self, step: int) -> dict[str, Any]:
        seconds = self.seconds + time.monotonic() - self.began
        return {"step": step, "seconds": seconds} | self.stage.place()

    def _fits(self, place: dict[str, Any]) -> bool:
        return place["seconds"] >= 0 and self.stage.fits(place)

    def _no_scores(self) -> Tensor:
        raise AssertionError("the protocol's check refuses train.checkpoint: selected")
