"""What a table leaves behind: Markdown, CSV, LaTeX, figures and the packed records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlresearch import families
from tlresearch.experiment import Experiment
from tlresearch.files import claim, silently, write_text_atomic
from tlresearch.launch.domain_outputs import write_domain_figures, write_selectors
from tlresearch.launch.naming import output_name
from tlresearch.launch.plan import Plan
from tlresearch.launch.tuning_notes import chosen_by, tuning_of
from tlresearch.launch.waiting import confirmations_of, records_by_key, sources_of
from tlresearch.results import confirmations, figures
from tlresearch.results.adaptation_figure import adaptation_figure
from tlresearch.results.confirmations import Confirmation, accepted
from tlresearch.results.episodes import episode_format
from tlresearch.results.means import mean_records, with_means
from tlresearch.results.rows import Place, Table, build_table
from tlresearch.results.store import Record, Store
from tlresearch.results.sweep_figure import sweep_figure, swept_number
from tlresearch.results.tables import to_csv, to_latex, to_markdown
from tlresearch.variations import heading

PRESENT = "present"
"""The source of a mean over settings of rows that the present code stands for."""


def records_of(plan: Plan, store: Store) -> list[Record]:
    """The records of a plan's cells, as many as there are, under the labels of this table."""
    records = records_by_key(plan, store)
    return [
        records[key] | {"method": cell.method, "setting": cell.setting}
        for key, cell in plan.cells
        if key in records
    ]


def table_of(
    experiment: Experiment, records: list[Record], lines: Sequence[Confirmation] = ()
) -> Table:
    """The table of an experiment from the records of its cells and their confirmations."""
    configs = {(cell.method, cell.setting): cell.config for cell in experiment.cells}
    rows = {row: {r["seed"]: r for r in records if _row(r) == row} for row in configs}
    current = {row: sources_of(config) for row, config in configs.items()}
    confirmed = {row: confirmations_of(configs[row], lines, rows[row]) for row in configs}
    by = chosen_by(experiment)
    settings, published = experiment.setting_labels, experiment.header.published
    label, cells = experiment.header.mean, [*configs]
    if label:

        def source_of(record: Record) -> str:
            row = _row(record)
            good = accepted(confirmed[row], current[row])
            return PRESENT if record["source"] in good else record["source"]

        records = [*records, *mean_records(records, settings, label, source_of)]
        published = with_means(published, settings, label)
        means = [(method, label) for method in experiment.method_labels]
        current |= dict.fromkeys(means, PRESENT)
        cells, settings = [*cells, *means], [*settings, label]
    return build_table(
        records,
        experiment.method_labels,
        settings,
        experiment.metrics,
        published,
        current,
        seeds=list(experiment.header.seeds),
        cells=cells,
        title=_title(experiment),
        places=_places(experiment),
        tuning=tuning_of(experiment),
        columns={
            row: families.columns(config) | by.get(row, {}) for row, config in configs.items()
        },
        confirmations=confirmed,
        best=_best(experiment),
        remarks=families.remarks(experiment.header.family, configs, experiment.metrics),
    )


def _best(experiment: Experiment) -> str:
    """What the mark of a sweep's best value is called: by labels that a choice must not see?"""
    selectors = families.selectors(experiment.header.family)
    seen = selectors and experiment.metrics[0] not in selectors
    return "best by target labels" if seen else "best"


def _row(record: Record) -> tuple[str, str]:
    return record["method"], record["setting"]


def _places(experiment: Experiment) -> dict[tuple[str, str], Place] | None:
    """Where the rows of swept values stand; None if nothing is swept."""
    if not any(variant.values for variant in experiment.variants):
        return None
    return {
        (v.method, v.setting): Place(
            v.section, {heading(key, v.method): value for key, value in v.values.items()}
        )
        for v in experiment.variants
    }


