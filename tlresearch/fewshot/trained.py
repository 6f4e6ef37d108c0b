"""What names a training that several runs share (see `results.trainings`).

A run's record says what it was measured on; its training is named by a key of all that the
training depends on, which is less.
"""

import dataclasses
import hashlib
import json
from typing import Any

from tlresearch.configs import plain_config
from tlresearch.fewshot.batches import episode_sizes
from tlresearch.fewshot.settings import EVALUATION_ONLY
from tlresearch.own import sources
from tlresearch.training.runs import StackRun


def training_key(run: StackRun, place: int, fingerprint: str) -> str:
    """SHA-256 of what the training of one seed depends on; hexadecimal.

    Args:
        run: the stack.
        place: of the seed in the stack.
        fingerprint: of the training data.
    """
    benchmark = plain_config(run.benchmark, defaults=False)
    benchmark = {k: v for k, v in benchmark.items() if k not in EVALUATION_ONLY}
    own = {name: values[place] for name, values in run.fields.items()}
    plain = {
        "benchmark": benchmark,
        "backbone": plain_config(run.backbone, defaults=False),
        "method": _method(run, own),
        "train": plain_config(dataclasses.replace(run.train, stack="auto"), defaults=False),
        "seed": run.seeds[place],
        "data": fingerprint,
    }
    if run.train.checkpoint == "selected":  # then all that evaluation depends on decides, too
        sizes = [getattr(run.benchmark, name) for name in ("ways", "shots", "queries", "episodes")]
        measured = plain_config(dataclasses.replace(run.method, **own), defaults=False)
        plain["selected on"] = [sizes, measured]
    files = [hashlib.sha256(file).hexdigest() for file in sources(run)]
    if files:  # code that is under work: an edit is another training
        plain["own files"] = files
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _method(run: StackRun, own: dict[str, float]) -> dict[str, Any]:
    """A method's settings as training sees them, its nulls filled in."""
    method = dataclasses.replace(run.method, **own)
    plain = plain_config(method, defaults=False)
    for name in method.evaluation_fields:
        plain.pop(name, None)
    plain["kind"] = method.training_kind or plain["kind"]
    if method.trains_on == "episodes":
        plain["episodes"] = episode_sizes(run.benchmark, method)
    for name in ("train_ways", "train_shots", "train_queries"):
        plain.pop(name, None)
    return plain
