"""What a person sees of a run: the plan before it, bars during it; nothing in a pipe."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tlresearch.experiment import Experiment
from tlresearch.launch.local import Reporter
from tlresearch.launch.plan import Plan, Stack


def plan_text(
    experiment: Experiment, plan: Plan, waiting: list[Stack], again: int = 0, why: str | None = None
) -> str:
    """How many runs there are, how many are done, and how the rest will run.

    Args:
        experiment: the table.
        plan: its stacks.
        waiting: those that are to be run.
        again: how many finished runs are made again.
        why: what `--rerun` was given.
    """
    name = experiment.outputs or experiment.name
    total = sum(len(stack.keys) for stack in plan.stacks)
    left = sum(len(stack.keys) for stack in waiting)
    largest = max((len(stack.keys) for stack in waiting), default=0)
    if not waiting:
        return f"{name}: {total} runs, all done."
    lines = [
        f"{name}: {total} runs, {total - left} done, {left} to do, "
        f"in {len(waiting)} stacks of up to {largest} seeds, "
        f"on {plan.device} with {plan.threads} threads"
        + (f" in each of {plan.processes} processes." if plan.processes > 1 else ".")
    ]
    if why and again:
        lines.append(
            f"  {again} finished runs are made again {RERUN_REASONS[why]}; stacks run whole"
        )
    for label in experiment.method_labels:
        own = [s for s in plan.stacks if s.cells[0].method == label]
        runs = sum(len(s.keys) for s in own)
        done = runs - sum(len(s.keys) for s in waiting if s.cells[0].method == label)
        lines.append(f"  {label}: {done} of {runs} runs done")
    return "\n".join(lines)


RERUN_REASONS = {
    "stale": "(stale: made by other code)",
    "failed": "(failed: their loss was not finite)",
    "all": "(all of them)",
}


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

        def wait(stack: Stack, holder: str) -> None:
            console.print(
                f"tlresearch: {holder} works on {stack.label}; waiting for it",
                highlight=False,
                soft_wrap=True,
                markup=False,
            )

        yield Reporter(begin, advance, end, wait=wait)
