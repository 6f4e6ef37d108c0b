"""Loops that take turns in one process, and what their times come to: for `benchmark_*.py`."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Loop = Callable[[int], None]
"""Takes so many more steps."""


@dataclass(frozen=True)
class Options:
    """How long, where and by which clock it is measured."""

    quick: bool
    device: torch.device
    seconds: float
    """What one loop takes in one round, about."""
    rounds: int
    clock: Callable[[], float] = time.perf_counter
    """In seconds; `time.process_time` leaves out what other processes take of the machine."""


def alternate(loops: dict[str, Loop], options: Options) -> dict[str, list[float]]:
    """Seconds a step of each loop in each round; the loops take turns."""

    def timed(loop: Loop, count: int) -> float:
        began = options.clock()
        loop(count)
        if options.device.type == "cuda":
            torch.cuda.synchronize()
        return (options.clock() - began) / count

    counts = {}
    for name, loop in loops.items():
        loop(3)
        counts[name] = max(2, round(options.seconds / min(timed(loop, 2), timed(loop, 2))))
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(options.rounds):
        for name, loop in loops.items():
            times[name].append(timed(loop, counts[name]))
    return times


def report(title: str, times: dict[str, list[float]], seeds: dict[str, int]) -> None:
    """Median and range of each loop."""
    print(f"\n{title}")
    print(f"  {'loop':<36}{'seeds':>6}{'ms/step':>11}{'min':>10}{'max':>10}{'ms per seed':>13}")
    for name, values in times.items():
        middle, low, high = (1e3 * f(values) for f in (statistics.median, min, max))
        count = seeds.get(name, 1)
        print(f"  {name:<36}{count:>6}{middle:>11.3f}{low:>10.3f}{high:>10.3f}", end="")
        print(f"{middle / count:>13.3f}", flush=True)


def faster(times: dict[str, list[float]], mine: str, peer: str, seeds: int = 1) -> float:
    """Median over the rounds of the peer's time over ours per seed."""
    pairs = zip(times[mine], times[peer], strict=True)
    return statistics.median(theirs * seeds / own for own, theirs in pairs)


def best(times: dict[str, list[float]], names: list[str]) -> str:
    """The loop of those whose median is least."""
    return min(names, key=lambda name: statistics.median(times[name]))
