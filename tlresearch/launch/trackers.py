"""Trackers: who is told of each run's losses as they come, and of its metrics at the end.

A tracker's run is a cell: it is called method-setting-seed, and its id comes from the cell's key,
so that a run that was stopped and resumed is one run. The x axis is the number of the step, counted
over all stages; losses are those of `metrics.jsonl`, as are throughput and memory, which a stack's
runs have in common.
"""

import importlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from tlresearch.configs import plain_config
from tlresearch.errors import UserError
from tlresearch.experiment import Cell
from tlresearch.launch.local import Reporter
from tlresearch.launch.plan import Stack
from tlresearch.results.store import safe_name

ID_LENGTH = 16
"""Digits of the key that a tracker's id has."""


WANDB_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")
"""What wandb takes as WANDB_MODE; the last two are its older names of offline and online."""


class Tracker(Protocol):
    """What is told of the stacks of one table, one after the other."""

    def begin(self, stack: Stack, table: str) -> None:
        """A stack begins, or goes on where it was stopped."""
        ...

    def log(self, entry: dict[str, Any]) -> None:
        """A line of the log: stage, step, seeds; lists of a value for each seed, and numbers."""
        ...

    def end(self, outcomes: Sequence[Any]) -> None:
        """The stack is done; an outcome (metrics, status, reason) for each seed."""
        ...

    def abandon(self) -> None:
        """The stack was stopped on its way; closes what is open, and does nothing after `end`."""
        ...


def check(names: Sequence[str]) -> None:
    """Refuses a tracker that is not installed, or that the environment sets up wrongly.

    Raises:
        UserError: it names the extra to install, or the modes that wandb knows.
    """
    for name in names:
        module = {"wandb": "wandb", "tensorboard": "torch.utils.tensorboard"}[name]
        try:
            found = importlib.import_module(module)
            getattr(found, {"wandb": "init", "tensorboard": "SummaryWriter"}[name])
        except (ImportError, AttributeError):
            raise UserError(
                f"--track {name}: {name} is not installed; install it with "
                "pip install 'tlresearch[track]', or leave --track out"
            ) from None
    mode = os.environ.get("WANDB_MODE", "offline")
    if "wandb" in names and mode not in WANDB_MODES:
        raise UserError(
            f"--track wandb: the environment has WANDB_MODE={mode!r}; expected one of "
            f"{', '.join(WANDB_MODES)}; without WANDB_MODE the runs are offline"
        )


@contextmanager
def following(
    names: Sequence[str], table: str, results: Path, reporter: Reporter
) -> Iterator[Reporter]:
    """A reporter that tells the trackers what it tells `reporter`.

    Args:
        names: `wandb`, `tensorboard`; one named twice counts once.
        table: name of the table.
        results: the results folder; trackers write to its folder `track`.
        reporter: who is told besides.
    """
    made = {"wandb": Wandb, "tensorboard": TensorBoard}
    trackers: list[Tracker] = [made[name](results / "track") for name in dict.fromkeys(names)]

    def begin(stack: Stack, steps: int) -> None:
        reporter.begin(stack, steps)
        for tracker in trackers:
            tracker.begin(stack, table)

    def log(entry: dict[str, Any]) -> None:
        reporter.log(entry)
        for tracker in trackers:
            tracker.log(entry)

    def end(stack: Stack, outcomes: list[Any]) -> None:
        reporter.end(stack, outcomes)
        for tracker in trackers:
            tracker.end(outcomes)

    try:
        yield replace(reporter, begin=begin, end=end, log=log)
    finally:
        for tracker in trackers:
            tracker.abandon()


def run_name(cell: Cell) -> str:
    """What a cell is called: method-setting-seed."""
    return "-".join(part for part in (cell.method, cell.setting, f"seed{cell.seed}") if part)


def position(entry: dict[str, Any], steps: int) -> int:
    """The step of a log line, counted over all stages.

    Args:
        entry: the line.
        steps: steps of a stage.
    """
    return entry["stage"] * steps + entry["step"]


