"""The order of few-shot learning: train on the training classes, then be measured on episodes.

A training that was done before, in this table or another, is not done again: see `trained`.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlresearch import own
from tlresearch.errors import UserError
from tlresearch.fewshot import METHODS, checks, trained
from tlresearch.fewshot.batches import episode_sizes
from tlresearch.fewshot.evaluation import EvaluationSet, evaluate
from tlresearch.fewshot.gradient import GradientMethod
from tlresearch.fewshot.method import FewShotMethod, MetricMethod
from tlresearch.fewshot.settings import SINUSOID, FewShotSettings
from tlresearch.fewshot.tasks import (
    Tasks,
    datasets,
    fingerprint,
    held_out,
    load_data,
    load_tasks,
    sizes,
)
from tlresearch.fewshot.trying import trial
from tlresearch.files import claim
from tlresearch.results import trainings
from tlresearch.results.episodes import half_width
from tlresearch.results.provenance import source_hash
from tlresearch.training import checkpoint, tree
from tlresearch.training.device import dtype_of, peak_memory, tf32
from tlresearch.training.distributed import ALONE, Processes
from tlresearch.training.loop import Training, start
from tlresearch.training.observer import CHECKPOINT_SECONDS, RunFiles, RunObserver
from tlresearch.training.runs import Outcome, StackRun
from tlresearch.training.stack import stack_networks
from tlresearch.training.stage import Stage
from tlresearch.training.weights import weights_of

__all__ = [
    "METHODS",
    "Outcome",
    "StackRun",
    "datasets",
    "fingerprint",
    "held_out",
    "load_data",
    "sizes",
    "trial",
]

Benchmark = FewShotSettings
Method = FewShotMethod
ONE_PROCESS = True
CURVE = 10
"""Inner steps whose values are metrics of their own."""
METRICS = (
    *("acc", "error", "mse", "ci_episodes", "mse_ci_episodes", "train_steps"),
    *(f"{name}_{step}" for name in ("acc", "mse") for step in range(CURVE + 1)),
)
DEFAULT_METRICS = ("acc", "ci_episodes", "mse", "mse_ci_episodes", "train_steps")

check = checks.check


def total_steps(config: Any) -> int:
    """Optimiser steps of a run."""
    return 0 if config.method.trains_on == "nothing" else config.train.steps


def possible_metrics(config: Any) -> set[str]:
    """Those that a run of a configuration can have."""
    method, regression = config.method, config.benchmark.dataset == SINUSOID
    name = "mse" if regression else "acc"
    found = {"mse", "mse_ci_episodes"} if regression else {"acc", "error", "ci_episodes"}
    if isinstance(method, GradientMethod):
        steps = max(config.benchmark.curve, method.test_steps or method.inner_steps)
        found |= {f"{name}_{step}" for step in range(min(steps, CURVE) + 1)}
    return found | {"train_steps"}


def columns(config: Any) -> dict[str, str]:
    """Columns of text of a row; the sinusoids' networks have no norms to speak of."""
    return {} if config.benchmark.dataset == SINUSOID else config.method.notes()


def run_stack(
    run: StackRun,
    device: torch.device,
    files: RunFiles,
    root: Any = None,
    progress: Callable[[int], None] = lambda steps: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    track: Callable[[dict[str, Any]], None] = lambda entry: None,
    processes: Processes = ALONE,
    streamed: bool | None = None,
) -> list[Outcome]:
    """Trains the seeds of a stack, or takes what was trained before, and measures them.

    Args:
        run: what to run.
        device: where.
        files: its checkpoint (removed by the caller when the records are written), its log, and
            the folder of shared trainings.
        root: data root; None: where the environment says.
        progress: told of the steps done.
        checkpoint_seconds: time between checkpoints.
        track: told of each line of the log.
        processes: one only.
        streamed: has no effect, as few-shot data are small.

    Raises:
        UserError: several processes, or data that are missing or damaged.
    """
    if processes.size > 1:
        raise UserError("few-shot experiments run in one process; start them without torchrun")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    tasks = load_tasks(run.benchmark, device, dtype_of(run.train.precision), root)
    journey = _Journey(run, tasks, begin(run, tasks, device), files)
    journey.observer = RunObserver(
        journey.training, files, journey.place, progress, checkpoint_seconds, track=track,
        samples=journey.samples,
    )  # fmt: skip
    with tf32(run.train.tf32):
        journey.train()
        return journey.outcomes()


def begin(run: StackRun, tasks: Tasks, device: torch.device) -> Training:
    """The networks of all seeds at initialisation."""
    dtype = dtype_of(run.train.precision)
    units = tasks.units(run.method)
    shape = tasks.shape_for(run.method)
    networks = [
        run.method.networks(run.backbone, shape, units, seed).to(dtype) for seed in run.seeds
    ]
    if run.train.channels_last:
        networks = [network.to(memory_format=torch.channels_last) for network in networks]
    state = tree.stack([run.method.init(network.to(device)) for network in networks])
    fields = {
        name: torch.tensor(values, dtype=dtype, device=device)
        for name, values in run.fields.items()
    }
    _check_networks(run.method, networks[0])
    stack = stack_networks(networks, device)
    return start(run.seeds, stack, run.method, fields, run.train, state)


