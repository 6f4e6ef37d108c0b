"""Works a plan off in this process, stack by stack."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tlresearch import families, own
from tlresearch.experiment import Config, Experiment, plain_config
from tlresearch.launch.plan import Plan, Stack, host, stack_run, versions
from tlresearch.results.provenance import source_hash
from tlresearch.results.store import Store
<<<<<<< HEAD
from tlresearch.results.weights import keep
=======
from tlresearch.training.distributed import ALONE, Processes
>>>>>>> ddp
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
    log: Callable[[dict[str, Any]], None] = lambda entry: None
    """A line was written to the log of the stack that runs; see `RunObserver`."""


def sources_of(config: Config) -> str:
    """Hash of the code that the runs of a configuration use, own files included."""
    kinds = type(config.method), type(config.backbone)
    modules = [families.FAMILIES[config.family], *(kind.__module__ for kind in kinds)]
    return source_hash(modules, own.sources(config))


def missing_stacks(plan: Plan, store: Store) -> list[Stack]:
    """The stacks with a cell that has no record yet; of a debug run, all."""
    done = set() if plan.debug else {record["key"] for record in store.read()}
    return [stack for stack in plan.stacks if not done.issuperset(stack.keys)]


def run(
    experiment: Experiment,
    plan: Plan,
    store: Store,
    device: torch.device,
    root: Path | None = None,
    reporter: Reporter | None = None,
<<<<<<< HEAD
    weights: bool = True,
) -> None:
    """Runs what has no record yet; writes one record for each cell, and its weights if wanted."""
=======
    processes: Processes = ALONE,
) -> None:
    """Runs what has no record yet, and writes one record for each cell.

    Of several processes all train every stack, and the main one keeps its files.
    """
>>>>>>> ddp
    reporter = reporter or Reporter()
    torch.set_num_threads(plan.threads)
    # Before the work: an edit while it goes on is not what the records are made by.
    sources = {
        stack.keys: sources_of(stack.cells[0].config) for stack in missing_stacks(plan, store)
    }
    for stack in missing_stacks(plan, store):
<<<<<<< HEAD
        source = sources[stack.keys]
        _run_stack(experiment, stack, source, store, device, root, reporter, weights)
=======
        source = sources[stack.cells[0].method]
        _run_stack(experiment, stack, source, store, device, root, reporter, processes)
>>>>>>> ddp


def _run_stack(
    experiment: Experiment,
    stack: Stack,
    source: str,
    store: Store,
    device: torch.device,
    root: Path | None,
    reporter: Reporter,
<<<<<<< HEAD
    weights: bool,
) -> None:
    config = stack.cells[0].config
    files = run_files(store, stack, source)
    if experiment.header.debug:
        files.checkpoint.unlink(missing_ok=True)
    reporter.begin(stack, config.train.steps * config.benchmark.tasks)
    began = time.time()
    outcomes = families.protocol(config.family).run_stack(
        stack_run(stack), device, files, root, reporter.advance, track=reporter.log
=======
    processes: Processes,
) -> None:
    config = stack.cells[0].config
    files = run_files(store, stack, source, processes.size)
    reporter.begin(stack, config.train.steps * config.benchmark.tasks)
    began = time.time()
    outcomes = families.protocol(config.family).run_stack(
        stack_run(stack), device, files, root, reporter.advance, processes=processes
>>>>>>> ddp
    )
    if not processes.is_main:
        return
    for cell, key, outcome in zip(stack.cells, stack.keys, outcomes, strict=True):
        # Before the record, so that where a record is its weights are too.
        kept = outcome.weights if weights else {}
        keep(store, cell.method, cell.setting, cell.seed, key, plain_config(cell.config), kept)
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
                "versions": versions(config),
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
