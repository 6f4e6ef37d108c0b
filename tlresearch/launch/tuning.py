"""The runs of a section `select:`, what they choose, and the table with the chosen values in place.

A selection is an experiment of its own, derived from the file: the tuned methods, each with every
combination of its grid, the selection's seeds, measured on held-out training data. It is planned,
run, resumed and recorded like any other; `choose` is a function of its records.
"""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlresearch import families, schema
from tlresearch.errors import UserError
from tlresearch.experiment import Cell, Experiment, cells_of, set_dotted
from tlresearch.launch.outputs import output_name, table_of
from tlresearch.launch.plan import Plan
from tlresearch.results.formats import metric_format
from tlresearch.results.rows import Table, cell_name
from tlresearch.results.store import Record, Store, digest, plain, write_json_atomic
from tlresearch.results.sweeps import best_of, complete_mean
from tlresearch.selection import Choice, Chosen, Select, Tried, grid_of
from tlresearch.variations import Variant, combinations


def selection_of(experiment: Experiment) -> Experiment:
    """The selection's runs as an experiment.

    Args:
        experiment: of a file with a section `select`.

    Raises:
        UserError: a value of the grid cannot be used, or the held-out part would be empty.
    """
    select, where = _select(experiment), str(experiment.path)
    outputs = _marked(f"{_unmarked(experiment.name)}_selection", experiment)
    name = _marked(select.table, experiment) if select.table else outputs
    if name == experiment.name:
        raise UserError(
            f"{where}: 'select.table' is the name of this table; the runs on held-out data need "
            "another"
        )
    variants = []
    for variant in experiment.variants:
        grid = grid_of(select, variant.method)
        for label, values in combinations(grid, where, "select.grid") if grid else []:
            setting = ", ".join(part for part in (variant.setting, label) if part)
            raw = _with_values(variant, values, where)
            variants.append(Variant(variant.method, setting, variant.setting, values, raw))
    header = experiment.header
    metric = select.metric or experiment.metrics[0]
    return dataclasses.replace(
        experiment,
        header=dataclasses.replace(
            header,
            methods={m: s for m, s in header.methods.items() if grid_of(select, m)},
            seeds=select.seeds,
            metrics=_metrics(experiment, metric),
            title=f"{header.title or experiment.name}: selection on held-out training data",
            published=[],
            mean="",
        ),
        name=name,
        cells=_held_out(cells_of(tuple(variants), select.seeds, where), select, metric, where),
        variants=tuple(variants),
        outputs=outputs,
    )


_DEBUG = "+debug"
"""End of the names of a debug run, as `experiment.load` gives it to the table's own name."""


def _marked(name: str, experiment: Experiment) -> str:
    """A name that ends in `+debug` if, and only if, the experiment is a debug run."""
    return _unmarked(name) + (_DEBUG if experiment.header.debug else "")


def _unmarked(name: str) -> str:
    return name.removesuffix(_DEBUG)


def _select(experiment: Experiment) -> Select:
    select = experiment.header.select
    if select is None:
        raise UserError(f"{experiment.path}: there is no section 'select', so nothing is chosen")
    return select


