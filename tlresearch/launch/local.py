"""Works a plan off in this process, stack by stack."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tlresearch import families
from tlresearch.experiment import Experiment, plain_config
from tlresearch.launch.plan import Plan, Stack, host, stack_run, versions
from tlresearch.results.provenance import source_hash
from tlresearch.results.store import Store
from tlresearch.training.distributed import ALONE, Processes
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


def sources_of(method: Any, family: str) -> str:
    """Hash of the code that a method's runs use."""
    modules = [type(method).__module__, families.FAMILIES[family]]
    return source_hash(modules)


def missing_stacks(plan: Plan, store: Store) -> list[Stack]:
    """The stacks with a cell that has no record yet."""
    done = {record["key"] for record in store.read()}
    return [stack for stack in plan.stacks if not done.issuperset(stack.keys)]


def run(
    experiment: Experiment,
    plan: Plan,
    store: Store,
    device: torch.device,
    root: Path | None = None,
    reporter: Reporter | None = None,
    processes: Processes = ALONE,
    streamed: bool | None = None,
) -> None:
    """Runs what has no record yet, and writes one record for each cell.

    Of several processes all train every stack, and the main one keeps its files. `streamed` says
    whether images stay on the host; None: where they are too large for the device.
    """
    reporter = reporter or Reporter()
    torch.set_num_threads(plan.threads)
    # Before the work: an edit while it goes on is not what the records are made by.
    sources = {
        cell.method: sources_of(cell.config.method, cell.config.family) for cell in experiment.cells
    }
    for stack in missing_stacks(plan, store):
        source = sources[stack.cells[0].method]
        _run_stack(experiment, stack, source, store, device, root, reporter, processes, streamed)


def _run_stack(
    experiment: Experiment,
    stack: Stack,
    source: str,
    store: Store,
    device: torch.device,
    root: Path | None,
    reporter: Reporter,
    processes: Processes,
    streamed: bool | None,
) -> None:
    config = stack.cells[0].config
    files = run_files(store, stack, source, processes.size)
    reporter.begin(stack, config.train.steps * config.benchmark.tasks)
    began = time.time()
    outcomes = families.protocol(config.family).run_stack(
        stack_run(stack),
        device,
        files,
        root,
        reporter.advance,
        processes=processes,
        streamed=streamed,
    )
    if not processes.is_main:
        return
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
                "processes": processes.size,
                "wall_seconds": time.time() - began,
            }
        )
    files.checkpoint.unlink(missing_ok=True)
    reporter.end(stack, outcomes)


def run_files(store: Store, stack: Stack, source: str, processes: int = 1) -> RunFiles:
    """Where a stack keeps checkpoint and log: its own for these cells, code and processes."""
    words = [source, *stack.keys, *([f"{processes} processes"] if processes > 1 else [])]
    name = hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
    folder = store.root / "records" / store.table / "runs" / name
    return RunFiles(folder / "checkpoint.pt", folder / "metrics.jsonl")
