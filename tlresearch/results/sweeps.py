"""Rows that differ in swept values: how they stand together, and which of them is best."""

import math
from collections.abc import Mapping, Sequence

from tlresearch.results.formats import metric_format
from tlresearch.results.rows import Place, Table

Pair = tuple[str, str]
"""Method and setting."""

EQUAL = 1e-12
"""Means that differ by less, relative to the larger, are equal: the order of a sum is no merit."""


def sections(places: Mapping[Pair, Place]) -> dict[str, list[Pair]]:
    """The rows of each section, one method after the other, its values in order."""
    order: dict[str, dict[str, list[Pair]]] = {}
    for (method, setting), place in places.items():
        order.setdefault(place.section, {}).setdefault(method, []).append((method, setting))
    return {
        section: [pair for pairs in methods.values() for pair in pairs]
        for section, methods in order.items()
    }


def value_headings(table: Table, pairs: Sequence[Pair]) -> list[str]:
    """The columns of swept values that these rows need, in order; none if nothing is swept."""
    if table.places is None:
        return []
    return list(dict.fromkeys(name for pair in pairs for name in table.places[pair].values))


def best_rows(table: Table) -> dict[Pair, str]:
    """Of each method in each section the row with the best mean of the first metric.

    Rows count whose seeds all have a value; of equal means the first. A method with a single row
    in a section has nothing to be best of.

    Returns:
        The section of each best row, by method and setting.
    """
    best: dict[Pair, str] = {}
    for section, pairs in sections(table.places or {}).items():
        for method in dict.fromkeys(method for method, _ in pairs):
            own = [pair for pair in pairs if pair[0] == method]
            winner = best_of(table, own) if len(own) > 1 else None
            if winner is not None:
                best[winner] = section
    return best


def best_of(table: Table, pairs: Sequence[Pair]) -> Pair | None:
    """The first of the rows with the best mean of the table's first metric, or None.

    See `complete_mean` for which rows count.
    """
    sign = -1 if metric_format(table.metrics[0]).lower_is_better else 1
    winner, highest = None, -math.inf
    for pair in pairs:
        mean = complete_mean(table, pair)
        if mean is None:
            continue
        if winner is None or sign * mean > highest + EQUAL * max(abs(mean), abs(highest)):
            winner, highest = pair, sign * mean
    return winner


def complete_mean(table: Table, pair: Pair) -> float | None:
    """Mean of a row's first metric; None if a seed failed, is missing or has no value."""
    ours = table.of(*pair, table.metrics[0])[0].ours
    whole = ours.n == table.cells[pair].seeds_expected and ours.n > 0
    return ours.mean if whole and math.isfinite(ours.mean) else None
