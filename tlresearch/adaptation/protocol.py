"""The order of domain adaptation: rounds of training, then one look at the target's labels.

A round is one run of the loop with its own batches and schedules: one for most methods; source
and then target for the source-free ones; one for each set of pseudo-labels in self-training.
"""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tlresearch.adaptation import METHODS
from tlresearch.adaptation.batches import RoundBatches, SeedData
from tlresearch.adaptation.checks import check
from tlresearch.adaptation.estimation import run_estimators
from tlresearch.adaptation.estimator import Estimator
from tlresearch.adaptation.method import AdaptationMethod, Chosen
from tlresearch.adaptation.networks import AdaptedClassifier
from tlresearch.adaptation.norms import passing
from tlresearch.adaptation.report import METRICS, measure
from tlresearch.adaptation.reverse import labelled, reverse_accuracy, reversed_pair
from tlresearch.adaptation.scores import ORACLE, SELECTORS, UNLABELLED, check_selection
from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.adaptation.trained import Trained
from tlresearch.adaptation.trying import trial
from tlresearch.data import domain_tables
from tlresearch.data.domains import Frozen, Pair, Sealed
from tlresearch.data.pairs import load_pair
from tlresearch.errors import UserError
from tlresearch.training import checkpoint, tree
from tlresearch.training.device import dtype_of, peak_memory, tf32
from tlresearch.training.distributed import ALONE, Processes
from tlresearch.training.evaluation import accuracy_per_seed
from tlresearch.training.loop import Training, start
from tlresearch.training.observer import CHECKPOINT_SECONDS, RunFiles, RunObserver
from tlresearch.training.runs import Outcome, StackRun
from tlresearch.training.settings import Train
from tlresearch.training.stack import stack_networks
from tlresearch.training.stage import Stage
from tlresearch.training.weights import weights_of

__all__ = ["METHODS", "METRICS", "SELECTORS", "Outcome", "StackRun", "check", "check_selection",
           "trial"]  # fmt: skip

Benchmark = AdaptationSettings
Method = AdaptationMethod
ONE_PROCESS = True
DEFAULT_METRICS = ("acc", "source_acc")


def datasets(benchmark: AdaptationSettings) -> tuple[str, ...]:
    """The catalogue's names of the data, as far as it has them."""
    names = (benchmark.source, benchmark.target)
    return tuple(name for name in names if name not in domain_tables.DOMAINS)


def fingerprint(benchmark: AdaptationSettings) -> str:
    """That of both domains."""
    found = [domain_tables.fingerprint(n) for n in (benchmark.source, benchmark.target)]
    return hashlib.sha256("\0".join(found).encode()).hexdigest()


def load_data(benchmark: AdaptationSettings, root: Any = None) -> None:
    """Refuses data that are missing or damaged, or do not make a pair."""
    load_pair(benchmark, [0], torch.device("cpu"), torch.float32, root)


def sizes(benchmark: AdaptationSettings) -> tuple[tuple[int, int, int], int]:
    """Shape of an input, and units of the head."""
    shape, classes = domain_tables.facts(benchmark.source)
    channels, rows, columns = shape
    rows, columns = (benchmark.size or side for side in (rows, columns))
    return (benchmark.channels or channels, rows, columns), classes


def total_steps(config: Any) -> int:
    """Optimiser steps of a run; of an estimator 0."""
    steps = sum(part.steps for part in config.method.parts(config.train))
    return steps * (2 if config.benchmark.reverse else 1)


def held_out(benchmark: AdaptationSettings, fraction: float, metric: str) -> AdaptationSettings:
    """As a selection sees it: nothing of the target's labels, unless it chooses by `oracle`."""
    return dataclasses.replace(
        benchmark,
        validation=fraction,
        evaluate=ORACLE if metric == ORACLE else "selectors",
        reverse=benchmark.reverse or metric == "reverse",
    )


def possible_metrics(config: Any) -> set[str]:
    """The metrics that a run can have: without labels only scores, and those only if asked for."""
    benchmark = config.benchmark
    without = set() if benchmark.reverse else {"reverse"}
    without |= set() if benchmark.validation else {"source_acc", "dev"}
    known = METRICS if benchmark.evaluate in ("test", "training") else UNLABELLED
    return {*known, *([ORACLE] if benchmark.evaluate == ORACLE else [])} - without


def columns(config: Any) -> dict[str, str]:
    """Columns of text of a row."""
    return config.method.notes()


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
    """Trains the seeds of a stack, from their checkpoint if there is one, and measures them.

    Args:
        run: what to run.
        device: where.
        files: its checkpoint (removed by the caller when the records are written) and its log.
        root: data root; None: where the environment says.
        progress: told of the steps done.
        checkpoint_seconds: time between checkpoints.
        track: told of each line of the log.
        processes: one only.
        streamed: has no effect: domains are held on the device.

    Raises:
        UserError: several processes, or data that are missing or damaged.
    """
    if processes.size > 1:
        raise UserError("domain adaptation runs in one process; start it without torchrun")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    shallow, dtype = isinstance(run.method, Estimator), dtype_of(run.train.precision)
    if shallow:
        device, dtype = torch.device("cpu"), torch.float64
    pair, sealed = load_pair(run.benchmark, run.seeds, device, dtype, root, run.method.oracle)
    if shallow:
        return run_estimators(run, pair, sealed, progress)
    observer = partial(RunObserver, progress=progress, checkpoint_seconds=checkpoint_seconds)
    with tf32(run.train.tf32):
        journey = _Journey(run, pair, begin(run, pair, device), files)
        journey.observer = observer(journey.training, files, journey.place, track=track)
        journey.travel()
        if run.benchmark.reverse:
            back = journey.back(files)
            back.observer = observer(back.training, back.files, back.place)
            back.travel()
            journey.measure_back(back)
        return journey.outcomes(sealed)


def begin(run: StackRun, pair: Pair, device: torch.device) -> Training:
    """The networks of all seeds at initialisation."""
    dtype = dtype_of(run.train.precision)
    networks = [
        run.method.networks(run.backbone, pair.shape, pair.classes, seed).to(dtype)
        for seed in run.seeds
    ]
    if run.train.channels_last:
        networks = [network.to(memory_format=torch.channels_last) for network in networks]
    state = tree.stack([run.method.init(network.to(device)) for network in networks])
    fields = {
        name: torch.tensor(values, dtype=dtype, device=device)
        for name, values in run.fields.items()
    }
    return start(run.seeds, stack_networks(networks, device), run.method, fields, run.train, state)


