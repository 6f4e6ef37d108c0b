"""The families: where an experiment's `family` leads.

A family's module `protocol` offers METHODS, Benchmark (the settings of its `benchmark:` section),
METRICS, Method (what an own method derives from), StackRun, `check` and `run_stack`; `held_out`
if its benchmark says otherwise than by `validation` and `evaluate` what is held out; `columns` if
its tables have columns of text. Nothing else of a family is known outside it.
"""

import dataclasses
import importlib
from types import ModuleType
from typing import Any

FAMILIES = {"continual": "tlresearch.continual.protocol"}
"""Module of each family's protocol; imported when an experiment asks for it."""


def protocol(family: str) -> ModuleType:
    """The protocol module of a family named in `FAMILIES`."""
    return importlib.import_module(FAMILIES[family])


def held_out(family: str, benchmark: Any, fraction: float) -> Any:
    """A benchmark as a selection sees it: measured on training data that are not trained on.

    Args:
        family: a name in `FAMILIES`; its protocol's `held_out(benchmark, fraction)`, if there is
            one, decides. Otherwise the benchmark must have the settings `validation`, the
            fraction that is held out, and `evaluate`, what is measured on.
        benchmark: the family's benchmark; not changed.
        fraction: of the training data, above 0 and below 1.
    """
    own = getattr(protocol(family), "held_out", None)
    if own is not None:
        return own(benchmark, fraction)
    return dataclasses.replace(benchmark, validation=fraction, evaluate="validation")


def columns(config: Any) -> dict[str, str]:
    """Further columns of text in the table's row of a configuration, by their heading.

    Args:
        config: an `experiment.Config`; its family's `columns(config)`, if there is one, decides.
    """
    own = getattr(protocol(config.family), "columns", None)
    return {} if own is None else dict(own(config))
