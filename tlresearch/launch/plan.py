"""The plan of a table: which cells train together, on what, with how many threads.

A run writes it before its first step, next to the table's records. Within a plan, reruns and
resumes give the same bits; a stack of another size may differ in the last digit.
"""

import dataclasses
import json
import os
import platform
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from tlresearch import families, own, schema
from tlresearch.configs import plain_config
from tlresearch.errors import UserError
from tlresearch.experiment import Cell, Config, Experiment
from tlresearch.files import set_aside
from tlresearch.launch.probing import Prober, is_foreign
from tlresearch.results.store import Store, write_json_atomic
from tlresearch.settings import Bounds

LARGEST_STACK = 32
"""Most seeds of one stack that `auto` makes."""

CPU_STACK_FLOPS = 5e7
"""Floating-point operations of a seed's step (6 · parameters · batch) up to which `auto` stacks
on a CPU; between a size where stacking paid and one where it did not (docs/design.md)."""


@dataclass(frozen=True)
class Stack:
    """Cells that train as one program."""

    cells: tuple[Cell, ...]
    keys: tuple[str, ...]
    fields: dict[str, list[float]]
    """Numeric settings of the method that differ within the stack."""

    @property
    def label(self) -> str:
        """What it is, for people."""
        settings = {cell.setting for cell in self.cells}
        setting = settings.pop() if len(settings) == 1 else f"{len(settings)} settings"
        seeds = sorted({cell.seed for cell in self.cells})
        spread = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]}-{seeds[-1]}"
        return " ".join(part for part in (self.cells[0].method, setting, f"seed {spread}") if part)


@dataclass(frozen=True)
class Plan:
    """All stacks of a table, and what they are computed on."""

    stacks: tuple[Stack, ...]
    threads: int
    device: str
    cells: tuple[tuple[str, Cell], ...] = ()
    """Every cell of the table with its key; equal runs under two names share a key."""
    debug: bool = False
    """Whether every stack is run, records or not."""
    notes: tuple[str, ...] = ()
    """What must be told about the new stacks, a line each."""
    processes: int = 1
    """How many train each stack, every one on its part of the batches."""


def make_plan(
    experiment: Experiment,
    store: Store,
    device: torch.device,
    probing: bool = False,
    processes: int = 1,
) -> Plan:
    """The plan on disk, continued: stacks that were planned before stay as they are.

    Args:
        experiment: its cells are to be run.
        store: where the table's plan lies, if it was begun.
        device: where new stacks run.
        probing: whether own methods and foreign backbones that are still to run are tried on a few
            images of noise, and run one seed at a time where they refuse a stack.
        processes: how many train each new stack.

    Raises:
        UserError: a backbone does not fit the images, what is tried cannot run, or a batch does
            not divide into parts.
    """
    debug = experiment.header.debug
    prober = Prober() if probing and not debug else None
    # The fingerprint that loading holds the data to; a table can be read without them.
    named = [
        (c.key(families.protocol(c.config.family).fingerprint(c.config.benchmark)), c)
        for c in experiment.cells
    ]
    cells = dict(reversed(named))
    cells = {key: cells[key] for key, _ in named}  # the first of equal runs gives its name
    done = {record["key"] for record in Store(store.root, experiment.name).read()}
    for cell in {id(c.config): c for c in cells.values()}.values():
        config = cell.config
        _check_networks(config, cell.method)
        _check_parts(config, processes)
    written = _read(store)
    threads = written.get("threads", torch.get_num_threads())
    where = written.get("device", device.type)
    alike = where == device.type and written.get("processes", 1) == processes
    stacks = []
    for keys in written.get("stacks", []):
        if alike and all(key in cells for key in keys):
            planned = {key: cells.pop(key) for key in keys}
            # An own file may have been edited since; a finished stack is not run again.
            size = len(keys) if done.issuperset(keys) else _size(planned, len(keys), prober)
            stacks += _stacks(planned, size)
    finished = {key: cell for key, cell in cells.items() if key in done}
    missing = {key: cell for key, cell in cells.items() if key not in done}
    for group in [*_groups(finished), *_groups(missing)]:  # a finished cell is never run twice
        size = stack_size(next(iter(group.values())).config, device) if processes == 1 else 1
        if not done.issuperset(group):
            size = _size(group, min(size, len(group)), prober)
        stacks += _stacks(group, size)
    notes = tuple(prober.notes) if prober else ()
    return Plan(tuple(stacks), threads, device.type, tuple(named), debug, notes, processes)


