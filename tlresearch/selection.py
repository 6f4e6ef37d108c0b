"""The section `select:` of an experiment file, and what came of it.

Values are chosen on a held-out part of the training data, with seeds that the table does not
report; for each method and each setting of the file by itself. The runs are those of
`launch/tuning.py`; this module only has the words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from tlresearch import schema
from tlresearch.errors import UserError
from tlresearch.settings import Bounds
from tlresearch.variations import touches


@dataclass(frozen=True)
class Select:
    """What is tuned, by what, and with which seeds."""

    grid: dict[str, list[Any]]
    """Dotted keys and the values to try; `methods.LABEL.…` tunes that method, any other all."""
    seeds: tuple[int, ...]
    """Seeds of the selection, none of which the table reports."""
    metric: str = ""
    """What is best: its mean over the seeds; empty: the first metric of the table."""
    validation: Annotated[float, Bounds(gt=0, lt=1)] = 0.1
    """Fraction of the training data that is held out and measured on."""
    table: str = ""
    """Table that keeps the runs, shared by all that name it; empty: NAME_selection."""


@dataclass(frozen=True)
class Tried:
    """One combination of values."""

    values: dict[str, Any]
    """By dotted key."""
    mean: float | None
    """Of the metric over the seeds; null if a seed failed or has no value, so not eligible."""


@dataclass(frozen=True)
class Chosen:
    """What was chosen for one method in one setting, and what that took."""

    method: str
    setting: str
    values: dict[str, Any]
    """By dotted key."""
    tried: list[Tried]
    """All combinations, in the order of the grid."""
    runs: int
    """Combinations × seeds."""
    seconds: float
    """Their time: of a run, its stack's wall time over the number of runs in the stack."""


@dataclass(frozen=True)
class Choice:
    """What a selection chose; kept beside the records."""

    cells: str
    """SHA-256 of the keys of its runs, in order of the text: another selection has another."""
    metric: str
    seeds: tuple[int, ...]
    validation: float
    rows: list[Chosen]

    def of(self, method: str, *settings: str) -> Chosen | None:
        """The choice for a method in the first of these settings that there is one for."""
        rows = {(row.method, row.setting): row for row in self.rows}
        found = (rows.get((method, setting)) for setting in settings)
        return next((row for row in found if row is not None), None)


def check_select(header: Any, metrics: tuple[str, ...], where: str) -> None:
    """Refuses a section `select` that cannot be meant; the values of its grid are not looked at.

    Args:
        header: the experiment file, an `experiment.Header` with a section `select`.
        metrics: those of its family.
        where: the file.

    Raises:
        UserError: one sentence.
    """
    select: Select = header.select
    if not select.grid:
        raise UserError(f"{where}: 'select.grid' is empty; name a key and the values to try")
    if not select.seeds:
        raise UserError(f"{where}: 'select.seeds' is empty; give at least one, e.g. [100, 101]")
    if len(set(select.seeds)) < len(select.seeds):
        raise UserError(f"{where}: 'select.seeds' names a seed twice; every run needs its own")
    if min(select.seeds) < 0 or max(select.seeds) >= 2**32:
        raise UserError(f"{where}: 'select.seeds' must be whole numbers from 0 to 2^32 - 1")
    shared = sorted(set(select.seeds) & set(header.seeds))
    if shared:
        raise UserError(
            f"{where}: 'select.seeds' shares {', '.join(map(str, shared))} with 'seeds'; choose "
            "with seeds that the table does not report"
        )
    if select.metric and select.metric not in metrics:
        hint = schema.nearest(select.metric, metrics)
        raise UserError(f"{where}: unknown metric '{select.metric}' in 'select.metric'; {hint}")
    for key in select.grid:
        _check_key(header, key, where)


def _check_key(header: Any, key: str, where: str) -> None:
    """A key that is fixed or varied elsewhere too would have two values."""
    if key.split(".")[0] == "benchmark":
        raise UserError(
            f"{where}: 'select.grid' tunes '{key}', but methods are compared on one benchmark; "
            "use 'settings' or 'sweep' to vary it"
        )
    groups: dict[str, Mapping[str, Any]] = {"sweep": header.sweep}
    groups |= {f"settings.{name}": changes for name, changes in header.settings.items()}
    for place, group in groups.items():
        if any(_overlap(key, other) for other in group):
            raise UserError(
                f"{where}: '{key}' is tuned by 'select.grid' and set by '{place}'; leave it out "
                "of one of them"
            )
    for other in header.select.grid:
        if other != key and _overlap(key, other):
            raise UserError(
                f"{where}: 'select.grid' tunes both '{other}' and '{key}', a part of it"
            )


def _overlap(key: str, other: str) -> bool:
    """Whether one dotted key is the other or a part of it."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def forget(raw: dict[str, Any], key: str) -> None:
    """What the command line sets is not tuned; with nothing left to tune the section goes."""
    select = raw.get("select")
    grid = select.get("grid") if isinstance(select, dict) else None
    if isinstance(grid, dict):
        tuned = [name for name in grid if isinstance(name, str) and _overlap(name, key)]
        for name in tuned:
            del grid[name]
        if tuned and not grid:
            del raw["select"]


def grid_of(select: Select, method: str) -> dict[str, list[Any]]:
    """The part of the grid that tunes a method; empty if nothing does."""
    return {key: values for key, values in select.grid.items() if touches(key, method)}
