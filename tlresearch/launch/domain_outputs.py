"""What tables of domain adaptation leave behind beside the others: figures, and the selectors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tlresearch import families
from tlresearch.experiment import Experiment
from tlresearch.files import write_text_atomic
from tlresearch.results.feature_figures import boundary_figure, embedding_figure
from tlresearch.results.selectors import Ranking, rankings, to_csv, to_markdown
from tlresearch.results.store import Record
from tlresearch.results.target_figures import class_figure, pseudo_label_figure


def write_domain_figures(experiment: Experiment, records: list[Record], base: Path) -> list[Path]:
    """Features, decision boundary, predicted classes, pseudo-labels: what the records hold.

    Not for swept settings.
    """
    paths: list[Path] = []

    def drawn(name: str, end: str, draw: Callable[..., None], *arrays: Any) -> None:
        paths.append(base.with_name(f"{base.name}_{name}{end}"))
        draw(*arrays, paths[-1])

    shares = {}
    for setting in experiment.header.settings or [""]:
        end = f"_{setting}.svg" if setting else ".svg"
        own = [r for r in records if (r["setting"], r["status"]) == (setting, "finished")]
        of = _Arrays(experiment.method_labels, sorted(own, key=lambda r: r["seed"]))
        embedding, inputs = of.first("embedding"), of.first("inputs")
        if embedding:
            drawn("features", end, embedding_figure, embedding)
        grids, boxes = of.first("boundary"), of.first("boundary_box")
        if grids:
            both = {label: (grid, boxes[label]) for label, grid in grids.items()}
            drawn("boundary", end, boundary_figure, {n: inputs[n] for n in both}, both)
        accuracy, kept = of.padded("pseudo_acc"), of.padded("pseudo_kept")
        if accuracy or kept:
            drawn("pseudo_labels", end, pseudo_label_figure, accuracy, kept)
        shares[setting] = of.padded("target_classes")
    if any(shares.values()):
        drawn("classes", ".svg", class_figure, shares)
    return paths


class _Arrays:
    """Arrays of some records by method, in the table's order."""

    def __init__(self, labels: list[str], records: list[Record]) -> None:
        self.labels, self.records = labels, records

    def all(self, name: str) -> dict[str, list[Any]]:
        """Of every seed that has it."""
        found = {
            label: [
                r["arrays"][name]
                for r in self.records
                if r["method"] == label and name in r["arrays"]
            ]
            for label in self.labels
        }
        return {label: arrays for label, arrays in found.items() if arrays}

    def first(self, name: str) -> dict[str, Any]:
        """Of the first seed that has it."""
        return {label: arrays[0] for label, arrays in self.all(name).items()}

    def padded(self, name: str) -> dict[str, np.ndarray]:
        """Of every seed, with NaN where one has fewer rounds than another."""
        stacked = {}
        for label, lists in self.all(name).items():
            arrays = [np.array(values, dtype=float) for values in lists]
            length = max(len(array) for array in arrays)
            filled = np.full((len(arrays), length, *arrays[0].shape[1:]), np.nan)
            for place, array in enumerate(arrays):
                filled[place, : len(array)] = array
            stacked[label] = filled
        return stacked


def write_selectors(experiment: Experiment, records: list[Record], base: Path) -> list[Path]:
    """How well each selector ranks the models of a table of swept values, as Markdown and CSV."""
    selectors = list(families.selectors(experiment.header.family))
    if not selectors or not any(variant.values for variant in experiment.variants):
        return []
    sections: dict[str, list[Ranking]] = {}
    for section in dict.fromkeys(variant.section for variant in experiment.variants):
        rows = _candidates(experiment, section)
        own = [r for r in records if (r["method"], r["setting"]) in rows]
        ranked = rankings(own, selectors)
        if ranked:
            sections[section] = ranked
    if not sections:
        return []
    title = f"{experiment.header.title or experiment.name}: selectors"
    paths = []
    for suffix, text in ((".md", to_markdown(sections, title)), (".csv", to_csv(sections))):
        paths.append(base.with_name(f"{base.name}_selectors{suffix}"))
        write_text_atomic(paths[-1], text)
    return paths


def _candidates(experiment: Experiment, section: str) -> set[tuple[str, str]]:
    """Methods and settings of a section, but for those that train on target labels."""
    oracles = {cell.method for cell in experiment.cells if _sees_labels(cell.config.method)}
    return {
        (v.method, v.setting)
        for v in experiment.variants
        if v.section == section and v.method not in oracles
    }


def _sees_labels(method: Any) -> bool:
    return bool(getattr(method, "oracle", False))
