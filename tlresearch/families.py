"""The families: where an experiment's `family` leads.

A family's module `protocol` offers

- METHODS; Benchmark (the settings of its `benchmark:` section); METRICS and DEFAULT_METRICS, the
  columns of a table that names none; Method (what an own method derives from); StackRun;
- `check(benchmark, method, label, train)` and `run_stack(run, device, files, …)`;
- `datasets(benchmark)`, names of the catalogue; `fingerprint(benchmark)` of all data;
  `load_data(benchmark, root)`, which refuses what is missing or damaged;
- `sizes(benchmark)`, shape of an input and most units of a head; `total_steps(config)` of a run;
- `held_out(benchmark, fraction)` if its benchmark says otherwise than by `validation` and
  `evaluate` what is held out; `columns(config)` if its tables have columns of text;
  `possible_metrics(config)` if a run cannot have all METRICS;
- SELECTORS, words by metric, and `check_selection(metric)` if a selection may not choose by any
  of METRICS; its `held_out(benchmark, fraction, metric)` is then told which it is;
- `parts(config)` if a run has backbones and methods beside its own, e.g. those of a teacher;
- `check_networks(config, label)` if a method and its backbone may not fit each other;
- `check_files(config, label, root)` if a method needs files beside the data;
- `measured_checkpoint(config)` if metrics are of other weights than `train.checkpoint` says;
- ONE_PROCESS = True if it cannot train in several; `trial(config)`, a `training.trial.Trial`, if
  its methods are tried by other means than labelled images.

Nothing else of a family is known outside it.
"""

import dataclasses
import importlib
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

FAMILIES = {
    "continual": "tlresearch.continual.protocol",
    "adaptation": "tlresearch.adaptation.protocol",
    "distillation": "tlresearch.distillation.protocol",
    "fewshot": "tlresearch.fewshot.protocol",
    "zeroshot": "tlresearch.fewshot.zeroshot.protocol",
}
"""Module of each family's protocol; imported when an experiment asks for it."""
REMARKS = {"adaptation": "tlresearch.adaptation.remarks"}
"""Module of the families that have something to say below a table: its `remarks(configs, metrics)`.
Not part of the protocol, so that words make no number stale."""


def protocol(family: str) -> ModuleType:
    """The protocol module of a family named in `FAMILIES`."""
    return importlib.import_module(FAMILIES[family])


def held_out(family: str, benchmark: Any, fraction: float, metric: str = "") -> Any:
    """A benchmark as a selection sees it: measured on training data that are not trained on.

    Args:
        family: a name in `FAMILIES`; its protocol's `held_out(benchmark, fraction)`, if there is
            one, decides. Otherwise the benchmark must have the settings `validation`, the
            fraction that is held out, and `evaluate`, what is measured on.
        benchmark: the family's benchmark; not changed.
        fraction: of the training data, above 0 and below 1.
        metric: what is chosen by.
    """
    own = getattr(protocol(family), "held_out", None)
    if own is not None:
        return own(benchmark, fraction, *([metric] if selectors(family) else []))
    return dataclasses.replace(benchmark, validation=fraction, evaluate="validation")


def selectors(family: str) -> Mapping[str, str]:
    """What a selection may choose by, and words for it; empty: by any metric."""
    return getattr(protocol(family), "SELECTORS", {})


def check_selection(family: str, metric: str) -> None:
    """Refuses a metric that a selection must not choose by.

    Raises:
        UserError: one sentence.
    """
    if selectors(family):
        protocol(family).check_selection(metric)


def columns(config: Any) -> dict[str, str]:
    """Further columns of text in the table's row of a configuration, by their heading.

    Args:
        config: an `experiment.Config`; its family's `columns(config)`, if there is one, decides.
    """
    own = getattr(protocol(config.family), "columns", None)
    return {} if own is None else dict(own(config))


def remarks(
    family: str, configs: Mapping[tuple[str, str], Any], metrics: Sequence[str]
) -> list[str]:
    """Sentences for the notes of a table, by its rows' configurations."""
    if family not in REMARKS:
        return []
    return list(importlib.import_module(REMARKS[family]).remarks(configs, metrics))


def possible_metrics(config: Any) -> set[str]:
    """The metrics that a run of a configuration can have; all, unless its family says so."""
    module = protocol(config.family)
    own = getattr(module, "possible_metrics", None)
    return set(module.METRICS) if own is None else own(config)


def parts(config: Any) -> list[Any]:
    """Settings of the backbones and methods that a run uses beside its own.

    Args:
        config: an `experiment.Config`; its family's `parts(config)`, if there is one, decides.
    """
    own = getattr(protocol(config.family), "parts", None)
    return [] if own is None else list(own(config))


def trial(config: Any) -> Any:
    """How the method of a configuration is tried on noise; None: as a classifier of images."""
    own = getattr(protocol(config.family), "trial", None)
    return None if own is None else own(config)


def check_networks(config: Any, label: str) -> None:
    """Refuses a method that does not fit its backbone, if its family can tell before it runs.

    Args:
        config: an `experiment.Config`.
        label: of its method.

    Raises:
        UserError: one sentence.
    """
    own = getattr(protocol(config.family), "check_networks", None)
    if own is not None:
        own(config, label)


def check_files(config: Any, label: str, root: Any) -> None:
    """Refuses files that a method needs beside the data, if they are missing.

    Args:
        config: an `experiment.Config`.
        label: of its method.
        root: data root; None: where the environment says.

    Raises:
        UserError: one sentence.
    """
    own = getattr(protocol(config.family), "check_files", None)
    if own is not None:
        own(config, label, root)


def measured_checkpoint(config: Any) -> str:
    """Which weights of a run most metrics are of: `last` or `selected`."""
    own = getattr(protocol(config.family), "measured_checkpoint", None)
    return config.train.checkpoint if own is None else own(config)


def one_process(family: str) -> bool:
    """Whether a family cannot train in several processes."""
    return getattr(protocol(family), "ONE_PROCESS", False)


def sizes(config: Any) -> tuple[tuple[int, int, int], int]:
    """Shape of an input of a configuration, and the most units that its head can have."""
    return protocol(config.family).sizes(config.benchmark)


def datasets(configs: Iterable[Any]) -> list[str]:
    """The catalogue's names of all data that some configurations use, sorted."""
    names = {name for c in configs for name in protocol(c.family).datasets(c.benchmark)}
    return sorted(names)