def values_of(entry: dict[str, Any], place: int) -> dict[str, float]:
    """The named values of one seed of a log line; a number, of the whole stack, is every seed's."""
    named = {k: v for k, v in entry.items() if k not in ("stage", "step", "seeds")}
    return {name: v[place] if isinstance(v, list) else v for name, v in named.items()}


class Wandb:
    """Weights & Biases: run = method-setting-seed, group = table; offline unless WANDB_MODE is set.

    A resumed run has the id that it had. Lines that it logs again have the same `step` and, as
    resuming is exact, the same losses.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: list[Any] = []
        self.steps = 0

    def begin(self, stack: Stack, table: str) -> None:
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        self.steps = stack.cells[0].config.train.steps
        for cell, key in zip(stack.cells, stack.keys, strict=True):
            try:
                run = wandb.init(
                    project=os.environ.get("WANDB_PROJECT", "tlresearch"),
                    group=table,
                    name=run_name(cell),
                    id=key[:ID_LENGTH],
                    resume="allow",
                    reinit="create_new",  # the seeds of a stack are open at the same time
                    mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
                    dir=str(self.folder),
                    config=plain_config(cell.config) | {"seed": cell.seed, "key": key},
                    settings=wandb.Settings(silent=True, console="off"),
                )
            except wandb.Error as error:
                raise UserError(
                    f"--track wandb: the run could not be begun ({error}); WANDB_MODE=offline "
                    "needs neither an account nor a network"
                ) from error
            # Not wandb's own step: it would drop what a resumed run logs a second time.
            run.define_metric("step")
            run.define_metric("*", step_metric="step")
            self.runs.append(run)

    def log(self, entry: dict[str, Any]) -> None:
        step = position(entry, self.steps)
        for place, run in enumerate(self.runs):
            run.log(values_of(entry, place) | {"step": step, "stage": entry["stage"]})

    def end(self, outcomes: Sequence[Any]) -> None:
        for run, outcome in zip(self.runs, outcomes, strict=True):
            run.summary.update(outcome.metrics | {"status": outcome.status})
            run.finish(exit_code=0 if outcome.status == "finished" else 1)
        self.runs = []

    def abandon(self) -> None:
        for run in self.runs:
            run.finish(exit_code=1)
        self.runs = []


class TensorBoard:
    """TensorBoard: event files in FOLDER/tensorboard/TABLE/method-setting-seed-KEY.

    A writer is opened with a run's first line, and hides from that line's step on what earlier
    event files of the run say: nothing is shown twice after a resume.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tensorboard"
        self.stack: Stack | None = None
        self.table = ""
        self.writers: list[Any] = []

    def begin(self, stack: Stack, table: str) -> None:
        self.stack, self.table = stack, table

    def log(self, entry: dict[str, Any]) -> None:
        assert self.stack is not None
        step = position(entry, self.stack.cells[0].config.train.steps)
        self._open(step)
        for place, writer in enumerate(self.writers):
            for name, value in values_of(entry, place).items():
                writer.add_scalar(name, value, step)

    def end(self, outcomes: Sequence[Any]) -> None:
        assert self.stack is not None
        last = max(outcome.details.get("steps", 0) for outcome in outcomes)
        self._open(last)
        for writer, outcome in zip(self.writers, outcomes, strict=True):
            for name, value in outcome.metrics.items():
                writer.add_scalar(f"final/{name}", value, last)
        self.abandon()

    def abandon(self) -> None:
        for writer in self.writers:
            writer.close()
        self.writers = []

    def _open(self, step: int) -> None:
        """Opens the stack's writers, if they are not."""
        from torch.utils.tensorboard import SummaryWriter

        if self.writers or self.stack is None:
            return
        for cell, key in zip(self.stack.cells, self.stack.keys, strict=True):
            folder = self.folder / self.table / f"{safe_name(run_name(cell))}-{key[:8]}"
            writer = SummaryWriter(str(folder), purge_step=step)
            config = json.dumps(plain_config(cell.config), indent=1)
            writer.add_text("config", f"```\n{config}\n```", step)
            self.writers.append(writer)
