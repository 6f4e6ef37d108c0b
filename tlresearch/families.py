"""The families: where an experiment's `family` leads.

A family's module `protocol` offers METHODS, Benchmark (the settings of its `benchmark:` section),
METRICS, Method (what an own method derives from), StackRun, `check` and `run_stack`; nothing else
of a family is known outside it.
"""

import importlib
from types import ModuleType

FAMILIES = {"continual": "tlresearch.continual.protocol"}
"""Module of each family's protocol; imported when an experiment asks for it."""


def protocol(family: str) -> ModuleType:
    """The protocol module of a family named in `FAMILIES`."""
    return importlib.import_module(FAMILIES[family])
