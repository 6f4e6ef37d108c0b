"""What is measured of a student beside its teacher."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from tlresearch.distillation.frozen_teacher import FrozenTeacher
from tlresearch.distillation.images import Images
from tlresearch.functional.agreement import (
    kl_to_teacher,
    negative_log_likelihood,
    top1_agreement,
)
from tlresearch.functional.calibration import best_temperature, expected_calibration_error
from tlresearch.functional.class_prior import best_shift_by_labels, label_free_shift, shifted
from tlresearch.functional.cost import count_parameters, forward_flops
from tlresearch.functional.soft_targets import ensemble_logits

BINS = 15
"""Of the expected calibration error."""
CHUNK = 1000

FITS = ("acc", "errors", "nll", "ece")
BESIDE = ("agreement", "kl_teacher")
CALIBRATED = ("temperature", "ece_scaled", "nll_scaled")
SIZES = ("parameters", "flops")
ABSENT = (
    *("errors_absent", "acc_absent"),
    *("shift", "errors_shifted", "acc_absent_shifted"),
    *("shift_oracle", "errors_shifted_oracle", "acc_absent_shifted_oracle"),
)
BEFORE = ("acc_before", "errors_before")
COSTS = ("steps_per_second",)
SELECTED = tuple(f"{name}_selected" for name in ("acc", "errors", "nll", "ece"))
METRICS = (*FITS, *BESIDE, *CALIBRATED, *SIZES, *ABSENT, *BEFORE, *SELECTED, *COSTS)


@dataclass(frozen=True)
class Measured:
    """What a report is of: logits of one seed, in float64."""

    logits: Float[Tensor, "n classes"]
    labels: Int64[Tensor, " n"]
    held_out: Float[Tensor, "m classes"]
    """Of the held-out part, possibly without rows."""
    held_out_labels: Int64[Tensor, " m"]
    apart: bool
    """Whether the held-out part is not what is measured on."""


@torch.no_grad()
def logits_of(network: nn.Module, x: Tensor) -> Float[Tensor, "n classes"]:
    """In chunks, in float64."""
    parts = [network(part).double() for part in x.split(CHUNK)]
    return torch.cat(parts) if parts else x.new_empty(0, 1).double()


def measured(network: nn.Module, images: Images, evaluate: str) -> Measured:
    """A network on the images that are measured on and on the held-out part."""
    held_out, its_labels = images.train[images.held_out], images.labels[images.held_out]
    of_held_out = logits_of(network, held_out)
    if evaluate == "validation":
        return Measured(of_held_out, its_labels, of_held_out, its_labels, False)
    of_test = logits_of(network, images.test)
    return Measured(of_test, images.test_labels, of_held_out, its_labels, True)


def quality(seen: Measured) -> dict[str, float]:
    """Accuracy, number of errors, NLL in nats, ECE."""
    wrong = int((seen.logits.argmax(-1) != seen.labels).sum())
    ece = expected_calibration_error(seen.logits.softmax(-1), seen.labels, BINS)
    return {
        "acc": 1 - wrong / len(seen.labels),
        "errors": float(wrong),
        "nll": float(negative_log_likelihood(seen.logits, seen.labels)),
        "ece": float(ece),
    }


def calibrated(seen: Measured) -> dict[str, float]:
    """Temperature with the least NLL on the held-out part, and what it makes of the rest."""
    if not (seen.apart and len(seen.held_out_labels)):
        return {}
    temperature = best_temperature(seen.held_out, seen.held_out_labels)
    scaled = seen.logits / temperature
    ece = expected_calibration_error(scaled.softmax(-1), seen.labels, BINS)
    return {
        "temperature": float(temperature),
        "ece_scaled": float(ece),
        "nll_scaled": float(negative_log_likelihood(scaled, seen.labels)),
    }


def beside(seen: Measured, teachers: Sequence[Float[Tensor, "n classes"]]) -> dict[str, float]:
    """Agreement with the teacher, and KL of its probabilities to the student's, in nats."""
    if not teachers:
        return {}
    teacher = ensemble_logits(torch.stack(list(teachers)))
    return {
        "agreement": float(top1_agreement(seen.logits, teacher)),
        "kl_teacher": float(kl_to_teacher(seen.logits, teacher)),
    }


def sizes(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, float]:
    """Parameters, and operations of a forward pass of one image."""
    return {
        "parameters": float(count_parameters(network).all),
        "flops": float(forward_flops(network, shape)),
    }


def costs(steps: int, seconds: float) -> dict[str, float]:
    """Optimiser steps of a stack's seeds together, per second; a new number at each run."""
    return {"steps_per_second": steps / max(seconds, 1e-9)}


def absent(seen: Measured, classes: Sequence[int], images: Images) -> dict[str, float]:
    """What shifts do for the classes that were not (or alone) in the transfer set.

    The classes that are shifted are those absent, or those present where these are fewer; Hinton et
    al. raise one absent class and lower two present ones.

    Args:
        seen: logits.
        classes: those of the transfer set.
        images: whose kept labels say how frequent classes are.
    """
    present = sorted(set(classes))
    away = [c for c in range(images.classes) if c not in present]
    moved = away if len(away) <= len(present) else present
    inputs = seen.held_out if len(seen.held_out) else seen.logits
    all_labels = images.labels[images.kept]
    prior = float(torch.isin(all_labels, _tensor(moved, all_labels)).double().mean())
    shifts = {
        "": float(label_free_shift(inputs, moved, prior)),
        "_oracle": float(best_shift_by_labels(seen.logits, seen.labels, moved)),
    }
    is_away = torch.isin(seen.labels, _tensor(away, seen.labels))
    before = _right(seen.logits, seen.labels, is_away)
    found = {"errors_absent": before["errors_absent"], "acc_absent": before["acc_absent"]}
    for name, amount in shifts.items():
        after = _right(shifted(seen.logits, moved, amount), seen.labels, is_away)
        found |= {
            f"shift{name}": amount,
            f"errors_shifted{name}": after["errors"],
            f"acc_absent_shifted{name}": after["acc_absent"],
        }
    return found


def _right(logits: Tensor, labels: Tensor, is_away: Tensor) -> dict[str, float]:
    """Errors, and of the absent classes errors and accuracy."""
    right = logits.argmax(-1) == labels
    return {
        "errors": float((~right).sum()),
        "errors_absent": float((~right & is_away).sum()),
        "acc_absent": float(right[is_away].double().mean()),
    }


def _tensor(classes: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(list(classes), dtype=like.dtype, device=like.device)


_SAID: dict[tuple[str, ...], Tensor] = {}
"""Logits of teachers on what is measured on: a teacher of many rows is asked once a process."""
_MOST_SAID = 64
"""Of them; 0.8 MB each for 10,000 images of 10 classes."""


def copies_of(teachers: Sequence[FrozenTeacher], images: Images, evaluate: str) -> list[Tensor]:
    """Logits of each copy on what is measured on, in float64."""
    return [_said(teacher, images, evaluate) for teacher in teachers]


def _said(teacher: FrozenTeacher, images: Images, evaluate: str) -> Tensor:
    """Those of one, kept by all that they depend on."""
    where = str(images.test.device)
    key = (teacher.digest(), images.fingerprint, images.recipe, evaluate, where)
    key += (str(len(images.held_out)),)
    if key not in _SAID:
        x = images.train[images.held_out] if evaluate == "validation" else images.test
        while len(_SAID) >= _MOST_SAID:
            del _SAID[next(iter(_SAID))]
        _SAID[key] = logits_of(teacher.network.eval(), x)
    return _SAID[key]
