"""The order of domain adaptation: rounds of training, then one look at the target's labels.

A round is one run of the loop with its own batches and schedules: one for most methods; source
and then target for the source-free ones; one for each set of pseudo-labels in self-training.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from tlresearch.adaptation import METHODS
from tlresearch.adaptation.checks import check
from tlresearch.adaptation.estimation import run_estimators
from tlresearch.adaptation.estimator import Estimator
from tlresearch.adaptation.journey import Journey
from tlresearch.adaptation.method import AdaptationMethod, Chosen
from tlresearch.adaptation.report import METRICS, measure
from tlresearch.adaptation.reverse import labelled, reverse_accuracy, reversed_pair
from tlresearch.adaptation.scores import (
    ORACLE,
    PROBABILISTIC,
    SELECTORS,
    UNLABELLED,
    check_selection,
)
from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.adaptation.trying import trial
from tlresearch.data import domain_tables
from tlresearch.data.domains import Frozen, Pair, Sealed
from tlresearch.data.pairs import load_pair
from tlresearch.errors import UserError
from tlresearch.training.device import dtype_of, peak_memory, tf32
from tlresearch.training.distributed import ALONE, Processes
from tlresearch.training.observer import CHECKPOINT_SECONDS, RunFiles, RunObserver
from tlresearch.training.runs import Outcome, StackRun
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
    without |= set() if config.method.probabilistic else {*PROBABILISTIC, "ece"}
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
        journey = Journey(run, pair, files)
        journey.observer = observer(journey.training, files, journey.place, track=track)
        journey.travel()
        scores, seconds = [{} for _ in run.seeds], 0.0
        if run.benchmark.reverse:
            back = _way_back(journey)
            back.observer = observer(back.training, back.files, back.place)
            back.travel()
            scores, seconds = _measured(back, pair), back.seconds
        return _outcomes(journey, sealed, scores, journey.elapsed + seconds)


def _way_back(journey: Journey) -> Journey:
    """The same method from the target with its model's labels: see `reverse`."""
    run, there = journey.run, journey.pair
    labels = [
        labelled(journey.trained(place)) if failure is None else torch.zeros_like(pool)
        for place, (failure, pool) in enumerate(
            zip(journey.training.failures, there.target_pools, strict=True)
        )
    ]
    needed = run.train.checkpoint == "selected" or run.method.held_out_for()
    held_out = run.benchmark.validation if needed else 0.0
    files = dataclasses.replace(
        journey.files,
        checkpoint=journey.files.checkpoint.with_name("reverse.pt"),
        log=journey.files.log.with_name("reverse.jsonl"),
    )
    return Journey(run, reversed_pair(there, labels, held_out), files)


def _measured(back: Journey, there: Pair) -> list[dict[str, float]]:
    """Reverse validation's accuracy of each seed; of one that failed on the way it is undefined."""
    back.files.checkpoint.unlink(missing_ok=True)
    return [
        {"reverse": math.nan if failure else reverse_accuracy(back.trained(place), there)}
        for place, failure in enumerate(back.training.failures)
    ]


def _outcomes(
    journey: Journey, sealed: Sealed, scores: list[dict[str, float]], seconds: float
) -> list[Outcome]:
    """What each seed came to; here, and only here, the target's labels are opened."""
    run, rows = journey.run, list[Outcome]()
    for place, failure in enumerate(journey.training.failures):
        details = {
            "steps": journey.training.steps[place],
            "stack_seconds": seconds,
            "samples_per_step": _samples_per_step(run),
            "peak_memory_bytes": peak_memory(journey.pair.scale.device),
        }
        if failure:
            rows.append(Outcome({}, {}, "failed", failure, details))
            continue
        trained = journey.trained(place)
        weights = weights_of(trained.networks)
        opened = None
        if run.benchmark.evaluate != "selectors":
            frozen = Frozen(weights)
            opened, details["opened_with"] = sealed.open(frozen), frozen.digest
        journal = [row[place] for row in journey.journal]
        found, arrays = measure(trained, run.benchmark, journal, opened)
        details |= _ending(journal)
        rows.append(Outcome(found | scores[place], arrays, "finished", None, details, weights))
    return rows


def _samples_per_step(run: StackRun) -> float:
    """Of both domains, the mean over the steps."""
    parts = run.method.parts(run.train)
    batches = sum(part.steps * (part.source + part.target) for part in parts)
    steps = sum(part.steps for part in parts)
    return batches / max(steps, 1) * run.train.batch_size * run.train.accumulate


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
