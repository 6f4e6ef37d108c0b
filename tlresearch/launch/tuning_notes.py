"""What a table says of how its settings were chosen: the column `tuning` and the notes."""

import math

from tlresearch import families
from tlresearch.experiment import Experiment
from tlresearch.launch.naming import overrides_suffix
from tlresearch.results.formats import metric_format
from tlresearch.results.rows import Tuning, cell_name
from tlresearch.selection import Choice, Chosen, grid_of
from tlresearch.variations import heading, is_number, short


def tuning_of(experiment: Experiment) -> Tuning | None:
    """Costs and notes of a table whose values were chosen; None for any other."""
    choice, select = experiment.choice, experiment.header.select
    if choice is None or select is None:
        return None
    costs: dict[tuple[str, str], tuple[int, float]] = {}
    notes = [_how(experiment, choice)]
    for variant in experiment.variants:
        keys = grid_of(select, variant.method)
        row = choice.of(variant.method, variant.setting, variant.section) if keys else None
        if row is None:
            continue
        costs[variant.method, variant.setting] = (row.runs, row.seconds)
        mean = next(tried.mean for tried in row.tried if tried.values == row.values)
        name = cell_name(row.method, row.setting)
        what = "" if families.selectors(experiment.header.family) else "held-out "
        number = f"{what}{_number(choice, mean)}"
        notes.append(f"Chosen for {name}: {_what(row, list(keys))} ({number}).")
        notes += edges(row, list(keys))
    return Tuning(costs, tuple(dict.fromkeys(notes)))  # several rows may share a choice


def edges(row: Chosen, keys: list[str]) -> list[str]:
    """A warning for each chosen number at an end of three or more values: look beyond it."""
    lines = []
    for key in keys:
        values = _tried(row, key)
        if len(values) < 3 or not all(map(is_number, values)):
            continue
        chosen = row.values[key]
        side = {min(values): "lower", max(values): "upper"}.get(chosen)
        if side:
            lines.append(
                f"Warning: {cell_name(row.method, row.setting)}: {heading(key, row.method)} "
                f"{short(chosen)} is at the {side} end of its grid; a better value may lie beyond."
            )
    return lines


def warnings(choice: Choice) -> list[str]:
    """All warnings of a choice."""
    return [line for row in choice.rows for line in edges(row, list(row.values))]


def _how(experiment: Experiment, choice: Choice) -> str:
    """By what the values were chosen, and what the column says."""
    form = metric_format(choice.metric)
    best = "--best" in experiment.overrides
    earlier = " (by the file without these overrides)" if best else ""
    suffix = "" if best else overrides_suffix(experiment)
    own = families.selectors(experiment.header.family)
    held_out = f"on {choice.validation:g} of the training data, held out, with"
    if own:
        held_out = f"with {choice.validation:g} of the source's training data held out, and"
    return (
        f"Tuned{earlier} by the {form.best} of {form.label} {held_out} seeds of its own "
        f"({', '.join(map(str, choice.seeds))}). tuning: number of runs that it took, and their "
        "time; a run's time is its stack's divided by the number of its runs. 0: not tuned. "
        f"All means: the table {experiment.name}_selection{suffix}."
    )


def _number(choice: Choice, mean: float | None) -> str:
    """`accuracy 97.56 %`."""
    form = metric_format(choice.metric)
    number = form.number(math.nan if mean is None else mean)
    return f"{form.label} {number} {form.unit}".rstrip()


def chosen_by(experiment: Experiment) -> dict[tuple[str, str], dict[str, str]]:
    """The column `chosen by` of the tuned rows, where a family has words for it."""
    choice, select = experiment.choice, experiment.header.select
    words = families.selectors(experiment.header.family)
    if choice is None or select is None or not words:
        return {}
    tuned = [v for v in experiment.variants if grid_of(select, v.method)]
    return {(v.method, v.setting): {"chosen by": words[choice.metric]} for v in tuned}


def _what(row: Chosen, keys: list[str]) -> str:
    """`strength 100, of 7 values from 10 to 1e+07`; with several keys the number of them all."""
    chosen = ", ".join(f"{heading(key, row.method)} {short(row.values[key])}" for key in keys)
    values = _tried(row, keys[0])
    if len(row.values) > 1:
        return f"{chosen}, of {len(row.tried)} combinations"
    if len(values) > 4 and all(map(is_number, values)):
        return (
            f"{chosen}, of {len(values)} values from {short(min(values))} to {short(max(values))}"
        )
    return f"{chosen}, of {', '.join(map(short, values))}"


def _tried(row: Chosen, key: str) -> list:
    """The distinct values of one key, in the order of the grid."""
    values: list = []
    for tried in row.tried:
        if tried.values[key] not in values:
            values.append(tried.values[key])
    return values