class _Journey:
    """One stack on its way through the rounds."""

    observer: RunObserver

    def __init__(self, run: StackRun, pair: Pair, training: Training, files: RunFiles) -> None:
        self.run, self.pair, self.training, self.files = run, pair, training, files
        self.rounds = run.method.parts(run.train)
        self.number, self.learning = 0, Stage(training)
        self.chosen: list[Chosen | None] = [None] * len(run.seeds)
        self.journal: list[list[Chosen | None]] = []
        """What each round chose of each seed's target pool."""
        self.done = [False] * len(run.seeds)
        """Of each seed: whether a round chose nothing, so that its training is over."""
        self.seconds, self.began = 0.0, time.monotonic()
        self.scores: list[dict[str, float]] = [{} for _ in run.seeds]
        """Of each seed: what was measured on the way back, if there was one."""

    def place(self, step: int) -> dict[str, Any]:
        """What a checkpoint says of the way so far."""
        seconds = self.seconds + time.monotonic() - self.began
        journal = [[one and tree.to_plain(one) for one in row] for row in self.journal]
        place = {"round": self.number, "step": step, "journal": journal, "done": self.done}
        return place | self.learning.place() | {"seconds": seconds}

    def travel(self) -> None:
        """The remaining rounds; then each method's last word."""
        place = checkpoint.resume(self.files.checkpoint, self.training, self._fits)
        if place is not None:
            self._go_to(place)
        self.files.log_lines_before(self.number, self.learning.step)
        before = sum(part.steps for part in self.rounds[: self.number])
        self.observer.progress(before + self.learning.step)
        while self.number < len(self.rounds) and None in self.training.failures:
            self._learn(before)
            before += self.rounds[self.number].steps
            self.number += 1
            self.learning.reset()
            self.observer.save_if_due(0)
        if self.run.benchmark.reverse:
            self.observer.save(0)  # a stop on the way back costs nothing of the way there
        self._end()

    def _go_to(self, place: dict[str, Any]) -> None:
        self.number, self.seconds, self.done = place["round"], place["seconds"], place["done"]
        self.journal = [[one and Chosen(**one) for one in row] for row in place["journal"]]
        if place["step"]:
            self.chosen = self.journal[-1]
        self.learning.go_to(place)

    def _fits(self, place: dict[str, Any]) -> bool:
        return (
            place["round"] in range(len(self.rounds) + 1)
            and len(place["done"]) == len(self.run.seeds)
            and len(place["journal"]) == place["round"] + (place["step"] > 0)
            and place["seconds"] >= 0
            and self._with_steps(place["round"]).fits(place)
        )

    def _with_steps(self, number: int) -> Stage:
        """The stage, its training as long as a round."""
        part = self.rounds[min(number, len(self.rounds) - 1)]
        train = dataclasses.replace(self.run.train, steps=part.steps)
        if not part.source:  # nothing of the source may be looked at, so nothing is selected
            still = {"checkpoint": "last", "evaluate_every": Train().evaluate_every, "patience": 0}
            train = dataclasses.replace(train, **still)
        self.training.train = train
        return self.learning

    def _learn(self, before: int) -> None:
        """One round."""
        part, learning = self.rounds[self.number], self._with_steps(self.number)
        self.observer.stage = self.number
        if learning.step == 0:
            self._choose()
            if part.fresh and self.number:
                self._renew()
            learning.begin(self.number, before)  # an average begins with the renewed weights
            self._stop_done()
        batches = RoundBatches(self.pair, self.number, part, self.chosen, self.training.train)
        learning.learn(batches.batch, self.observer, self._scores, f"round {self.number + 1}")

    def _choose(self) -> None:
        """States and target samples of the round; a seed with nothing to learn from is done."""
        places = range(len(self.run.seeds))
        states = [tree.take(self.training.state, place) for place in places]
        self.chosen = [None for _ in places]
        learners = self._learners()
        for place in learners:
            method, networks = self._one(place)
            before = self.journal[-1][place] if self.journal else None
            data = SeedData(self.pair, place, self.number, before)
            with torch.no_grad():
                states[place], chosen = method.before_round(
                    networks, states[place], self.number, data
                )
            self.chosen[place] = chosen
            self.done[place] = chosen is not None and not len(chosen.places)
        self.training.state = tree.stack(_alike(states, [*learners, *places][0]))
        self.journal.append(self.chosen)

    def _learners(self) -> list[int]:
        """Places of the seeds that neither failed nor are done."""
        ends = zip(self.training.failures, self.done, strict=True)
        return [i for i, (failure, done) in enumerate(ends) if failure is None and not done]

    def _stop_done(self) -> None:
        """Seeds that are done keep their weights for the rest of the way."""
        for place, over in enumerate(self.done):
            if over and self.training.active[place]:
                self.training.stop(place, None)

    def _renew(self) -> None:
        """Weights, statistics and optimiser as in the beginning, of the seeds that still learn."""
        mine, device = self.training.stack, next(iter(self.training.stack.params.values())).device
        other = begin(self.run, self.pair, device).stack
        for ours, fresh in ((mine.params, other.params), (mine.buffers, other.buffers)):
            for name, tensor in ours.items():
                for place in self._learners():
                    tensor[place] = fresh[name][place].detach()
        self.training.reset_optimizer()

    def _scores(self) -> Tensor:
        """Accuracy on the held-out part of the source; never anything of the target."""
        held_out = [
            [(x, y, None) for x, y in SeedData(self.pair, place, 0).held_out()]
            for place in range(len(self.run.seeds))
        ]
        with passing(self.training.stack.module, "source"):
            return accuracy_per_seed(self.training, held_out)

    def _one(self, place: int) -> tuple[AdaptationMethod, AdaptedClassifier]:
        """Method and networks of one seed, in evaluation mode."""
        method, networks = self.training.one(place)
        assert isinstance(method, AdaptationMethod) and isinstance(networks, AdaptedClassifier)
        return method, networks.eval()

    def _end(self) -> None:
        states = {}
        for place, failure in enumerate(self.training.failures):
            if failure is None:
                method, networks = self._one(place)
                state = tree.take(self.training.state, place)
                data = SeedData(self.pair, place, len(self.rounds))
                states[place] = method.after_training(networks, state, data)
        if states:  # a failed seed is measured no more, so any state will do
            some = next(iter(states.values()))
            places = range(len(self.run.seeds))
            self.training.state = tree.stack([states.get(place, some) for place in places])

    def trained(self, place: int) -> Trained:
        """One seed's model at the end."""
        method, networks = self._one(place)
        data = SeedData(self.pair, place, len(self.rounds))
        return Trained(method, networks, tree.take(self.training.state, place), data)

    def back(self, files: RunFiles) -> "_Journey":
        """The way back for reverse validation: see `reverse`."""
        labels = [
            labelled(self.trained(place)) if failure is None else torch.zeros_like(pool)
            for place, (failure, pool) in enumerate(
                zip(self.training.failures, self.pair.target_pools, strict=True)
            )
        ]
        benchmark, train = self.run.benchmark, self.run.train
        held_out = benchmark.validation if train.checkpoint == "selected" else 0.0
        pair = reversed_pair(self.pair, labels, held_out)
        files = dataclasses.replace(
            files,
            checkpoint=files.checkpoint.with_name("reverse.pt"),
            log=files.log.with_name("reverse.jsonl"),
        )
        device = self.pair.scale.device
        return _Journey(self.run, pair, begin(self.run, pair, device), files)

    def measure_back(self, back: "_Journey") -> None:
        """Notes reverse validation's accuracy; of a seed that failed on the way it is undefined."""
        for place, failure in enumerate(back.training.failures):
            value = math.nan if failure else reverse_accuracy(back.trained(place), self.pair)
            self.scores[place] = {"reverse": value}
        back.files.checkpoint.unlink(missing_ok=True)

    def outcomes(self, sealed: Sealed) -> list[Outcome]:
        """What each seed came to; here, and only here, the target's labels are opened."""
        total = self.seconds + time.monotonic() - self.began
        device = self.pair.scale.device
        rows = []
        for place, failure in enumerate(self.training.failures):
            details = {
                "steps": self.training.steps[place],
                "stack_seconds": total,
                "samples_per_step": 2 * self.run.train.batch_size * self.run.train.accumulate,
                "peak_memory_bytes": peak_memory(device),
            }
            if failure:
                rows.append(Outcome({}, {}, "failed", failure, details))
                continue
            trained = self.trained(place)
            weights = weights_of(trained.networks)
            opened = None
            if self.run.benchmark.evaluate != "selectors":
                opened = sealed.open(Frozen(weights))
            journal = [row[place] for row in self.journal]
            found, arrays = measure(trained, self.run.benchmark, journal, opened)
            found |= self.scores[place]
            details |= _ending(journal)
            rows.append(Outcome(found, arrays, "finished", None, details, weights))
        return rows


def _alike(states: list[tree.Tree], like: int) -> list[tree.Tree]:
    """The states, that of a seed which failed before it had such a one replaced by another's."""
    shapes = [[leaf.shape for leaf in tree.tensors(state)] for state in states]
    pairs = zip(states, shapes, strict=True)
    return [state if own == shapes[like] else states[like] for state, own in pairs]


def _ending(journal: list[Chosen | None]) -> dict[str, str]:
    """What a record says of a training that ended before its last round."""
    for number, one in enumerate(journal):
        if one is not None and not len(one.places):
            if one.settled:
                return {"ended": f"settled before round {number + 1} of {len(journal)}"}
            return {
                "warning": f"round {number + 1} of {len(journal)} chose no target sample, so the "
                "weights of the round before are the last ones"
            }
    return {}
