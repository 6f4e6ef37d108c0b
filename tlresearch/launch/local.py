"""Works a plan off in this process, stack by stack."""

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tlresearch import families
from tlresearch.experiment import Experiment, plain_config
from tlresearch.files import claim, remove_leftovers
from tlresearch.launch.plan import Plan, Stack, host, stack_run, versions
from tlresearch.launch.waiting import Outdated, is_missing, missing_stacks, sources_of
from tlresearch.results.store import Store
from tlresearch.training.observer import RunFiles


@dataclass
class Reporter:
    """Who is told how far the work is."""

    begin: Callable[[Stack, int], None] = lambda stack, steps: None
    """A stack begins that will take so many steps."""
    advance: Callable[[int], None] = lambda steps: None
    """So many steps are done."""
    end: Callable[[Stack, list[Any]], None] = lambda stack, outcomes: None
    """A stack is done."""
    wait: Callable[[Stack, str], None] = lambda stack, holder: None
    """Another process, which is named, works on a stack that is waited for."""


def run(
    experiment: Experiment,
    plan: Plan,
    store: Store,
    device: torch.device,
    root: Path | None = None,
    reporter: Reporter | None = None,
    again: Outdated | None = None,
) -> None:
    """Runs what has no record yet, and writes one record for each cell.

    Stacks that another process has claimed are left to it and waited for at the end; what it has
    not done by then is run here.

    Args:
        experiment: the table.
        plan: its stacks.
        store: where the records go.
        device: where it runs.
        root: data root; None: where the environment says.
        reporter: told how far the work is.
        again: records that are made again, by `outdated`.

    Raises:
        UserError: something cannot be written; what is done stays done.
        KeyboardInterrupt: with notes that say what is kept of the stack under way.
    """
    again = again or {}
    reporter = reporter or Reporter()
    torch.set_num_threads(plan.threads)
    # Before the work: an edit while it goes on is not what the records are made by.
    sources = {
        cell.method: sources_of(cell.config.method, cell.config.family) for cell in experiment.cells
    }
    try:
        for patient in (False, True):
            for stack in missing_stacks(plan, store, again):
                source = sources[stack.cells[0].method]
                wait = partial(reporter.wait, stack) if patient else None
                with claim(run_files(store, stack, source).lock, wait) as ours:
                    if ours and is_missing(stack, store, again):
                        _run_stack(experiment, stack, source, store, device, root, reporter)
    except KeyboardInterrupt as stop:
        total = sum(len(stack.keys) for stack in plan.stacks)
        left = sum(len(stack.keys) for stack in missing_stacks(plan, store, again))
        stop.add_note(f"{total - left} of {total} runs are done")
        raise


def _run_stack(
    experiment: Experiment,
    stack: Stack,
    source: str,
    store: Store,
    device: torch.device,
    root: Path | None,
    reporter: Reporter,
) -> None:
    config = stack.cells[0].config
    files = run_files(store, stack, source)
    reporter.begin(stack, config.train.steps * config.benchmark.tasks)
    began = time.time()
    try:
        outcomes = families.protocol(config.family).run_stack(
            stack_run(stack), device, files, root, reporter.advance
        )
    except KeyboardInterrupt as stop:
        stop.add_note(_kept(stack, files))
        raise
    for cell, key, outcome in zip(stack.cells, stack.keys, outcomes, strict=True):
        store.write(
            {
                "experiment": experiment.name,
                "family": config.family,
                "method": cell.method,
                "setting": cell.setting,
                "seed": cell.seed,
                "key": key,
                "source": source,
                "status": outcome.status,
                "reason": outcome.reason,
                "checkpoint": config.train.checkpoint,
                "metrics": outcome.metrics,
                "arrays": outcome.arrays,
                "config": plain_config(cell.config),
                "details": outcome.details,
                "stack": len(stack.cells),
                "versions": versions(),
                "device": device.type,
                "host": host(),
                "threads": torch.get_num_threads(),
                "wall_seconds": time.time() - began,
            }
        )
    files.checkpoint.unlink(missing_ok=True)
    reporter.end(stack, outcomes)


def _kept(stack: Stack, files: RunFiles) -> str:
    """What is kept of a stack that was stopped."""
    try:
        age = time.time() - files.checkpoint.stat().st_mtime
    except FileNotFoundError:
        return f"{stack.label} has no checkpoint yet and starts anew"
    return f"{stack.label} goes on from its checkpoint, {age:.0f} s old"


def tidy(plan: Plan, store: Store, again: Outdated) -> None:
    """Removes what processes that were killed left behind; what lives is left alone.

    Checkpoints stay of stacks that are still to be run, by `missing_stacks` with the same `again`.
    """
    folder, base = store.root / "records" / store.table, store.root / store.table
    with suppress(OSError):  # another process may clear the same folders
        places = [folder.rglob(".*.tmp"), folder.parent.glob(".*.tmp"), base.parent.glob(".*.tmp")]
        remove_leftovers(path for found in places for path in found)
    if not [*folder.glob("runs/*/checkpoint.pt"), *folder.glob("runs/*/lock")]:
        return
    missing = {stack.keys for stack in missing_stacks(plan, store, again)}
    for stack in plan.stacks:
        config = stack.cells[0].config
        files = run_files(store, stack, sources_of(config.method, config.family))
        if stack.keys not in missing and (files.checkpoint.exists() or files.lock.exists()):
            with claim(files.lock) as ours:
                if ours:
                    files.checkpoint.unlink(missing_ok=True)


def run_files(store: Store, stack: Stack, source: str) -> RunFiles:
    """Where a stack keeps checkpoint and log: a place of its own for these cells and code."""
    name = hashlib.sha256("\n".join([source, *stack.keys]).encode()).hexdigest()[:16]
    folder = store.root / "records" / store.table / "runs" / name
    return RunFiles(folder / "checkpoint.pt", folder / "metrics.jsonl")
