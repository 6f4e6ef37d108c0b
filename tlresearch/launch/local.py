"""Works a plan off in this process, stack by stack."""

import hashlib
import time
from bdb import BdbQuit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tlresearch import families, own
from tlresearch.configs import plain_config
from tlresearch.errors import UserError
from tlresearch.experiment import Experiment
from tlresearch.files import FULL, claim, remove_leftovers
from tlresearch.launch.plan import Plan, Stack, host, stack_run, versions
from tlresearch.launch.waiting import Outdated, is_missing, missing_stacks, own_files, sources_of
from tlresearch.results.store import Store
from tlresearch.results.weights import keep
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
    log: Callable[[dict[str, Any]], None] = lambda entry: None
    """A line was written to the log of the stack that runs; see `RunObserver`."""
    wait: Callable[[Stack, str], None] = lambda stack, holder: None
    """Another process, which is named, works on a stack that is waited for."""


@dataclass(frozen=True)
class Work:
    """How the runs of a table are made."""

    experiment: Experiment
    plan: Plan
    store: Store
    """Where the records go."""
    device: torch.device
    root: Path | None = None
    """Data root; None: where the environment says."""
    reporter: Reporter = field(default_factory=Reporter)
    """Told how far the work is."""
    weights: bool = True
    """Whether final weights are kept beside the records."""
    processes: Processes = ALONE
    """All train every stack, and the main one keeps its files."""
    streamed: bool | None = None
    """Whether images stay on the host; None: where they are too large for the device."""
    began: float = field(default_factory=time.time)
    """When, in seconds since the epoch; a rerun makes shared trainings of before anew."""


def run(work: Work, again: Outdated | None = None) -> None:
    """Runs what has no record yet; writes one record for each cell, and its weights if wanted.

    Stacks that somebody else has claimed are left to them and waited for at the end; what they
    have not done by then is run here.

    Args:
        work: what is run, and how.
        again: records that are made again, by `outdated`.

    Raises:
        UserError: something cannot be written; what is done stays done.
        KeyboardInterrupt: with notes that say what is kept of the stack under way.
    """
    again = again or {}
    plan, store, processes = work.plan, work.store, work.processes
    torch.set_num_threads(plan.threads)
    # Before the work: an edit while it goes on is not what the records are made by.
    sources = {stack.keys: sources_of(stack.cells[0].config) for stack in plan.stacks}
    try:
        for patient in (True,) if plan.debug else (False, True):
            for stack in _agreed(plan.stacks, missing_stacks(plan, store, again), processes):
                _run_claimed(work, stack, sources[stack.keys], again, patient)
    except KeyboardInterrupt as stop:
        total = sum(len(stack.keys) for stack in plan.stacks)
        left = sum(len(stack.keys) for stack in missing_stacks(plan, store, again))
        stop.add_note(f"{total - left} of {total} runs are done")
        raise


def _agreed(stacks: Sequence[Stack], missing: list[Stack], processes: Processes) -> list[Stack]:
    """The stacks that the main process misses; to read records is quicker for one than another."""
    names = {stack.keys for stack in missing}
    mask = processes.from_main(torch.tensor([stack.keys in names for stack in stacks]))
    return [stack for stack, wanted in zip(stacks, mask.tolist(), strict=True) if wanted]


def _run_claimed(work: Work, stack: Stack, source: str, again: Outdated, patient: bool) -> None:
    """Runs a stack unless another command works on it (`patient`: unless it has done so)."""
    processes, reporter = work.processes, work.reporter
    files = run_files(work.store, stack, source, processes.size)
    if work.plan.debug:
        files = replace(files, trained=None)
    elif any(key in again for key in stack.keys):
        files = replace(files, trained_since=work.began)
    wait = partial(reporter.wait, stack) if patient else None
    with claim(files.lock, wait) if processes.is_main else nullcontext(True) as claimed:
        wanted = work.plan.debug or is_missing(stack, work.store, again)
        if processes.from_main(torch.tensor(bool(claimed and wanted))):
            _run_stack(work, stack, source, files)


def _run_stack(work: Work, stack: Stack, source: str, files: RunFiles) -> None:
    experiment, store = work.experiment, work.store
    reporter, processes = work.reporter, work.processes
    config = stack.cells[0].config
    if experiment.header.debug:
        files.checkpoint.unlink(missing_ok=True)
    reporter.begin(stack, families.protocol(config.family).total_steps(config))
    began = time.time()
    try:
        with _blaming(work, stack):
            outcomes = families.protocol(config.family).run_stack(
                stack_run(stack),
                work.device,
                files,
                work.root,
                reporter.advance,
                track=reporter.log,
                processes=processes,
                streamed=work.streamed,
            )
    except KeyboardInterrupt as stop:
        stop.add_note(_kept(stack, files))
        raise
    if not processes.is_main:
        return
    for cell, key, outcome in zip(stack.cells, stack.keys, outcomes, strict=True):
        # Before the record, so that where a record is its weights are too.
        kept = outcome.weights if work.weights else {}
        keep(store, cell.method, cell.setting, cell.seed, key, plain_config(cell.config), kept)
        store.write(
            {
                "experiment": experiment.name,
                "family": config.family,
                "method": cell.method,
                "setting": cell.setting,
                "seed": cell.seed,
                "key": key,
                "source": outcome.source or source,
                "status": outcome.status,
                "reason": outcome.reason,
                "checkpoint": families.measured_checkpoint(config),
                "metrics": outcome.metrics,
                "arrays": outcome.arrays,
                "config": plain_config(cell.config),
                "details": outcome.details,
                "stack": len(stack.cells),
                "versions": versions(config),
                "device": work.device.type,
                "host": host(),
                "threads": torch.get_num_threads(),
                "processes": processes.size,
                "wall_seconds": time.time() - began,
            }
        )
    files.checkpoint.unlink(missing_ok=True)
    reporter.end(stack, outcomes)


@contextmanager
def _blaming(work: Work, stack: Stack) -> Iterator[None]:
    """What own code raises as one sentence; of our own code and in a debug run the traceback."""
    try:
        yield
    except (UserError, BdbQuit):
        raise
    except Exception as error:
        ours = work.plan.debug or not own_files(stack.cells[0].config)
        # A reader of the output who left, or a full disk, is the command's affair.
        if ours or isinstance(error, BrokenPipeError) or getattr(error, "errno", None) in FULL:
            raise
        raise UserError(
            f"{work.experiment.path}: {stack.label} cannot be run: {own.told(error)}; mend the "
            "code, or add 'debug=true' to the command to see the whole traceback"
        ) from error


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
        files = run_files(store, stack, sources_of(stack.cells[0].config), plan.processes)
        if stack.keys not in missing and (files.checkpoint.exists() or files.lock.exists()):
            with claim(files.lock) as ours:
                if ours:
                    files.checkpoint.unlink(missing_ok=True)


def run_files(store: Store, stack: Stack, source: str, processes: int = 1) -> RunFiles:
    """Where a stack keeps checkpoint and log: its own for these cells, code and processes."""
    words = [source, *stack.keys, *([f"{processes} processes"] if processes > 1 else [])]
    name = hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
    folder = store.root / "records" / store.table / "runs" / name
    trained = store.root / "records" / "trained"
    return RunFiles(folder / "checkpoint.pt", folder / "metrics.jsonl", trained)
