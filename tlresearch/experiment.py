"""The schema of an experiment file: everything a table depends on, and nothing else.

A file names a family, its benchmark, a backbone, methods, training and seeds. `settings` vary it by
dotted keys under a name of their own; `sweep` varies one key over values. Method × setting × seed
is a *cell*, the unit of a record.
"""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlresearch import families, own, own_names, schema, yamlfile
from tlresearch.checks import VARIABLE, check_header, check_metrics, check_published
from tlresearch.configs import plain_config
from tlresearch.errors import UserError
from tlresearch.results.published import Published
from tlresearch.selection import Choice, Select, forget
from tlresearch.training.settings import Train, check_train
from tlresearch.variations import Variant, combinations


@dataclass(frozen=True)
class Header:
    """The keys of an experiment file."""

    family: str
    """`adaptation`, `continual`, `distillation`, `fewshot` or `zeroshot`; `tlresearch describe
    FAMILY` lists its benchmark."""
    benchmark: dict[str, Any]
    """The family's benchmark; `tlresearch describe continual` lists its settings."""
    backbone: dict[str, Any]
    """`name` and the settings of a backbone; a text stands for the name alone."""
    methods: dict[str, dict[str, Any]]
    """Label in the table: `name` and the settings of a method; `train` holds training settings of
    its own, which go over the table's."""
    seeds: tuple[int, ...]
    """Seeds of the runs, each at least 0, none twice."""
    title: str = ""
    """One line above the table."""
    train: dict[str, Any] = field(default_factory=dict)
    """Settings of training; see `training.settings.Train`."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Variations: a name, and dotted keys with the values they take."""
    mean: str = ""
    """Name of a last section with each method's mean over all settings; empty: none."""
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    """Dotted keys and the values they run through; one under `methods.LABEL` varies that method."""
    sweep_axis: str = ""
    """Column of the table that the figure of a sweep has on its horizontal axis, e.g.
    `parameters`; empty: the swept number."""
    metrics: tuple[str, ...] = ()
    """Columns of the table, the first is the one compared; empty: the family's usual ones."""
    published: list[Published] = field(default_factory=list)
    """Numbers of papers, beside ours."""
    debug: bool = False
    """One seed at a time and not compiled, so that `breakpoint()` and `print` in own code work."""
    select: Select | None = None
    """What is tuned, on a held-out part of the training data; see `selection.Select`."""


@dataclass(frozen=True)
class Config:
    """One method in one setting, resolved: what a run depends on apart from its seed."""

    family: str
    benchmark: Any
    backbone: Any
    method: Any
    train: Train


