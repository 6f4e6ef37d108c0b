"""What stands below a table of domain adaptation, so that nobody reads more into it than it says.

Unequal budgets, test inputs that were adapted to, numbers of the oracle.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tlresearch.adaptation.tent import TENT
from tlresearch.data import catalogue, domain_tables

Row = tuple[str, str]
"""(method, setting), as labelled."""


def remarks(configs: Mapping[Row, Any], metrics: Sequence[str]) -> list[str]:
    """Sentences for the notes of a table.

    Args:
        configs: of each row, with the family's benchmark, method and `train`.
        metrics: its columns.
    """
    return [
        *_budgets(configs),
        *_passes(configs),
        *_transductive(configs),
        *_of_the_oracle(configs, metrics),
    ]


def _budgets(configs: Mapping[Row, Any]) -> Iterable[str]:
    """Optimiser steps, where rows that are compared took different numbers."""
    steps: dict[int, list[str]] = {}
    for (label, _), config in configs.items():
        made = sum(part.steps for part in config.method.parts(config.train))
        if made and label not in steps.setdefault(made, []):
            steps[made].append(label)
    if len(steps) > 1:
        each = "; ".join(f"{count:,}: {', '.join(labels)}" for count, labels in steps.items())
        yield f"Optimiser steps of a run, all rounds together: {each}."


def _passes(configs: Mapping[Row, Any]) -> Iterable[str]:
    """Methods whose step is several steps of the optimiser."""
    for label, config in _first_of_each(configs):
        passes = sum(phase.repeats for phase in config.method.phases())
        if passes > 1 and config.method.parts(config.train)[0].steps:
            yield f"{label}: each step trains in {passes} passes over the same batches."


def _transductive(configs: Mapping[Row, Any]) -> Iterable[str]:
    """Rows whose accuracy is of inputs that were adapted to."""
    benchmarks = [config.benchmark for config in configs.values()]
    seen = [b.evaluate == "training" or not _has_test_part(b.target) for b in benchmarks]
    if any(seen):
        which = "All accuracies are" if all(seen) else "Where the target has no test part, they are"
        yield (
            f"{which} of the target inputs that were adapted to (transductive); an oracle was "
            "trained on the labels of these same inputs, so that its number is a fit."
        )
    for label, config in _first_of_each(configs):
        if isinstance(config.method, TENT):
            yield f"{label}: adapts to the test inputs that it predicts, by batches (transductive)."


def _of_the_oracle(configs: Mapping[Row, Any], metrics: Sequence[str]) -> Iterable[str]:
    labels = [label for label, config in _first_of_each(configs) if config.method.oracle]
    if labels and "source_acc" in metrics:
        yield (
            f"{', '.join(labels)}: its source is the target, so its source validation accuracy is "
            "that of the target's held-out part."
        )


def _first_of_each(configs: Mapping[Row, Any]) -> list[tuple[str, Any]]:
    """Each label with its configuration in the first setting that has it."""
    first: dict[str, Any] = {}
    for (label, _), config in configs.items():
        first.setdefault(label, config)
    return list(first.items())


def _has_test_part(name: str) -> bool:
    if name in domain_tables.DOMAINS:
        return domain_tables.DOMAINS[name].sizes[1] > 0
    return catalogue.entry(name).test_size > 0
