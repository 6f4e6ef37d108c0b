"""The order of continual learning: task after task, all tasks measured after each.

Row 0 of the accuracy matrix is the network at initialisation, row i follows the i-th task. In the
class-incremental scenario a row is measured among the classes seen so far (row 0: those of the
first task), so the accuracy on a task not yet seen is 0.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tlresearch.continual import METHODS
from tlresearch.continual.method import ContinualMethod
from tlresearch.data import catalogue
from tlresearch.data.batches import PoolData, StageBatches, joint_pool
from tlresearch.data.streaming import too_large
from tlresearch.data.tasks import Pool, StreamSettings, TaskStream, check_stream, make_stream
from tlresearch.errors import AgreedError, UserError
from tlresearch.functional import metrics
from tlresearch.training import checkpoint, tree
from tlresearch.training.device import dtype_of, peak_memory, tf32
from tlresearch.training.distributed import ALONE, Onlooker, Processes
from tlresearch.training.evaluation import accuracy_per_seed
from tlresearch.training.loop import Training, start
from tlresearch.training.observer import CHECKPOINT_SECONDS, RunFiles, RunObserver
from tlresearch.training.runs import Outcome, StackRun
from tlresearch.training.settings import Train
from tlresearch.training.stack import stack_networks
from tlresearch.training.stage import Stage
from tlresearch.training.weights import weights_of

__all__ = [
    "DEFAULT_METRICS",
    "METHODS",
    "METRICS",
    "Benchmark",
    "Method",
    "Outcome",
    "StackRun",
    "check",
    "run_stack",
]

Benchmark = StreamSettings
Method = ContinualMethod
METRICS = tuple(metrics.METRICS)
DEFAULT_METRICS = ("acc", "forgetting", "learning_accuracy")


def check(benchmark: StreamSettings, method: ContinualMethod, label: str, train: Train) -> None:
    """Refuses combinations that make no sense, before any work.

    Raises:
        UserError: naming the key, what was expected and what to do.
    """
    entry = catalogue.DATASETS.get(benchmark.dataset)
    if entry is None:
        catalogue.load(benchmark.dataset)  # refuses the name, with the nearest ones
        return
    check_stream(benchmark, entry.classes)
    images = entry.train_size / entry.classes
    if benchmark.validation and not 1 <= round(benchmark.validation * images) < images:
        raise UserError(
            f"benchmark.validation: {benchmark.validation:g} of about {images:.0f} images a class "
            "leaves none to train on or to measure on; choose another fraction, e.g. 0.1"
        )
    if benchmark.scenario not in method.scenarios:
        raise UserError(
            f"methods.{label}: {type(method).__name__} cannot do the scenario "
            f"'{benchmark.scenario}'; it can do {', '.join(method.scenarios)}"
        )
    problem = method.problem()
    if problem:
        raise UserError(f"methods.{label}.{problem}")
    if train.checkpoint == "selected" and benchmark.validation == 0:
        raise UserError(
            "train.checkpoint: 'selected' needs a held-out part of the training data; set "
            "benchmark.validation to a fraction above 0, e.g. 0.1"
        )


def datasets(benchmark: StreamSettings) -> tuple[str, ...]:
    """The catalogue's names of the data."""
    return (benchmark.dataset,)


def fingerprint(benchmark: StreamSettings) -> str:
    """That of the data."""
    return catalogue.entry(benchmark.dataset).fingerprint


def load_data(benchmark: StreamSettings, root: Any = None) -> None:
    """Refuses data that are missing or damaged."""
    catalogue.load(benchmark.dataset, root)


def sizes(benchmark: StreamSettings) -> tuple[tuple[int, int, int], int]:
    """Shape of an image, and the most units that the head can have."""
    entry = catalogue.entry(benchmark.dataset)
    channels, height, width = entry.shape
    pad = 2 * benchmark.pad
    return (channels, height + pad, width + pad), entry.classes * benchmark.tasks


