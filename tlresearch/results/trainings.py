"""Trainings that several runs share: what is measured differs, what was trained does not.

The weights of a training lie in the results folder under a key of all that it depends on, so that
the next run which needs the same training takes them instead of training again. They carry the
hash of the code that trained them, and a record made with other code's weights is marked as stale.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from tlresearch.errors import UserError
from tlresearch.results import weights as files


@dataclasses.dataclass(frozen=True)
class Trained:
    """What was kept of one training."""

    weights: dict[str, Tensor]
    steps: int
    seconds: float
    source: str
    """Hash of the code that trained it."""


def path_of(folder: Path, key: str) -> Path:
    """Where the weights of a training lie."""
    return folder / f"seed-{key[:32]}{files.SUFFIX}"


def keep(folder: Path, key: str, trained: Trained, seed: int) -> None:
    """Writes what was trained, whole or not at all."""
    facts = {"steps": trained.steps, "seconds": trained.seconds, "source": trained.source}
    facts |= {"digest": _digest(trained.weights)}
    about = dict.fromkeys(files.ABOUT, "") | {"key": key, "seed": str(seed)}
    files.write(path_of(folder, key), trained.weights, about | {"training": json.dumps(facts)})


def find(folder: Path, key: str, like: dict[str, Tensor], since: float = 0.0) -> Trained | None:
    """What was trained under a key; None if it is not there or is of other networks.

    Args:
        folder: of shared trainings.
        key: as `training_key` makes it.
        like: tensors of the shapes and types that are expected.
        since: what was kept before this time, in seconds since the epoch, does not count.

    Raises:
        UserError: the file is damaged.
    """
    path = path_of(folder, key)
    if not path.exists() or path.stat().st_mtime < since:
        return None
    weights, about = files.read(path)
    shapes = {name: (t.shape, t.dtype) for name, t in weights.items()}
    if about["key"] != key or shapes != {name: (t.shape, t.dtype) for name, t in like.items()}:
        return None
    facts = json.loads(about.get("training", "{}"))
    # Older files have no digest; without the other facts it is none of ours.
    if facts.get("digest", _digest(weights)) != _digest(weights) or "source" not in facts:
        raise UserError(
            f"{path}: these trained weights are damaged; delete the file, and the next run of "
            "their experiment trains them again"
        )
    return Trained(weights, facts["steps"], facts["seconds"], facts["source"])


def _digest(weights: dict[str, Tensor]) -> str:
    """SHA-256 of the bytes of all weights, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        flat = weights[name].contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_into(
    params: dict[str, Tensor], buffers: dict[str, Tensor], trained: list[Trained]
) -> None:
    """Writes the weights of all seeds into a stack's tensors, (S, …) each."""
    with torch.no_grad():
        for tensors in (params, buffers):
            for name, stacked in tensors.items():
                for place, one in enumerate(trained):
                    if name in one.weights:
                        stacked[place].copy_(one.weights[name])