def _size(group: dict[str, Cell], size: int, prober: Prober | None) -> int:
    """`size`, or 1 where the method or the probe says that these cells cannot be one program."""
    stack = _stack(group)
    size = size if _is_stackable(stack.cells[0].config.method) else 1
    stackable = prober is None or prober.stackable(stack.cells[0], stack.fields, size)
    return size if stackable else 1


def _is_stackable(method: Any) -> bool:
    """What a method says of itself by a class variable or a property `stackable`."""
    return getattr(method, "stackable", True)


def _stacks(group: dict[str, Cell], size: int) -> list[Stack]:
    items = list(group.items())
    return [_stack(dict(items[i : i + size])) for i in range(0, len(items), size)]


def _check_networks(config: Config, label: str) -> None:
    """Refuses a backbone that does not fit the images or the method."""
    shape, _ = families.sizes(config)
    if is_foreign(config):  # somebody else's code need not know the meta device
        with torch.random.fork_rng(devices=[]):
            config.backbone.build(shape)
    else:
        with torch.device("meta"):
            config.backbone.build(shape)
    families.check_networks(config, label)


def _check_parts(config: Config, processes: int) -> None:
    """Refuses several processes where they cannot train, or not with parts of equal weight."""
    if processes > 1 and families.one_process(config.family):
        raise UserError(
            f"family: {config.family} trains in one process, not in {processes}; start it by "
            "tlresearch run, without torchrun"
        )
    if config.train.batch_size % processes:
        raise UserError(
            f"train.batch_size: {config.train.batch_size} samples do not divide into equal parts "
            f"for {processes} processes; choose a multiple of {processes}, or another "
            "--nproc-per-node"
        )


def write_plan(plan: Plan, store: Store) -> None:
    """Writes a plan beside the records of its table."""
    write_json_atomic(
        store.plan_path,
        {
            "device": plan.device,
            **({"processes": plan.processes} if plan.processes > 1 else {}),
            "threads": plan.threads,
            "stacks": [list(stack.keys) for stack in plan.stacks],
            "labels": [stack.label for stack in plan.stacks],
            "configs": _configs(plan),
            "versions": versions(),
        },
    )


def _configs(plan: Plan) -> list[dict[str, Any]]:
    """Every distinct configuration in full, with its method's and setting's label."""
    configs: dict[tuple[str, str], Config] = {}
    for stack in plan.stacks:
        for cell in stack.cells:
            configs.setdefault((cell.method, cell.setting), cell.config)
    return [
        {"method": method, "setting": setting, "config": plain_config(config)}
        for (method, setting), config in configs.items()
    ]