@dataclass(frozen=True)
class Cell:
    """One run: a method in a setting with a seed."""

    method: str
    """Label in the table."""
    setting: str
    """Label of the setting; empty where there is only one."""
    seed: int
    config: Config

    def key(self, fingerprint: str) -> str:
        """SHA-256 of what the run depends on, of the data's `fingerprint` too; hexadecimal.

        Fields at their defaults do not count, so that a new field keeps old keys.
        """
        config = plain_config(self.config, defaults=False)
        config["train"].pop("stack", None)  # how seeds are grouped is the plan's affair
        plain = {"config": config, "seed": self.seed}
        text = json.dumps(plain | {"data": fingerprint}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Experiment:
    """A validated experiment file, and the cells it asks for."""

    path: Path
    header: Header
    name: str
    """Of its table, e.g. `continual/split_mnist_task`."""
    overrides: tuple[str, ...]
    cells: tuple[Cell, ...]
    variants: tuple[Variant, ...] = ()
    """What the cells were made from: method × setting."""
    choice: Choice | None = None
    """The values that `select` chose, once they are in the cells."""
    outputs: str = ""
    """Name of its files, where that is not the name of the table that keeps its records."""

    @property
    def method_labels(self) -> list[str]:
        """In the order of the file."""
        return list(self.header.methods)

    @property
    def setting_labels(self) -> list[str]:
        """In the order in which the file gives them."""
        return list(dict.fromkeys(cell.setting for cell in self.cells))

    @property
    def metrics(self) -> list[str]:
        """Columns of the table: the file's, or those of its family's that a run can have."""
        if self.header.metrics:
            return list(self.header.metrics)
        possible = set().union(*(families.possible_metrics(cell.config) for cell in self.cells))
        default = families.protocol(self.header.family).DEFAULT_METRICS
        return [metric for metric in default if metric in possible]


def load(path: Path, overrides: list[str] | None = None) -> Experiment:
    """Reads, overrides and checks an experiment file; nothing is run.

    Args:
        path: the YAML file.
        overrides: `dotted.key=value` each; `key=1,2,3` sweeps a scalar.

    Raises:
        UserError: anything in it cannot be used; one sentence.
    """
    where = str(path)
    raw = yamlfile.read(path)
    if not isinstance(raw, dict):
        raise UserError(f"{where}: expected keys and values such as 'family: continual'")
    raw = _spelled_out(copy.deepcopy(raw))
    for override in overrides or []:
        _override(raw, override, where)
        _spelled_out(raw)
    header = schema.structure(raw, Header, "", where)
    check_header(header, where)
    variants = tuple(_variants(raw, header, where))
    cells = cells_of(variants, header.seeds, where)
    check_metrics(header, [cell.config for cell in cells], where)
    check_published(header, {(cell.method, cell.setting) for cell in cells}, where)
    # A debug run starts anew each time and must not touch the records of the table.
    name = table_name(path) + ("+debug" if header.debug else "")
    return Experiment(path, header, name, tuple(overrides or ()), cells, variants)


def _spelled_out(raw: dict[str, Any]) -> dict[str, Any]:
    """`backbone: mlp` as `backbone: {name: mlp}`, in place, so that overrides find its keys."""
    if isinstance(raw.get("backbone"), str):
        raw["backbone"] = {"name": raw["backbone"]}
    return raw


def table_name(path: Path) -> str:
    """The path below the nearest folder `experiments`, without its suffix; else the file's stem."""
    parts = path.resolve().with_suffix("").parts
    if "experiments" in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index("experiments")
        return "/".join(parts[last + 1 :])
    return parts[-1]


def _override(raw: dict[str, Any], text: str, where: str) -> None:
    """Applies `dotted.key=value` to the raw file; a list for a scalar becomes a sweep."""
    key, separator, value = text.partition("=")
    key = key.strip()
    if not separator or not key:
        raise UserError(f"argument '{text}': expected dotted.key=value, e.g. train.steps=500")
    parsed = yamlfile.parse(value, f"argument '{text}'")
    if "," in value and isinstance(parsed, str) and key.split(".")[0] in VARIABLE:
        values = [yamlfile.parse(v, f"argument '{text}'") for v in value.split(",")]
        sweep = raw.setdefault("sweep", {})
        if not isinstance(sweep, dict):
            raise UserError(f"{where}: key 'sweep' must be keys and values, not {sweep!r}")
        sweep[key] = values
        _check_path(raw, key, f"argument '{text}'")
        forget(raw, key)
        _forget_own(raw, key)
        return
    set_dotted(raw, key, parsed, f"argument '{text}'")
    _forget(raw, key)
    _forget_own(raw, key)


def _forget(raw: dict[str, Any], key: str) -> None:
    """What the command line says goes before the file's sweep and settings."""
    settings = raw.get("settings")
    groups = [raw.get("sweep"), *(settings.values() if isinstance(settings, dict) else [])]
    for group in groups:
        if isinstance(group, dict):
            group.pop(key, None)
    forget(raw, key)


def _forget_own(raw: dict[str, Any], key: str) -> None:
    """What the command line says of all training goes before what the methods say of their own."""
    group, _, name = key.partition(".")
    methods = raw.get("methods")
    if group != "train" or not name or not isinstance(methods, dict):
        return
    for label, settings in methods.items():
        if isinstance(settings, dict) and isinstance(settings.get("train"), dict):
            settings["train"].pop(name, None)
        _forget(raw, f"methods.{label}.{key}")


def set_dotted(raw: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Sets a dotted key in nested dicts; a top-level key must be one of the file's.

    Raises:
        UserError: the path leads through something that is no group, or starts nowhere.
    """
    _check_path(raw, key, where)
    *groups, last = key.split(".")
    target = raw
    for group in groups:
        target = target.setdefault(group, {})
    target[last] = value


def _check_path(raw: dict[str, Any], key: str, where: str) -> None:
    known = schema.fields_of(Header)
    parts = key.split(".")
    if parts[0] not in known:
        hint = schema.nearest(parts[0], [*known, *_known_below(raw)])
        raise UserError(f"{where}: unknown key '{key}'; {hint}")
    methods = raw.get("methods")
    if (
        parts[0] == "methods"
        and len(parts) > 1
        and isinstance(methods, dict)
        and parts[1] not in methods
    ):
        hint = schema.nearest(parts[1], [str(label) for label in methods])
        raise UserError(f"{where}: no method is labelled '{parts[1]}'; {hint}")
    target: Any = raw
    for i, group in enumerate(parts[:-1]):
        target = target.get(group, {})
        if not isinstance(target, dict):
            at = ".".join(parts[: i + 1])
            raise UserError(f"{where}: '{at}' is {target!r}, not a group of settings")


def _known_below(raw: dict[str, Any]) -> list[str]:
    """Dotted names of training's keys, for the hint of an override without its group."""
    return [f"train.{name}" for name in schema.fields_of(Train)]


def _variants(raw: dict[str, Any], header: Header, where: str) -> list[Variant]:
    """All rows of the table, settings first, then methods."""
    general = {k: v for k, v in header.sweep.items() if not k.startswith("methods.")}
    variants = []
    for name, changes in (header.settings or {"": {}}).items():
        for sweep_label, sweep_changes in combinations(general, where):
            for label in header.methods:
                own = {k: v for k, v in header.sweep.items() if k.startswith(f"methods.{label}.")}
                for own_label, own_changes in combinations(own, where):
                    variant = copy.deepcopy(raw)
                    swept = sweep_changes | own_changes
                    for key, value in (changes | swept).items():
                        at = f"{where}: setting '{name}'" if key in changes else where
                        set_dotted(variant, key, value, at)
                    setting = ", ".join(part for part in (name, sweep_label, own_label) if part)
                    variants.append(Variant(label, setting, name, swept, variant))
    return variants


def cells_of(variants: tuple[Variant, ...], seeds: tuple[int, ...], where: str) -> tuple[Cell, ...]:
    """All cells, in the order of the variants, then of the seeds.

    Raises:
        UserError: a variant cannot be used, or two have one name.
    """
    cells = []
    for variant in variants:
        config = resolve(variant.raw, variant.method, where)
        cells += [Cell(variant.method, variant.setting, seed, config) for seed in seeds]
    _refuse_twins(tuple(cells), where)
    return tuple(cells)


def _refuse_twins(cells: tuple[Cell, ...], where: str) -> None:
    """Two cells under one label would be one row of the table."""
    seen: set[tuple[str, str, int]] = set()
    for cell in cells:
        name = (cell.method, cell.setting, cell.seed)
        if name in seen:
            at = f"'{cell.method}'" + (f", '{cell.setting}'" if cell.setting else "")
            raise UserError(f"{where}: {at} is asked for twice; give each variation its own value")
        seen.add(name)


def resolve(raw: Mapping[str, Any], label: str, where: str) -> Config:
    """The configuration of one method, checked.

    Raises:
        UserError: as `load`.
    """
    from tlresearch.backbones import BACKBONES, foreign

    header = schema.structure(raw, Header, "", where)
    protocol = families.protocol(header.family)
    benchmark = schema.structure(header.benchmark, protocol.Benchmark, "benchmark", where)
    train = _training(header, label, where)
    if header.debug:
        train = dataclasses.replace(train, stack=1, compile=False)
    place = f"methods.{label}"
    backbone = foreign.backbone(header.backbone, "backbone", where)
    if backbone is None:
        backbone = schema.named(header.backbone, BACKBONES, "backbone", "backbone", where)
    settings = {key: value for key, value in header.methods[label].items() if key != "train"}
    settings = own_names.placed(settings, Path(where).parent)
    method = own.method(settings, protocol.Method, place, where)
    if method is None:
        method = schema.named(settings, protocol.METHODS, place, "method", where)
    try:
        with own.blamed(f"'{place}' cannot be checked") if own.sources(method) else nullcontext():
            protocol.check(benchmark, method, label, train)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return Config(header.family, benchmark, backbone, method, train)


def _training(header: Header, label: str, where: str) -> Train:
    """The table's `train` with the method's own over it, checked."""
    place, changes = f"methods.{label}.train", header.methods[label].get("train", {})
    for settings, at in ((header.train, "train"), (changes, place)):  # an error names its place
        schema.structure(settings, Train, at, where)
    train = schema.structure(header.train | changes, Train, "train", where)
    problem = check_train(train)
    if problem:
        over = f"'{place}' over 'train': " if changes else ""
        raise UserError(f"{where}: {over}{problem}")
    return train