def _title(experiment: Experiment) -> str:
    """The file's title; what the command line changed is part of it."""
    title = experiment.header.title or experiment.name
    return f"{title} ({', '.join(experiment.overrides)})" if experiment.overrides else title


def write_outputs(experiment: Experiment, plan: Plan, store: Store) -> list[Path]:
    """Writes table and figures under the results folder, and packs a finished table's records.

    The names of the files are claimed, then the records; never both, as they may be one claim.

    Returns:
        The files, in the order in which one would open them.
    """
    with claim(Store(store.root, output_name(experiment)).lock_path, silently):
        records, base = records_of(plan, store), store.root / output_name(experiment)
        table = table_of(experiment, records, confirmations.read(store))
        paths = _write_texts(table, base) + _write_figures(experiment, records, base)
        paths += write_selectors(experiment, records, base)
        if swept_number(table):
            paths.append(base.with_name(base.name + "_sweep.svg"))
            sweep_figure(table, paths[-1], experiment.header.sweep_axis or None)
    if not experiment.overrides:
        # Records that the file no longer asks for stay in the pack: a run deletes nothing.
        paths.append(store.pack([record["key"] for record in records], others=True))
    return paths


def write_table(experiment: Experiment, plan: Plan, store: Store) -> list[Path]:
    """Writes Markdown, CSV and LaTeX as `write_outputs`; neither figures nor records change."""
    with claim(Store(store.root, output_name(experiment)).lock_path, silently):
        table = table_of(experiment, records_of(plan, store), confirmations.read(store))
        return _write_texts(table, store.root / output_name(experiment))


def _write_texts(table: Table, base: Path) -> list[Path]:
    """Writes Markdown, CSV and LaTeX."""
    paths = []
    for suffix, text in (
        (".md", to_markdown(table)),
        (".csv", to_csv(table)),
        (".tex", to_latex(table)),
    ):
        path = base.with_name(base.name + suffix)
        write_text_atomic(path, text)
        paths.append(path)
    return paths


def _write_figures(experiment: Experiment, records: list[Record], base: Path) -> list[Path]:
    """Accuracy matrices, forgetting, inner steps, domains: what the records of each setting hold.

    Not for swept settings.
    """
    paths = []
    for setting in experiment.header.settings or [""]:
        end = f"_{setting}.svg" if setting else ".svg"
        matrices = _arrays(experiment, records, setting, "accuracy_matrix")
        if matrices and min(m.shape[-1] for m in matrices.values()) > 1:
            for name, draw in (
                ("matrix", figures.accuracy_matrix_figure),
                ("forgetting", figures.forgetting_curve_figure),
            ):
                paths.append(base.with_name(f"{base.name}_{name}{end}"))
                draw(matrices, paths[-1])
        curves = _arrays(experiment, records, setting, "curve")
        if any(curve.shape[-1] > 1 for curve in curves.values()):
            episodes = _arrays(experiment, records, setting, "episodes")
            levels = {label: values.mean(1, keepdims=True) for label, values in episodes.items()}
            both = levels | curves  # a method without inner steps is a level
            curves = {label: both[label] for label in experiment.method_labels if label in both}
            paths.append(base.with_name(f"{base.name}_adaptation{end}"))
            adaptation_figure(curves, paths[-1], episode_format(experiment.metrics))
    return paths + write_domain_figures(experiment, records, base)


def _arrays(
    experiment: Experiment, records: list[Record], setting: str, name: str
) -> dict[str, np.ndarray]:
    """One array of the finished records of a setting, by method, seeds first."""
    found: dict[str, list[Any]] = {label: [] for label in experiment.method_labels}
    for record in sorted(records, key=lambda r: r["seed"]):
        if (record["setting"], record["status"]) == (setting, "finished"):
            found[record["method"]] += [record["arrays"][name]] if name in record["arrays"] else []
    return {label: np.array(arrays, dtype=float) for label, arrays in found.items() if arrays}