def versions(config: Config | None = None) -> dict[str, str]:
    """Versions of what computed a record; of what a configuration uses beside, too."""
    import tlresearch

    used: dict[str, str] = {}
    for part in [config.backbone, config.method, *families.parts(config)] if config else []:
        used |= getattr(getattr(part, "settings", None), "versions", {})
        used |= getattr(part, "versions", {})
    return used | {
        "tlresearch": tlresearch.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def planned_device(store: Store) -> str | None:
    """The kind of device of the plan on disk; None if there is none."""
    return _read(store).get("device")


def repair(store: Store) -> list[str]:
    """Sets a plan aside that cannot be used, so that it is made again; one sentence if so."""
    if not store.plan_path.exists() or _read(store):
        return []
    aside = set_aside(store.plan_path)
    return [
        f"the plan {store.plan_path} cannot be used; it was renamed to {aside.name} "
        "and is made again"
    ]


def _read(store: Store) -> dict[str, Any]:
    """The plan on disk; none if it is not there or cannot be used (it can always be made again)."""
    try:
        plan = json.loads(store.plan_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(plan, dict):
        return {}
    stacks: Any = plan.get("stacks")
    threads = plan.get("threads")
    usable = type(threads) is int and 1 <= threads <= 4096 and isinstance(stacks, list)
    return plan if usable and _are_stacks(stacks) else {}


def _are_stacks(stacks: list[Any]) -> bool:
    """Whether they are lists of keys, none empty, no key twice."""
    if not all(isinstance(keys, list) and keys for keys in stacks):
        return False
    flat = [key for keys in stacks for key in keys]
    return all(isinstance(key, str) for key in flat) and len(set(flat)) == len(flat)


def _groups(cells: dict[str, Cell]) -> list[dict[str, Cell]]:
    """Cells that differ in seed and in numeric settings of the method only, in the given order."""
    groups: dict[str, dict[str, Cell]] = {}
    for key, cell in cells.items():
        common = dataclasses.replace(cell.config, method=_without_numbers(cell.config.method))
        name = json.dumps([cell.method, plain_config(common)], sort_keys=True)
        groups.setdefault(name, {})[key] = cell
    return list(groups.values())


def numeric_fields(method: Any) -> list[str]:
    """The fields of a method that may be a tensor over the stack: plain numbers with a fraction."""
    hints = schema.fields_of(type(method))
    return [name for name, kind in hints.items() if _is_number(kind)]


def _is_number(kind: Any) -> bool:
    arguments = getattr(kind, "__metadata__", ())
    inner = getattr(kind, "__origin__", kind)
    return inner is float and all(isinstance(a, Bounds) for a in arguments)


def _without_numbers(method: Any) -> Any:
    return dataclasses.replace(method, **dict.fromkeys(numeric_fields(method), 0.0))


def _stack(cells: dict[str, Cell]) -> Stack:
    methods = [cell.config.method for cell in cells.values()]
    fields = {}
    for name in numeric_fields(methods[0]):
        values = [getattr(method, name) for method in methods]
        if len(set(values)) > 1:
            fields[name] = values
    return Stack(tuple(cells.values()), tuple(cells), fields)


def stack_size(config: Config, device: torch.device) -> int:
    """How many seeds train as one program: the setting, or what `auto` decides.

    On a GPU small networks wait for launches, so all seeds train together. On a CPU a stack only
    pays where the steps are so small that overhead dominates; convolutions are left unstacked.
    """
    if not _is_stackable(config.method):
        return 1
    if config.train.stack != "auto":
        return int(config.train.stack)
    if config.train.channels_last:
        return 1
    if device.type == "cuda":
        return LARGEST_STACK
    shape, classes = families.sizes(config)
    with own.blamed("the networks cannot be built") if is_foreign(config) else nullcontext():
        networks = config.method.networks(config.backbone, shape, classes, 0)
    parameters = sum(p.numel() for p in networks.parameters())
    if any(isinstance(m, torch.nn.modules.conv._ConvNd) for m in networks.modules()):
        return 1
    flops = 6 * parameters * config.train.batch_size
    return LARGEST_STACK if flops <= CPU_STACK_FLOPS else 1


def stack_run(stack: Stack) -> Any:
    """What the family's protocol runs for this stack."""
    config = stack.cells[0].config
    return families.protocol(config.family).StackRun(
        benchmark=config.benchmark,
        backbone=config.backbone,
        method=config.method,
        train=config.train,
        seeds=[cell.seed for cell in stack.cells],
        fields=stack.fields,
    )


def host() -> str:
    """The machine, for the record: system, processor kind and number of cores."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
