"""Published numbers as data with a source: the `published:` block of an experiment file."""

import math
from dataclasses import dataclass
from typing import Literal

from tlresearch.errors import UserError
from tlresearch.results.statistics import student_quantile

Status = Literal["read", "quoted", "recalled"]


@dataclass(frozen=True)
class PublishedRow:
    """One number of a paper, for one method in one setting."""

    method: str
    """Label of the method in this table, whatever the paper calls it."""
    value: float
    """The published mean, in `Published.unit`."""
    setting: str = ""
    """Setting of the table, e.g. `task`; empty where the table has only one."""
    spread: float | None = None
    """What the paper prints after ±, in `Published.unit`, at least 0; null if it gives none."""
    status: Status = "recalled"
    """`read` in the paper, `quoted` from somebody who quotes it, or `recalled` from memory."""
    source: str = ""
    """Where this number stands, if not at `Published.source`."""
    chance: float | None = None
    """Value of a guess, as a fraction, if not `Published.chance`."""


@dataclass(frozen=True)
class Published:
    """The numbers of one table of one paper for one metric, and how they were made."""

    source: str
    """Paper and table, e.g. `arXiv:1809.10635, Table 4`."""
    metric: str
    """Name of our metric that they are compared with, e.g. `acc`."""
    rows: list[PublishedRow]
    """The numbers, at most one for each method and setting."""
    unit: Literal["percent", "fraction"] = "percent"
    """Unit of `value` and `spread`; `fraction` is also right for what is no accuracy."""
    spread_is: Literal["sem", "sd", "ci95", "none"] = "sem"
    """What ± is: standard error, standard deviation, half-width of a 95 % interval, or none."""
    runs: int | None = None
    """How many runs (or test episodes) mean and spread are over; null if unknown."""
    tolerance: float = 0.01
    """Largest difference that counts as agreement, as a fraction (0.01 is 1 point), positive."""
    chance: float | None = None
    """Value of a guess, as a fraction (0.5 for two classes); null if it does not apply."""
    differs: str = ""
    """What differs between the paper's protocol and ours, in words."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant; raises `UserError`."""
        problem = _problem(self)
        if problem:
            raise UserError(f"published ({self.source}, {self.metric}): {problem}.")


def _problem(block: Published) -> str | None:
    """The first thing wrong with a block, in words, or None."""
    if not block.tolerance > 0:
        return f"`tolerance` is {block.tolerance}, expected a positive fraction such as 0.01"
    if block.runs is not None and block.runs < 1:
        return f"`runs` is {block.runs}, expected at least 1 or null"
    seen: set[tuple[str, str]] = set()
    for row in block.rows:
        where = f"row {row.method!r}" + (f", setting {row.setting!r}" if row.setting else "")
        if (row.method, row.setting) in seen:
            return f"{where} is given twice, expected at most one number for a method and setting"
        seen.add((row.method, row.setting))
        problem = _row_problem(block, row)
        if problem:
            return f"{where}: {problem}"
    return None


def _row_problem(block: Published, row: PublishedRow) -> str | None:
    """The first thing wrong with a row, in words, or None."""
    chance = chance_of(block, row)
    if not math.isfinite(row.value) or (block.unit == "percent" and abs(row.value) > 100):
        return f"`value` is {row.value}, expected a number in the unit `{block.unit}`"
    if row.spread is not None and not row.spread >= 0:
        return f"`spread` is {row.spread}, expected at least 0 or null"
    if row.spread is not None and block.spread_is == "none":
        return "has a `spread` but `spread_is` is `none`; say which it is: sem, sd or ci95"
    if row.spread is not None and block.runs == 1:
        return "has a `spread` over 1 run; give the number of `runs`, or null if unknown"
    if chance is not None and block.unit == "percent" and not 0 <= chance <= 1:
        return f"`chance` is {chance}, expected a fraction in [0, 1], e.g. 0.1 for 10 percent"
    return None


def chance_of(block: Published, row: PublishedRow) -> float | None:
    """Value of a guess for a row, as a fraction: its own, else its block's."""
    return block.chance if row.chance is None else row.chance


def as_fraction(block: Published, number: float) -> float:
    """A value or spread of the block in the unit of our records (percent / 100)."""
    return number / 100 if block.unit == "percent" else number


def standard_error(block: Published, row: PublishedRow) -> float | None:
    """Standard error of a published mean as a fraction, or None where it cannot be known.

    sem as printed; sd / √runs; ci95 / t₀.₉₇₅(runs − 1), or ci95 / 1.96 without `runs`.
    """
    if row.spread is None or block.spread_is == "none":
        return None
    spread = as_fraction(block, row.spread)
    if block.spread_is == "sem":
        return spread
    if block.spread_is == "sd":
        return None if block.runs is None else spread / math.sqrt(block.runs)
    quantile = student_quantile(math.inf if block.runs is None else block.runs - 1)
    return spread / quantile