def _with_values(variant: Variant, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A variant's file with values set by dotted keys."""
    raw = copy.deepcopy(dict(variant.raw))
    for key, value in values.items():
        set_dotted(raw, key, value, where)
    return raw


def _metrics(experiment: Experiment, metric: str) -> tuple[str, ...]:
    """The columns of a selection: what it chooses by first, and nothing that it must not see."""
    allowed = families.selectors(experiment.header.family)
    shown = [other for other in experiment.metrics if not allowed or other in allowed]
    return tuple(dict.fromkeys([metric, *shown]))


def _held_out(cells: tuple[Cell, ...], select: Select, metric: str, where: str) -> tuple[Cell, ...]:
    """The cells, measured on the held-out part of their training data."""
    configs = {}
    for config in {id(cell.config): cell.config for cell in cells}.values():
        benchmark = families.held_out(config.family, config.benchmark, select.validation, metric)
        configs[id(config)] = dataclasses.replace(config, benchmark=benchmark)
    for cell in cells:
        config = configs[id(cell.config)]
        protocol = families.protocol(config.family)
        try:
            protocol.check(config.benchmark, config.method, cell.method, config.train)
        except UserError as error:
            raise UserError(f"{where}: select.validation: {error}") from None
        possible = families.possible_metrics(config)
        if metric not in possible:
            raise UserError(
                f"{where}: 'select.metric' is '{metric}', which no run of {cell.method} has; "
                f"choose by one of {', '.join(sorted(possible))}"
            )
    return tuple(dataclasses.replace(cell, config=configs[id(cell.config)]) for cell in cells)


def cells_digest(plan: Plan) -> str:
    """SHA-256 of the keys of a plan's cells, sorted and divided by line ends."""
    return hashlib.sha256("\n".join(sorted({key for key, _ in plan.cells})).encode()).hexdigest()


def choose(selection: Experiment, plan: Plan, records: Sequence[Record]) -> Choice:
    """What the records of a selection choose.

    For each method and setting the combination with the best mean over the seeds; of equal means
    the first in the grid. One in which a seed failed or has no value is not eligible.

    Args:
        selection: made by `selection_of`.
        plan: of its cells.
        records: of its cells, under its labels.

    Raises:
        UserError: runs are missing, or nothing is eligible.
    """
    where = selection.path
    missing = len(plan.cells) - len(records)
    if missing:
        raise UserError(
            f"{where}: {missing} of the {len(plan.cells)} runs that choose its values are missing; "
            f"run them with 'tlresearch run {where}'"
        )
    table = table_of(selection, list(records))
    metric = selection.metrics[0]
    groups: dict[tuple[str, str], list[Variant]] = {}
    for variant in selection.variants:
        groups.setdefault((variant.method, variant.section), []).append(variant)
    rows = []
    for (method, setting), variants in groups.items():
        best = best_of(table, [(v.method, v.setting) for v in variants])
        if best is None:
            raise UserError(
                f"{where}: nothing can be chosen for {cell_name(method, setting)}: with every "
                f"combination of the grid a seed failed or has no {metric_format(metric).label}; "
                "give 'select.grid' other values"
            )
        rows.append(_chosen(variants, best, table, records))
    fraction = _select(selection).validation
    return Choice(cells_digest(plan), metric, selection.header.seeds, fraction, rows)


def _chosen(
    variants: Sequence[Variant], best: tuple[str, str], table: Table, records: Sequence[Record]
) -> Chosen:
    """The winner among the combinations of one method in one setting, and what they took."""
    method, setting = variants[0].method, variants[0].section
    names = {variant.setting for variant in variants}
    own = [r for r in records if r["method"] == method and r["setting"] in names]
    return Chosen(
        method=method,
        setting=setting,
        values=dict(next(v.values for v in variants if (v.method, v.setting) == best)),
        tried=[Tried(dict(v.values), complete_mean(table, (method, v.setting))) for v in variants],
        runs=len(own),
        seconds=sum(map(_seconds, own)),
    )


def _seconds(record: Record) -> float:
    """A run's share of its stack's wall time, in seconds."""
    whole = record.get("details", {}).get("stack_seconds") or record.get("wall_seconds") or 0.0
    return whole / (record.get("stack") or 1)


def with_choice(experiment: Experiment, choice: Choice) -> Experiment:
    """The experiment with the chosen values in its cells.

    Raises:
        UserError: a method that is tuned has no choice, or none for one of its keys.
    """
    select, where = _select(experiment), str(experiment.path)
    variants = []
    for variant in experiment.variants:
        grid = grid_of(select, variant.method)
        chosen = choice.of(variant.method, variant.setting, variant.section) if grid else None
        lacking = [key for key in grid if chosen is None or key not in chosen.values]
        if lacking:
            name = cell_name(variant.method, variant.setting)
            raise UserError(
                f"{where}: no value of '{lacking[0]}' was chosen for {name} before; run the "
                "file without --best"
            )
        values = {key: chosen.values[key] for key in grid} if chosen else {}
        variants.append(dataclasses.replace(variant, raw=_with_values(variant, values, where)))
    cells = cells_of(tuple(variants), experiment.header.seeds, where)
    return dataclasses.replace(experiment, cells=cells, choice=choice)


def choice_path(selection: Experiment, store: Store) -> Path:
    """Where the choice of a selection is kept."""
    return store.root / "records" / f"{output_name(selection)}.choice.json"


def write_choice(selection: Experiment, choice: Choice, store: Store) -> Path:
    """Keeps a choice, whole or not at all; returns where."""
    content = plain(dataclasses.asdict(choice))
    path = choice_path(selection, store)
    write_json_atomic(path, {**content, "digest": digest(content)})
    return path


def read_choice(selection: Experiment, plan: Plan, store: Store) -> Choice:
    """The choice that was kept.

    Args:
        selection: whose choice.
        plan: of its cells, which must be those that the choice was made from.
        store: under whose results folder.

    Raises:
        UserError: there is none, it was changed, or the file asks for other runs since.
    """
    where, path = selection.path, choice_path(selection, store)
    again = f"'tlresearch run {where}' makes it"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{selection.path}: nothing was chosen before: no {path}; {again}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); {again} anew") from None
    expected = content.pop("digest", None) if isinstance(content, dict) else None
    if expected is None or expected != digest(content):
        raise UserError(f"{path}: its content does not match its digest; {again} anew")
    choice = schema.structure(content, Choice, "", str(path))
    if choice.cells != cells_digest(plan) or choice.metric != selection.metrics[0]:
        raise UserError(f"{path}: the file has changed since this was chosen; {again} anew")
    return choice
