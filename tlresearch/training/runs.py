"""What a family's protocol is given, and what it gives back."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tlresearch.training.settings import Train


@dataclass(frozen=True)
class StackRun:
    """What one stack runs: seeds (and strengths) of one method in one setting."""

    benchmark: Any
    """The family's `Benchmark`."""
    backbone: Any
    """Settings of a backbone."""
    method: Any
    """The family's `Method`."""
    train: Train
    seeds: list[int]
    fields: dict[str, list[float]]
    """Numeric settings of the method that differ within the stack, one value per seed."""


@dataclass(frozen=True)
class Outcome:
    """What one seed's run came to."""

    metrics: dict[str, float]
    arrays: dict[str, Any]
    status: str
    reason: str | None
    details: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    """The networks' final `state_dict`, on the CPU; empty for a failed seed."""
    source: str | None = None
    """Hash of other code than the current one, where that made what was measured."""