def _check_networks(method: FewShotMethod, networks: nn.Module) -> None:
    """Refuses networks that cannot be trained, or cannot predict an image by itself.

    Raises:
        UserError: they have no parameters, or are to embed images by batch norms that keep no
            running averages: a feature would depend on the images that happen to come with it.
    """
    name = type(method).__name__
    if not any(True for _ in networks.parameters()):
        raise UserError(
            f"backbone: it has no parameters, and {name} nothing else that is trained; give it "
            "layers, e.g. hidden: [100]"
        )
    norms = [m for m in networks.modules() if isinstance(m, _BatchNorm)]
    if isinstance(method, MetricMethod) and any(m.running_mean is None for m in norms):
        raise UserError(
            f"backbone: its batch norms keep no running averages, by which {name} embeds an image; "
            "set backbone.statistics: running, or build them with track_running_stats=True"
        )


class _Journey:
    """One stack on its way."""

    observer: RunObserver

    def __init__(self, run: StackRun, tasks: Tasks, training: Training, files: RunFiles) -> None:
        self.run, self.tasks, self.training, self.files = run, tasks, training, files
        self.learning = Stage(training)
        self.seconds, self.began = 0.0, time.monotonic()
        alone = dataclasses.replace(run.benchmark, target=None)
        places = range(len(run.seeds))
        self.keys = [trained.training_key(run, i, fingerprint(alone)) for i in places]
        self.source = training_source(run)
        self.trained_by: str | None = None
        """Hash of other code than the current one that trained the networks, if it did."""

    @property
    def samples(self) -> int:
        """Of a seed's step."""
        method = self.run.method
        if method.trains_on == "classes":
            return self.run.train.batch_size
        ways, shots, queries = episode_sizes(self.run.benchmark, method)
        return method.tasks * ways * (shots + queries)

    def place(self, step: int) -> dict[str, Any]:
        """What a checkpoint says of the way so far."""
        seconds = self.seconds + time.monotonic() - self.began
        return {"step": step, "seconds": seconds} | self.learning.place()

    def train(self) -> None:
        """Trains what was not trained before; the state after training, in any case."""
        method, folder = self.run.method, self.files.trained
        if method.trains_on != "nothing":
            if folder is None:
                self._learn()
            else:
                with claim(folder / f"{self.keys[0][:32]}.lock", lambda holder: None):
                    if not self._take(folder):
                        self._learn()
                        self._keep(folder)
        states = {}
        for place, failure in enumerate(self.training.failures):
            if failure is None:
                one, networks = self.training.one(place)
                state = tree.take(self.training.state, place)
                states[place] = one.after_task(networks.eval(), state, self.tasks)
        if states:  # a failed seed is measured no more, so any state will do
            some = next(iter(states.values()))
            places = range(len(self.run.seeds))
            self.training.state = tree.stack([states.get(place, some) for place in places])

    def _take(self, folder: Path) -> bool:
        """Whether all seeds' networks were trained before; they are then in place."""
        stack = self.training.stack
        found = []
        for place, key in enumerate(self.keys):
            like = weights_of(self.training.one(place)[1])
            one = trainings.find(folder, key, like, self.files.trained_since)
            if one is None:
                return False
            found.append(one)
        trainings.load_into(stack.params, stack.buffers, found)
        self.training.steps = [one.steps for one in found]
        self.seconds = sum(one.seconds for one in found)
        self.began = time.monotonic()
        other = [one.source for one in found if one.source != self.source]
        self.trained_by = other[0] if other else None
        self.observer.progress(self.run.train.steps)
        return True

    def _keep(self, folder: Path) -> None:
        """Keeps the networks of the seeds that did not fail."""
        size = len(self.run.seeds)
        seconds = (self.seconds + time.monotonic() - self.began) / size
        for place, failure in enumerate(self.training.failures):
            if failure is None:
                weights = weights_of(self.training.one(place)[1])
                done = trainings.Trained(weights, self.training.steps[place], seconds, self.source)
                trainings.keep(folder, self.keys[place], done, self.run.seeds[place])

    def _learn(self) -> None:
        """Trains from the checkpoint, if there is one."""
        place = checkpoint.resume(self.files.checkpoint, self.training, self._fits)
        if place is not None:
            self.seconds = place["seconds"]
            self.learning.go_to(place)
        self.files.log_lines_before(0, self.learning.step)
        self.observer.progress(self.learning.step)
        if self.learning.step == 0:
            self.learning.begin(0)
        batches = self.tasks.training(self.run.method, self.run.train, self.run.seeds)
        self.learning.learn(batches, self.observer, self._scores, "training")

    def _fits(self, place: dict[str, Any]) -> bool:
        return place["seconds"] >= 0 and self.learning.fits(place)

    def _scores(self) -> Tensor:
        """Accuracy, or minus the error, on the validation classes."""
        episodes = self.tasks.episodes(self.run.method, "validation")
        found = evaluate(self.training, episodes)[:, :, -1].mean(1)
        found = -found if self.tasks.regression else found
        return found.to(next(iter(self.training.stack.params.values())).device)

    def _values(self, episodes: EvaluationSet) -> Tensor:
        """What is measured, with the curve to the step that the benchmark asks for."""
        training, curve = self.training, self.run.benchmark.curve
        if isinstance(training.method, GradientMethod) and curve > self.counted:
            longer = dataclasses.replace(training.method, test_steps=curve)
            training = dataclasses.replace(training, method=longer)
        return evaluate(training, episodes)

    @property
    def counted(self) -> int:
        """Inner steps after which a table's rows are measured."""
        method = self.run.method
        if not isinstance(method, GradientMethod):
            return 0
        return method.test_steps or method.inner_steps

    def outcomes(self) -> list[Outcome]:
        """What each seed came to."""
        episodes = self.tasks.episodes(self.run.method)
        values = self._values(episodes)
        device = next(iter(self.training.stack.params.values())).device
        total = self.seconds + time.monotonic() - self.began
        rows = []
        for place, failure in enumerate(self.training.failures):
            details = {
                "steps": self.training.steps[place],
                "stack_seconds": total,
                "samples_per_step": self.samples * self.run.train.accumulate,
                "peak_memory_bytes": peak_memory(device),
                "training": self.keys[place],
            }
            failure = _explained(failure, self.run.method)
            failure = failure or undefined(values[place], self.counted)
            if failure:
                rows.append(Outcome({}, {}, "failed", failure, details, source=self.trained_by))
                continue
            found = metrics_of(values[place], self.counted, self.tasks.regression)
            found["train_steps"] = float(self.training.steps[place])
            own_values = values[place, :, row_of(values, self.counted)].tolist()
            arrays = {"episodes": own_values, "episodes_id": episodes.identity}
            if values.shape[2] > 1:
                arrays["curve"] = values[place].mean(0).tolist()
            weights = weights_of(self.training.one(place)[1])
            rows.append(Outcome(found, arrays, "finished", None, details, weights, self.trained_by))
        return rows


def _explained(failure: str | None, method: FewShotMethod) -> str | None:
    """Where a seed's training stopped, with what an inner loop may have to do with it."""
    if failure is None or not isinstance(method, GradientMethod):
        return failure
    steps = "step" if method.inner_steps == 1 else "steps"
    return (
        f"{failure} of meta-training, of {method.inner_steps} inner {steps} at a rate of "
        f"{float(method.inner_lr):g} (inner_lr)"
    )


def row_of(values: Tensor, counted: int) -> int:
    """The row after `counted` inner steps; the only one of a method without an inner loop."""
    return min(counted, values.shape[-1] - 1)


def undefined(values: Tensor, counted: int) -> str | None:
    """Why a seed has no result: the first inner step of those that count without a number in it.

    Args:
        values: as in `metrics_of`.
        counted: as in `metrics_of`.
    """
    until = values[:, : row_of(values, counted) + 1]
    broken = (~until.isfinite()).sum(0).tolist()
    for step, episodes in enumerate(broken):
        if episodes:
            after = f" after inner step {step}" if values.shape[1] > 1 else ""
            return (
                f"its predictions were not finite{after} in {episodes} of {len(values)} test "
                "episodes"
            )
    return None


def metrics_of(values: Tensor, counted: int, regression: bool) -> dict[str, float]:
    """Metrics of one seed.

    Args:
        values: accuracy or mean squared error, (episodes, rows), rows after 0, 1, … inner steps.
        counted: the inner step that counts.
        regression: which of the two.

    Returns:
        `acc` and `error`, or `mse`, its 95 % interval 1.96 s / √n over n episodes (s with n − 1),
        and, with an inner loop, the value after each of the first steps.
    """
    name, interval = ("mse", "mse_ci_episodes") if regression else ("acc", "ci_episodes")
    last = values[:, row_of(values, counted)]
    found = {name: last.mean().item(), interval: half_width(last.tolist())}
    if not regression:
        found["error"] = 1 - found[name]
    if values.shape[1] > 1:
        steps = range(min(values.shape[1], CURVE + 1))
        found |= {f"{name}_{step}": values[:, step].mean().item() for step in steps}
    return found


def training_source(run: StackRun) -> str:
    """Hash of the code that trains a run's networks."""
    method = type(run.method)
    names = {kind.__name__: kind.__module__ for kind in method.__mro__}
    trains = names.get(method.training_kind, method.__module__)
    modules = (
        trains,
        type(run.backbone).__module__,
        "tlresearch.training.stage",
        "tlresearch.fewshot.batches",
    )
    return source_hash(modules, own.sources(run))
