"""Checkpoints: what a run needs to go on exactly where it was, written whole or not at all."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlresearch.errors import UserError
from tlresearch.training.averages import Average
from tlresearch.training.loop import Training
from tlresearch.training.scaler import Scaler
from tlresearch.training.tree import from_plain, to_plain


def save(path: Path, training: Training, place: dict[str, Any]) -> None:
    """Writes a training and its place in the protocol.

    Args:
        path: the file; its folder is made. A temporary file beside it is renamed to it.
        training: what the loop changed.
        place: where the protocol is: numbers, strings, tensors, in dicts and lists.
    """
    plain = {
        "params": {k: p.detach() for k, p in training.stack.params.items()},
        "buffers": training.stack.buffers,
        "optimizer": training.optimizer.state_dict(),
        "state": to_plain(training.state),
        "steps": training.steps,
        "active": training.active,
        "failures": training.failures,
        "scaler": training.scaler and [training.scaler.scale, training.scaler.good],
        "average": training.average and training.average.values,
        "place": place,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(plain, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, training: Training) -> dict[str, Any]:
    """Reads a checkpoint into `training`, in place; returns the protocol's place.

    Only tensors and plain containers are read (`weights_only=True`).

    Raises:
        UserError: the file is damaged, or of something else.
    """
    device = next(iter(training.stack.params.values())).device
    try:
        plain = torch.load(path, map_location=device, weights_only=True)
        with torch.no_grad():
            _copy_into(training.stack.params, plain["params"])
            _copy_into(training.stack.buffers, plain["buffers"])
        training.optimizer.load_state_dict(plain["optimizer"])
        training.state = from_plain(plain["state"], training.state)
        training.steps = plain["steps"]
        training.active = plain["active"]
        training.failures = plain["failures"]
        training.scaler = Scaler(*plain["scaler"]) if plain["scaler"] else None
        average = plain["average"]
        training.average = Average(training.train.average, average) if average else None
        place = plain["place"]
    except (pickle.UnpicklingError, LookupError, TypeError, ValueError, RuntimeError, OSError):
        raise UserError(
            f"{path}: this checkpoint cannot be read; delete it, "
            "and the same command starts its run anew"
        ) from None
    training.keep_stopped()
    return place


def _copy_into(target: dict[str, Tensor], source: dict[str, Tensor]) -> None:
    for name, value in target.items():
        value.copy_(source[name])
