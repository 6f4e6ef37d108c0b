"""The estimators' runs: fit, freeze, measure, seed by seed, without the loop."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tlresearch.adaptation.batches import SeedData
from tlresearch.adaptation.estimator import Estimator, Fitted, rows
from tlresearch.adaptation.report import measure
from tlresearch.adaptation.reverse import labelled, reverse_accuracy, reversed_pair
from tlresearch.adaptation.trained import Trained
from tlresearch.data.domains import Frozen, Pair, Sealed
from tlresearch.errors import UserError
from tlresearch.training.device import peak_memory
from tlresearch.training.loop import with_fields
from tlresearch.training.runs import Outcome, StackRun

FAILURES = (np.linalg.LinAlgError, FloatingPointError)
"""What numbers may cause; all else is somebody's mistake."""


def run_estimators(
    run: StackRun, pair: Pair, sealed: Sealed, progress: Callable[[int], None]
) -> list[Outcome]:
    """Fits and measures the estimator of each seed.

    Places of the stack that would fit the same, as no sample and no fold is drawn, share a fit.

    Args:
        run: of an `Estimator`.
        pair: in float64, on the CPU.
        sealed: the target's labels, opened when a fit is over.
        progress: told of nothing but the end: there are no steps.

    Raises:
        UserError: a setting does not fit the samples.
    """
    began = time.monotonic()
    # A closed form does not ask for an order, and in one order seeds can share it.
    pair = replace(pair, target_pools=[pool.sort().values for pool in pair.target_pools])
    known: dict[Any, tuple[Fitted | str, float]] = {}
    outcomes = []
    for place, seed in enumerate(run.seeds):
        own = {name: values[place] for name, values in run.fields.items()}
        method = with_fields(run.method, own)
        assert isinstance(method, Estimator)
        pools = (pair.source_pools[place], pair.target_pools[place])
        name = (method, *(pool.numpy().tobytes() for pool in pools), method.draws and seed)
        if name not in known:
            start = time.monotonic()
            found = _fit(method, pair, place)
            known[name] = (found, time.monotonic() - start)
        outcomes.append(_outcome(run, method, pair, sealed, place, *known[name]))
    for outcome in outcomes:
        outcome.details["stack_seconds"] = time.monotonic() - began
    progress(0)
    return outcomes


def _fit(method: Estimator, pair: Pair, place: int) -> Fitted | str:
    """What is learned, or why nothing is."""
    sources, targets = pair.source_pools[place], pair.target_pools[place]
    try:
        return method.fit(
            rows(pair.inputs(pair.source.images[sources])),
            pair.labels(place)[sources].numpy(),
            rows(pair.inputs(pair.target.images[targets])),
            pair.classes,
            SeedData(pair, place, 0).key("estimator"),
        )
    except UserError as error:
        raise UserError(f"method {type(method).__name__}: {error}") from None
    except FAILURES as error:
        return " ".join(str(error).split())[:200]


def _outcome(
    run: StackRun,
    method: Estimator,
    pair: Pair,
    sealed: Sealed,
    place: int,
    fitted: Fitted | str,
    seconds: float,
) -> Outcome:
    sources, targets = pair.source_pools[place], pair.target_pools[place]
    details: dict[str, Any] = {
        "steps": 0,
        "estimator_seconds": seconds,
        "samples": {"source": len(sources), "target": len(targets)},
        "peak_memory_bytes": peak_memory(torch.device("cpu")),
    }
    if isinstance(fitted, str):
        return Outcome({}, {}, "failed", fitted, details)
    opened = None
    if run.benchmark.evaluate != "selectors":
        # The scores of all training samples stand for what was learned.
        images = (pair.source.images[sources], pair.target.images[targets])
        with torch.no_grad():
            said = (fitted.source_scores(pair.inputs(images[0])), fitted(pair.inputs(images[1])))
        opened = sealed.open(Frozen({"source": said[0], "target": said[1]}))
    trained = Trained(method, fitted, {}, SeedData(pair, place, 0))
    found, arrays = measure(trained, run.benchmark, [], opened)
    if run.benchmark.reverse:
        found["reverse"] = _reverse_accuracy(trained, method, pair, place)
    return Outcome(found, arrays, "finished", None, details | fitted.details)


def _reverse_accuracy(trained: Trained, method: Estimator, pair: Pair, place: int) -> float:
    """That of a fit the other way, see `reverse`; NaN where there is none."""
    own = labelled(trained)
    labels = [own if i == place else torch.zeros_like(p) for i, p in enumerate(pair.target_pools)]
    back = reversed_pair(pair, labels, 0.0)
    try:
        fitted = _fit(method, back, place)
    except UserError:  # no sample of the target is taken for one of the classes
        return math.nan
    if isinstance(fitted, str):
        return math.nan
    there = Trained(method, fitted, {}, SeedData(back, place, 0))
    return reverse_accuracy(there, pair)
