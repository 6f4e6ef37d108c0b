"""Checkpoints: what a run needs to go on exactly where it was, written whole or not at all."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlresearch.errors import UserError, notice
from tlresearch.files import set_aside, write_atomic
from tlresearch.training.averages import Average
from tlresearch.training.loop import Training
from tlresearch.training.scaler import Scaler
from tlresearch.training.tree import from_plain, tensors, to_plain

_UNREADABLE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, LookupError),
    *(AttributeError, TypeError, ValueError, RuntimeError),
)
"""What reading a damaged or foreign file raises."""


def save(path: Path, training: Training, place: dict[str, Any]) -> None:
    """Writes a training and its place in the protocol.

    Args:
        path: the file; its folder is made. A temporary file beside it is renamed to it.
        training: what the loop changed.
        place: where the protocol is: numbers, strings, tensors, in dicts and lists.

    Raises:
        UserError: the file cannot be written (full disk, permission); an older one is as it was.
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
    write_atomic(path, lambda file: torch.save(plain, file))


def resume(
    path: Path, training: Training, fits: Callable[[dict[str, Any]], bool]
) -> dict[str, Any] | None:
    """Reads a checkpoint, if there is one, into `training`; returns the protocol's place.

    One that cannot be read is named on the error stream and set aside. `training` is then as it
    was, for the run to start anew.

    Args:
        path: the checkpoint.
        training: at its beginning.
        fits: whether a place is one of this protocol; it may raise as missing entries do.
    """
    if not path.exists():
        return None
    try:
        return load(path, training, fits)
    except UserError as error:
        notice(f"{error}; it was renamed to {set_aside(path).name}, and its run starts anew")
        return None


def load(
    path: Path,
    training: Training,
    fits: Callable[[dict[str, Any]], bool] = lambda place: True,
) -> dict[str, Any]:
    """Reads a checkpoint into `training`, in place; returns the protocol's place.

    Only tensors and plain containers are read (`weights_only=True`), and everything is compared
    with `training` before any of it is changed.

    Raises:
        UserError: the file is damaged, or of something else; `training` is as it was.
    """
    device = next(iter(training.stack.params.values())).device
    try:
        _check_content(path)
        plain = torch.load(path, map_location=device, weights_only=True)
        _check_fit(plain, training)
        state = from_plain(plain["state"], training.state)
        scaler, average = _extras(plain, training)
        if not fits(plain["place"]):
            raise ValueError("its place is none of this run")
    except torch.OutOfMemoryError:
        raise
    except _UNREADABLE as error:
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"the checkpoint {path} cannot be used ({what})") from None
    with torch.no_grad():
        for target, source in zip(
            _named(training), (plain["params"], plain["buffers"]), strict=True
        ):
            for name, value in target.items():
                value.copy_(source[name])
    training.optimizer.load_state_dict(plain["optimizer"])
    training.state, training.scaler, training.average = state, scaler, average
    training.steps = plain["steps"]
    training.active = plain["active"]
    training.failures = plain["failures"]
    training.keep_stopped()
    return plain["place"]


def _check_content(path: Path) -> None:
    """Compares the checksums of the file's parts, which torch writes and does not look at."""
    with zipfile.ZipFile(path) as parts:
        damaged = parts.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of its part {damaged} differs")


def _named(training: Training) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return training.stack.params, training.stack.buffers


def _check_fit(plain: dict[str, Any], training: Training) -> None:
    """Refuses a content that is of other networks, seeds or optimisers."""
    for target, source in zip(_named(training), (plain["params"], plain["buffers"]), strict=True):
        if {k: _form(v) for k, v in target.items()} != {k: _form(v) for k, v in source.items()}:
            raise ValueError("it is of other networks")
    seeds, optimizer = len(training.seeds), plain["optimizer"]
    lists = [plain["steps"], plain["active"], plain["failures"]]
    if any(len(values) != seeds for values in lists):
        raise ValueError("it is of other seeds")
    if any(tensor.shape[:1] != (seeds,) for tensor in tensors(plain["state"])):
        raise ValueError("its state is of other seeds")
    groups = training.optimizer.param_groups
    sizes = [len(group["params"]) for group in groups]
    if [len(group["params"]) for group in optimizer["param_groups"]] != sizes:
        raise ValueError("it is of another optimiser")
    stepped = [leaf for group in groups for leaf in group["params"]]
    for index, moments in optimizer["state"].items():
        shape = stepped[index].shape
        if any(m.shape != shape for name, m in moments.items() if name != "step"):
            raise ValueError("its optimiser is of other networks")


def _extras(plain: dict[str, Any], training: Training) -> tuple[Scaler | None, Average | None]:
    """The loss scales and the averaged weights of a checkpoint, where it has them."""
    scaler = Scaler(*plain["scaler"]) if plain["scaler"] else None
    if (scaler is None) != (training.scaler is None):
        raise ValueError("it is of another precision")
    if scaler and scaler.scale.shape != (len(training.seeds),):
        raise ValueError("it is of other seeds")
    values = plain["average"]
    if values is None:
        return scaler, None
    known = training.stack.params | training.stack.buffers
    if any(_form(known[name]) != _form(value) for name, value in values.items()):
        raise ValueError("its average is of other networks")
    return scaler, Average(training.train.average, values)


def _form(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype
