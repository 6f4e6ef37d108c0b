"""The order of zero-shot learning: features, then an estimator on seen classes, then both tests.

Xian et al., arXiv:1707.00600: the conventional setting, in which the unseen classes alone compete,
and the generalised one, in which all do. Where the benchmark trains the features, each seed's are
trained once for all methods and their settings: see `classifiers`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlresearch.data import xian
from tlresearch.data.glyph_classes import GLYPHS, glyph_fingerprint, glyph_sizes
from tlresearch.data.zero_shot import ZeroShotData, ZeroShotSplit
from tlresearch.errors import UserError
from tlresearch.fewshot.zeroshot import METHODS, features
from tlresearch.fewshot.zeroshot import benchmark as settings
from tlresearch.fewshot.zeroshot.benchmark import ZeroShotSettings
from tlresearch.fewshot.zeroshot.classifiers import Classifiers, Watch, classifiers
from tlresearch.fewshot.zeroshot.evaluation import METRICS, Task, evaluate
from tlresearch.fewshot.zeroshot.method import ZeroShotMethod
from tlresearch.training.device import peak_memory, tf32
from tlresearch.training.distributed import ALONE, Processes
from tlresearch.training.loop import with_fields
from tlresearch.training.observer import CHECKPOINT_SECONDS, RunFiles
from tlresearch.training.runs import Outcome, StackRun
from tlresearch.training.settings import Train
from tlresearch.training.weights import weights_of

__all__ = ["METHODS", "METRICS", "Benchmark", "Method", "Outcome", "StackRun", "check", "run_stack"]

Benchmark = ZeroShotSettings
Method = ZeroShotMethod
ONE_PROCESS = True
DEFAULT_METRICS = ("acc", "acc_seen", "acc_unseen", "acc_harmonic")


def check(benchmark: ZeroShotSettings, method: ZeroShotMethod, label: str, train: Train) -> None:
    """Refuses combinations that make no sense, before any work.

    Raises:
        UserError: naming the key, what was expected and what to do.
    """
    settings.check_dataset(benchmark.dataset)
    if (benchmark.evaluate == "validation") != (benchmark.validation > 0):
        raise UserError(
            f"benchmark.validation: {benchmark.validation:g} with evaluate '{benchmark.evaluate}'; "
            "set a fraction above 0 and evaluate: validation together, or leave both out"
        )
    if train.checkpoint == "selected":
        raise UserError(
            "train.checkpoint: zero-shot learning measures nothing while the features train; "
            "leave it at 'last'"
        )
    changed = [n for n in ("loss", "networks") if getattr(type(method), n) != getattr(Method, n)]
    if changed:
        raise UserError(
            f"methods.{label}: {type(method).__name__} has a {changed[0]} of its own, which is "
            "never used, as features are trained in the same way for all; define fit and scores"
        )


def datasets(benchmark: ZeroShotSettings) -> list[str]:
    """Names in the catalogue; Xian's files are in none."""
    return [GLYPHS] if benchmark.dataset == GLYPHS else []


def fingerprint(benchmark: ZeroShotSettings) -> str:
    """SHA-256 of the data; of Xian's files it is that of the files, which have to be there."""
    if benchmark.dataset == GLYPHS:
        return glyph_fingerprint()
    return xian.fingerprint(benchmark.dataset)


def load_data(benchmark: ZeroShotSettings, root: Path | None = None) -> None:
    """Refuses before any work data that are missing or damaged."""
    settings.load(benchmark, root)


def sizes(benchmark: ZeroShotSettings) -> tuple[tuple[int, int, int], int]:
    """Shape of an input, and most units of a classifier."""
    return glyph_sizes() if benchmark.dataset == GLYPHS else xian.sizes(benchmark.dataset)


def total_steps(config: Any) -> int:
    """Steps of a run, for the progress bar: those of the features, and one for the estimators."""
    return (config.train.steps if config.benchmark.features == "trained" else 0) + 1


