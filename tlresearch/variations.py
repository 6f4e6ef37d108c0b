"""What varies between the rows of a table: combinations of values under dotted keys."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlresearch.errors import UserError


@dataclass(frozen=True)
class Variant:
    """One method in one setting, before it is resolved."""

    method: str
    """Label in the table."""
    setting: str
    """Label of the setting with its swept values, e.g. `task, strength=10`."""
    section: str
    """Name of the setting alone, e.g. `task`; empty where the file names none."""
    values: Mapping[str, Any]
    """The swept values by dotted key; empty where nothing is swept."""
    raw: Mapping[str, Any]
    """The experiment file with setting and swept values in place."""


def combinations(
    grid: Mapping[str, Sequence[Any]], where: str, place: str = "sweep"
) -> list[tuple[str, dict[str, Any]]]:
    """Every choice of one value per key, with its label `key=value, …`; the last key turns fastest.

    Raises:
        UserError: a key has no values; names `where` and the section `place`.
    """
    for key, values in grid.items():
        if not values:
            raise UserError(f"{where}: '{place}.{key}' is empty; give at least one value")
    choices = [[(key, value) for value in values] for key, values in grid.items()]
    return [
        (", ".join(f"{key.split('.')[-1]}={short(value)}" for key, value in combination),
         dict(combination))
        for combination in itertools.product(*choices)
    ]  # fmt: skip


def short(value: Any) -> str:
    """A value as a label; two different numbers never share one."""
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def touches(key: str, method: str) -> bool:
    """Whether a dotted key varies a method: `methods.LABEL.…` its own, any other key all."""
    return not key.startswith("methods.") or key.startswith(f"methods.{method}.")


def heading(key: str, method: str) -> str:
    """A dotted key as a column of a method's rows: `strength`, `fisher.samples`, `train.lr`."""
    return key.removeprefix(f"methods.{method}.")


def is_number(value: Any) -> bool:
    """Whether a value of a grid is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