def total_steps(config: Any) -> int:
    """Optimiser steps of a run."""
    return config.train.steps * config.benchmark.tasks


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
    """Trains the seeds of a stack on all tasks, from its checkpoint if there is one.

    Args:
        run: what to run.
        device: where.
        files: its checkpoint (removed by the caller when the records are written) and its log.
        root: data root; None: where the environment says.
        progress: told of the steps done.
        checkpoint_seconds: time between checkpoints.
        track: told of each line of the log.
        processes: who runs it; all of them return the same.
        streamed: whether images stay on the host, which changes no number; None: where they are
            too large for the device.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # of this run, not of the one before
    data = catalogue.load(run.benchmark.dataset, root)
    if streamed is None:
        streamed = too_large(data.train.images, device)
    dtype = dtype_of(run.train.precision)
    stream = make_stream(run.benchmark, data, run.seeds, device, dtype, streamed)
    training = begin(run, stream, device, processes)
    journey = _Journey(run, stream, training, files, progress, checkpoint_seconds)
    journey.observer.track = track
    journey.resume()
    with tf32(run.train.tf32):
        journey.travel()
    return journey.outcomes()


def begin(
    run: StackRun, stream: TaskStream, device: torch.device, processes: Processes = ALONE
) -> Training:
    """The networks of all seeds at initialisation."""
    dtype = dtype_of(run.train.precision)
    networks = [
        run.method.networks(run.backbone, stream.shape, stream.units, seed).to(dtype)
        for seed in run.seeds
    ]
    if run.train.channels_last:
        networks = [network.to(memory_format=torch.channels_last) for network in networks]
    state = tree.stack([run.method.init(network.to(device)) for network in networks])
    stack = stack_networks(networks, device, processes)
    fields = {
        name: torch.tensor(values, dtype=dtype, device=device)
        for name, values in run.fields.items()
    }
    return start(run.seeds, stack, run.method, fields, run.train, state)


class _Journey:
    """One stack on its way through the tasks."""

    def __init__(
        self,
        run: StackRun,
        stream: TaskStream,
        training: Training,
        files: RunFiles,
        progress: Callable[[int], None],
        checkpoint_seconds: float,
    ) -> None:
        self.run, self.stream, self.training, self.files = run, stream, training, files
        self.processes = training.stack.processes
        self.observer: RunObserver | Onlooker = Onlooker()
        if self.processes.is_main:
            self.observer = RunObserver(training, files, self.place, progress, checkpoint_seconds)
        shape = (len(run.seeds), stream.tasks + 1, stream.tasks)
        self.matrix = torch.full(shape, float("nan"), dtype=torch.float64)
        self.stage, self.learning = 0, Stage(training)
        self.seconds, self.began = 0.0, time.monotonic()

    def place(self, step: int) -> dict[str, Any]:
        """What a checkpoint says of the way so far."""
        seconds = self.seconds + time.monotonic() - self.began
        place = {"stage": self.stage, "step": step, "matrix": self.matrix}
        return place | self.learning.place() | {"seconds": seconds}

    def resume(self) -> None:
        """Goes to where the checkpoint was, if there is one."""
        path, main = self.files.checkpoint, self.processes.is_main
        place = checkpoint.resume(path, self.training, self._fits) if main else None
        found = self.processes.from_main(torch.tensor(place is not None))
        with self.processes.alike():  # what the main process could read, the others can
            if found and not main:
                place = checkpoint.load(path, self.training, self._fits)
        if place is None:
            self._shorten_log()
            return
        self.stage, self.matrix, self.seconds = (
            place["stage"],
            place["matrix"].cpu(),
            place["seconds"],
        )
        self.learning.go_to(place)
        self._shorten_log()
        self.observer.progress(self.stage * self.run.train.steps + self.learning.step)

    def _shorten_log(self) -> None:
        if self.processes.is_main:
            self.files.log_lines_before(self.stage, self.learning.step)

    def _fits(self, place: dict[str, Any]) -> bool:
        """Whether a checkpoint's place is on this way."""
        return (
            place["stage"] in range(self.stream.tasks + 1)
            and place["matrix"].shape == self.matrix.shape
            and place["seconds"] >= 0
            and self.learning.fits(place)
        )

    def travel(self) -> None:
        """Learns the remaining tasks."""
        if self.stage == 0 and self.learning.step == 0:
            self._measure(0)
        while self.stage < self.stream.tasks and None in self.training.failures:
            self._learn()
            self._remember()
            self._measure(self.stage + 1)
            self.stage += 1
            self.learning.reset()
            self.observer.save_if_due(0)

    def outcomes(self) -> list[Outcome]:
        """Metrics and matrix of each seed."""
        total = self.seconds + time.monotonic() - self.began
        rows, train = [], self.run.train
        for place, failure in enumerate(self.training.failures):
            matrix = self.matrix[place]
            done = {} if failure else {k: f(matrix).item() for k, f in metrics.METRICS.items()}
            details = {"steps": self.training.steps[place], "stack_seconds": total}
            details |= {"effective_batch": train.batch_size * train.accumulate}
            details |= {"peak_memory_bytes": peak_memory(self.stream.unit_of.device)}
            arrays = {"accuracy_matrix": matrix.tolist()}
            status = "failed" if failure else "finished"
            weights = {} if failure else weights_of(self.training.one(place)[1])
            rows.append(Outcome(done, arrays, status, failure, details, weights))
        return rows

    def _learn(self) -> None:
        """Trains on the current task."""
        train, learning = self.run.train, self.learning
        if learning.step == 0:
            learning.begin(self.stage)
        self.observer.stage = self.stage
        pools, part = self._training_pools(), self.processes.part
        count = train.steps * train.accumulate
        batches = StageBatches(self.stream, pools, self.stage, train.batch_size, count, part)
        learning.learn(batches.batch, self.observer, self._scores, f"task {self.stage + 1}")

    def _scores(self) -> Tensor:
        """Accuracy of each seed on the held-out part of the current task."""
        held_out = [self._held_out(place) for place in range(len(self.run.seeds))]
        return self.processes.from_main(accuracy_per_seed(self.training, held_out))

    def _held_out(self, place: int) -> Any:
        pool = self._of_stage(self.stream.held_out_pools[place])
        return PoolData(self.stream, place, pool, self.stage).batches()

    def _training_pools(self) -> list[Pool]:
        return [self._of_stage(pools) for pools in self.stream.train_pools]

    def _of_stage(self, pools: Sequence[Pool]) -> Pool:
        """The current task's pool, or that of all tasks so far for a method that sees them."""
        if self.run.method.sees == "tasks so far":
            return joint_pool(list(pools[: self.stage + 1]))
        return pools[self.stage]

    def _remember(self) -> None:
        """The method's state after the task, seed by seed."""
        states = []
        part, average = self.processes.part, self.processes.average
        for place, pool in enumerate(self._training_pools()):
            method, networks = self.training.one(place)
            state = tree.take(self.training.state, place)
            data = PoolData(self.stream, place, pool, self.stage, part=part, average=average)
            states.append(method.after_task(networks, state, data))
        self.training.state = tree.stack(states)
        if not self.processes.same(self.training.state):
            raise AgreedError(
                f"{type(self.run.method).__name__}.after_task: its state differs between the "
                "processes, each of which saw a part of the data; pass what it computes from "
                "data.batches() through data.average(tree, samples)"
            )

    def _measure(self, row: int) -> None:
        """Accuracy on every task, as a row of the matrix; NaN for seeds that failed."""
        stage = max(0, row - 1)
        for task in range(self.stream.tasks):
            data = [
                PoolData(self.stream, place, pools[task], stage, evaluation=True).batches()
                for place, pools in enumerate(self.stream.evaluation_pools)
            ]
            scores = self.processes.from_main(accuracy_per_seed(self.training, data)).cpu()
            failed = torch.tensor([reason is not None for reason in self.training.failures])
            self.matrix[:, row, task] = scores.masked_fill(failed, float("nan"))