def columns(config: Any) -> dict[str, str]:
    """Columns of text: where the features come from, and what they are scaled to."""
    scale = config.benchmark.scale
    return {"features": config.benchmark.features + ("" if scale == "none" else f", {scale}")}


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
    """Makes the features of each seed, then fits and measures each seed's estimator.

    Args:
        run: what to run.
        device: where.
        files: checkpoint and log of the features' training.
        root: data root; None: where the environment says.
        progress: told of the steps done.
        checkpoint_seconds: time between checkpoints.
        track: told of each line of the log.
        processes: one only.
        streamed: has no effect, as the data are small.

    Raises:
        UserError: several processes, or data that are missing or damaged.
    """
    if processes.size > 1:
        raise UserError("zero-shot experiments run in one process; start them without torchrun")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began = time.monotonic()
    data = settings.load(run.benchmark, root)
    split = settings.split_of(run.benchmark, data)
    seeds = list(dict.fromkeys(run.seeds))  # several settings of the method share a seed's features
    trained = None
    with tf32(run.train.tf32):
        if run.benchmark.features == "trained":
            watch = Watch(progress, track, checkpoint_seconds)
            trained = classifiers(run, data, split, seeds, device, files, watch)
        outcomes: dict[int, Outcome] = {}
        for seed in seeds:
            made = _make(run, data, split, trained, seed, device)
            outcomes |= {i: _outcome(run, i, made) for i, s in enumerate(run.seeds) if s == seed}
    progress(1)
    costs = {"stack_seconds": time.monotonic() - began, "peak_memory_bytes": peak_memory(device)}
    for outcome in outcomes.values():
        outcome.details.update(costs)
    return [outcomes[place] for place in range(len(run.seeds))]


@dataclass(frozen=True)
class _Made:
    """What there is of a seed before any estimator."""

    task: Task
    failure: str | None
    steps: int
    """Of training, that its features took."""
    weights: dict[str, Tensor]
    trained: Classifiers | None


def _make(
    run: StackRun,
    data: ZeroShotData,
    split: ZeroShotSplit,
    trained: Classifiers | None,
    seed: int,
    device: torch.device,
) -> _Made:
    """The features of a seed."""
    benchmark, network, failure, steps = run.benchmark, None, None, 0
    if trained is not None:
        training = trained.training
        place = training.seeds.index(seed)
        network, failure = training.one(place)[1], training.failures[place]
        steps = training.steps[place]
    elif benchmark.features == "frozen":
        network = features.network_of(run.backbone, data, split, run.train, seed).to(device)
    raw = features.features_of(data.inputs, network, run.train, device)
    if failure is None and not raw.isfinite().all():
        failure = f"its features were not finite after {steps} steps"
    on_device = ZeroShotSplit(*(part.to(device) for part in split))
    task = Task(
        features.scaled(raw, on_device.train, benchmark.scale),
        data.labels.to(device),
        settings.class_attributes(benchmark, data).to(device),
        on_device,
    )
    # A selection's networks are nobody's result.
    keep = trained is not None and failure is None and benchmark.evaluate == "test"
    return _Made(task, failure, steps, weights_of(network) if keep and network else {}, trained)


def _outcome(run: StackRun, place: int, made: _Made) -> Outcome:
    """What the estimator of one place of the stack came to."""
    task, failure = made.task, made.failure
    own = {name: values[place] for name, values in run.fields.items()}
    method = with_fields(run.method, own)
    assert isinstance(method, ZeroShotMethod)
    found: dict[str, Any] = {}
    began = time.monotonic()
    if failure is None:
        try:
            found = evaluate(method, task, run.seeds[place])
        except (FloatingPointError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            failure = " ".join(str(error).split())[:200]
    details = {
        "steps": made.steps,
        "seen_classes": len(task.seen),
        "unseen_classes": len(task.unseen),
        "images": {name: len(part) for name, part in task.split._asdict().items()},
        "estimator_seconds": time.monotonic() - began,
    }
    source = made.trained.source if made.trained else None
    if made.trained:
        details["training_seconds"] = made.trained.seconds
    arrays = {"accuracy_by_class": found.pop("by_class", {})}
    if failure:
        return Outcome({}, {}, "failed", failure, details, source=source)
    return Outcome(found, arrays, "finished", None, details, made.weights, source)
