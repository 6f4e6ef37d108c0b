"""Loops that take turns in one process, and what their times come to: for `benchmark_*.py`."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

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


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """The options that every measurement has; `text` begins with what it is."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute, less certain")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count the time in which this process had a core: for a CPU that others use, too",
    )
    return parser


def options_of(
    parser: argparse.ArgumentParser,
    asked: argparse.Namespace,
    quick: tuple[float, int] = (0.1, 5),
    long: tuple[float, int] = (0.4, 25),
) -> Options:
    """Seconds a round and rounds are those of `quick` or `long`; says where it is measured."""
    device = torch.device(asked.device)
    if asked.processor_time and device.type != "cpu":
        parser.error("--processor-time is for --device cpu")
    clock = time.process_time if asked.processor_time else time.perf_counter
    print(f"torch {torch.__version__}, {device}, {os.cpu_count()} cores, one thread each")
    return Options(asked.quick, device, *(quick if asked.quick else long), clock)


def print_ratios(results: dict[str, float]) -> None:
    """The last line of a measurement."""
    print(json.dumps({name: round(value, 4) for name, value in results.items()}))


def repeated(step_of: Callable[[int], None]) -> Loop:
    """A function that takes n more steps, of which each is told its number."""
    done = 0

    def steps(count: int) -> None:
        nonlocal done
        for step in range(done, done + count):
            step_of(step)
        done += count

    return steps


def imported(name: str) -> Any:
    """A peer's package, or None after a sentence that says that it is left out."""
    try:
        return __import__(name)
    except ImportError as error:
        print(f"left out: {name}, which cannot be imported ({error})")
        return None


def copied(network: nn.Module, source: nn.Module) -> nn.Module:
    """The network with the parameters of another one, which are in the same order."""
    with torch.no_grad():
        for mine, its in zip(network.parameters(), source.parameters(), strict=True):
            mine.copy_(its)
    return network.to(next(source.parameters()).device)


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
