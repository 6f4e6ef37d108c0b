"""How well the scores that need no target labels rank models by their target accuracy.

A pure function of finished records: the candidates are all methods and settings of a table, and
each seed is a ranking of its own. Spearman's ρ and Kendall's τ_b (Kendall, Biometrika 1945) between
a score and the target accuracy; what the model with the highest score reaches, beside the model
that the target labels would choose (the oracle).
"""

import csv
import io
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlresearch.results.formats import MetricFormat, csv_number, markdown, metric_format
from tlresearch.results.statistics import Summary, summarise

Record = Mapping[str, Any]

FEWEST = 3
"""Candidates that a ranking needs."""


@dataclass(frozen=True)
class Ranking:
    """One score against target accuracy; each number over the seeds that are ranked."""

    selector: str
    spearman: Summary
    """ρ in [−1, 1]; of the seeds in which neither score nor accuracy are all equal."""
    kendall: Summary
    """τ_b likewise."""
    chosen: Summary
    """Target accuracy of the model with the highest score, in [0, 1]; of equal ones the mean."""
    oracle: Summary
    """The highest target accuracy among the same models."""
    loss: Summary
    """Oracle less chosen, at least 0."""
    candidates: int
    """Fewest models that were ranked in a seed."""


def rankings(
    records: Iterable[Record], selectors: Sequence[str], metric: str = "acc"
) -> list[Ranking]:
    """One ranking for each score that some seed has of at least `FEWEST` models.

    Args:
        records: of the candidates; those that are not finished do not count.
        selectors: metrics, the higher the better.
        metric: target accuracy.
    """
    by_seed: dict[int, list[Mapping[str, Any]]] = {}
    for record in records:
        if record["status"] == "finished":
            by_seed.setdefault(record["seed"], []).append(record["metrics"])
    made = []
    for selector in selectors:
        seeds = [_pairs(by_seed[seed], selector, metric) for seed in sorted(by_seed)]
        seeds = [pairs for pairs in seeds if len(pairs) >= FEWEST]
        if seeds:
            made.append(_ranking(selector, seeds))
    return made


def _pairs(
    metrics: Sequence[Mapping[str, Any]], selector: str, metric: str
) -> list[tuple[float, float]]:
    """(score, target accuracy) of the models that have both."""
    found = ((own.get(selector), own.get(metric)) for own in metrics)
    both = [(s, a) for s, a in found if s is not None and a is not None]
    return [(s, a) for s, a in both if math.isfinite(s) and math.isfinite(a)]


def _ranking(selector: str, seeds: Sequence[Sequence[tuple[float, float]]]) -> Ranking:
    from scipy.stats import kendalltau, spearmanr

    chosen = [chosen_accuracy(pairs) for pairs in seeds]
    best = [max(accuracy for _, accuracy in pairs) for pairs in seeds]
    return Ranking(
        selector,
        summarise(_correlations(seeds, spearmanr)),
        summarise(_correlations(seeds, kendalltau)),
        summarise(chosen),
        summarise(best),
        summarise(b - c for b, c in zip(best, chosen, strict=True)),
        min(map(len, seeds)),
    )


def _correlations(
    seeds: Sequence[Sequence[tuple[float, float]]], correlation: Callable[..., Any]
) -> list[float]:
    """Of each seed for which it is defined."""
    values = []
    for pairs in seeds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # all equal: undefined, and left out
            value = float(correlation(*zip(*pairs, strict=True)).statistic)
        values += [value] if math.isfinite(value) else []
    return values


def chosen_accuracy(pairs: Sequence[tuple[float, float]]) -> float:
    """Accuracy of the highest score; the mean over equally high ones, as no order is a merit.

    Args:
        pairs: (score, accuracy), at least one.
    """
    highest = max(score for score, _ in pairs)
    return summarise(accuracy for score, accuracy in pairs if score == highest).mean


Sections = Mapping[str, Sequence[Ranking]]
"""By the heading of a part of a table; the heading is empty where there is only one."""


def to_markdown(sections: Sections, title: str = "", metric: str = "acc") -> str:
    """The rankings as tables, the best correlation first, with what they mean below."""
    parts = [f"# {markdown(title)}"] if title else []
    for section, rows in sections.items():
        parts += [f"## {markdown(section)}"] if section else []
        parts.append(_grid(rows, metric_format(metric)))
    parts.append(
        "- Rank correlation of each score with target accuracy over the models of a seed; mean and "
        "95 % interval (Student t) over n seeds.\n"
        "- chosen: target accuracy of the model with the highest score. oracle: of the model that "
        "the target labels would choose. lost: the difference.\n"
        "- Models are the methods at their settings, without those trained on target labels."
    )
    return "\n\n".join(parts) + "\n"


def _grid(rows: Sequence[Ranking], form: MetricFormat) -> str:
    number = MetricFormat("", decimals=2)
    header = [
        "selector", "Spearman", "Kendall", f"chosen: {form.heading}", f"oracle: {form.heading}",
        "lost (points)", "models", "n",
    ]  # fmt: skip
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    ordered = sorted(rows, key=lambda row: -_or_least(row.spearman.mean))
    for row in ordered:
        lines.append([
            metric_format(row.selector).label,
            number.plus_minus(row.spearman.mean, row.spearman.ci95),
            number.plus_minus(row.kendall.mean, row.kendall.ci95),
            form.plus_minus(row.chosen.mean, row.chosen.ci95),
            form.plus_minus(row.oracle.mean, row.oracle.ci95),
            form.plus_minus(row.loss.mean, row.loss.ci95),
            str(row.candidates),
            str(row.chosen.n),
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def to_csv(sections: Sections) -> str:
    """The same as numbers: mean and half width of the interval, accuracies as fractions."""
    names = ("spearman", "kendall", "chosen", "oracle", "loss")
    header = ["section", "selector", *(f"{n}{end}" for n in names for end in ("", "_ci95"))]
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([*header, "models", "n"])
    for section, rows in sections.items():
        for row in rows:
            numbers = [value for name in names for value in _both(getattr(row, name))]
            lines.writerow([section, row.selector, *numbers, row.candidates, row.chosen.n])
    return text.getvalue()


def _both(summary: Summary) -> tuple[str, str]:
    return csv_number(summary.mean), csv_number(summary.ci95)


def _or_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value
