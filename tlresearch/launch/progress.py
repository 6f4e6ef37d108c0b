"""What a person sees of a run: the plan before it, bars during it; nothing in a pipe."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tlresearch import families
from tlresearch.configs import plain_config
from tlresearch.data import catalogue
from tlresearch.experiment import Experiment
from tlresearch.launch.local import Reporter
from tlresearch.launch.plan import Plan, Stack
from tlresearch.launch.waiting import RERUNS
from tlresearch.selection import grid_of
from tlresearch.variations import heading, short


def plan_text(
    experiment: Experiment,
    plan: Plan,
    waiting: list[Stack],
    again: int = 0,
    why: str | None = None,
    stale: int = 0,
) -> str:
    """How many runs there are, how many are done, and how the rest will run.

    Args:
        experiment: the table.
        plan: its stacks.
        waiting: those that are to be run.
        again: how many finished runs are made again.
        why: what `--rerun` was given.
        stale: how many finished runs were made by other code, and stay.
    """
    old = f", {stale} of them by other code (stale; confirm, or --rerun stale)" if stale else ""
    name = experiment.outputs or experiment.name
    total = sum(len(stack.keys) for stack in plan.stacks)
    left = sum(len(stack.keys) for stack in waiting)
    largest = max((len(stack.keys) for stack in waiting), default=0)
    if not waiting:
        return f"{name}: {total} runs, all done{old}."
    lines = [
        f"{name}: {total} runs, {total - left} done{old}, {left} to do, "
        f"in {len(waiting)} stacks of up to {largest} seeds, "
        f"on {plan.device} with {plan.threads} threads"
        + (f" in each of {plan.processes} processes." if plan.processes > 1 else ".")
    ]
    if why and again:
        lines.append(f"  {again} finished runs are made again {RERUNS[why]}; stacks run whole")
    undone = {key for stack in waiting for key in stack.keys}
    for label in experiment.method_labels:
        own = {key for key, cell in plan.cells if cell.method == label}
        lines.append(f"  {label}: {len(own - undone)} of {len(own)} runs done")
    return "\n".join(lines)


def details(experiment: Experiment, root: Path | None = None) -> str:
    """What a dry run says beyond the plan: each method with its settings, and where the data are.

    Of a method the settings are shown that differ from their defaults, with each value that they
    have in some row of the table, or that is tried before one is chosen.

    Args:
        experiment: the table.
        root: data root; None: where the environment says.
    """
    lines = []
    for label in experiment.method_labels:
        settings = _settings(experiment, label)
        words = [str(experiment.header.methods[label]["name"]), *settings]
        lines.append(f"  {label}: {', '.join(words)}")
    for name in families.datasets(cell.config for cell in experiment.cells):
        found = catalogue.locate(name, root)
        where = f"found at {found}" if found else "not found here; see 'tlresearch data'"
        lines.append(f"  data: {name} ({where})")
    return "\n".join(lines)


def _settings(experiment: Experiment, label: str) -> list[str]:
    """`key=value` for each setting of a method that is not everywhere at its default.

    Those of its own training, `train.lr=0.01`, are shown as the file gives them.
    """
    methods = {id(c.config): c.config.method for c in experiment.cells if c.method == label}
    changed = {key for m in methods.values() for key in _flat(plain_config(m, defaults=False))}
    shown: dict[str, list[str]] = {}
    for method in methods.values():
        for key, value in _flat(plain_config(method)).items():
            if key in changed and _text(value) not in shown.setdefault(key, []):
                shown[key].append(_text(value))
    trained = [
        v.raw["methods"][label].get("train", {}) for v in experiment.variants if v.method == label
    ]
    for key, value in ((f"train.{k}", v) for changes in trained for k, v in changes.items()):
        if _text(value) not in shown.setdefault(key, []):
            shown[key].append(_text(value))
    lines = {key: " or ".join(values) for key, values in shown.items()}
    if experiment.header.select and experiment.choice is None:
        for key, values in grid_of(experiment.header.select, label).items():
            lines[heading(key, label)] = f"{' or '.join(map(_text, values))} (to be chosen)"
    return [f"{key}={values}" for key, values in lines.items()]


def _text(value: Any) -> str:
    """A value as people write it: numbers short, lists and the like as in JSON."""
    return short(value) if isinstance(value, str | float) else json.dumps(value, ensure_ascii=False)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key, without the names of their classes."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif key != "kind":
            flat[prefix + key] = value
    return flat


@contextmanager
def reporter(waiting: list[Stack], bars: bool = True) -> Iterator[Reporter]:
    """Progress bars on the error stream, if it is a terminal and `bars`; else silence."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=console, disable=not (bars and console.is_terminal)) as shown:
        whole = shown.add_task("runs", total=sum(len(stack.keys) for stack in waiting))
        current = shown.add_task("steps", total=None)

        def begin(stack: Stack, steps: int) -> None:
            shown.reset(current, description=stack.label, total=steps)

        def advance(steps: int) -> None:
            shown.advance(current, steps)

        def end(stack: Stack, outcomes: list[Any]) -> None:
            shown.advance(whole, len(stack.keys))
            for seed, outcome in zip((c.seed for c in stack.cells), outcomes, strict=True):
                if outcome.status == "failed":
                    console.print(f"{stack.label}, seed {seed} was stopped: {outcome.reason}")
                if "warning" in outcome.details:
                    text = f"{stack.label}, seed {seed}: {outcome.details['warning']}"
                    console.print(text, highlight=False, soft_wrap=True, markup=False)

        def wait(stack: Stack, holder: str) -> None:
            console.print(
                f"tlresearch: {holder} works on {stack.label}; waiting for it",
                highlight=False,
                soft_wrap=True,
                markup=False,
            )

        yield Reporter(begin, advance, end, wait=wait)
