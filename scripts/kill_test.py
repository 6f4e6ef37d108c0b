"""Kills a run with SIGKILL at random moments, starts it again, and compares the records.

    python scripts/kill_test.py --kills 30 --processes 2

A table of 8 runs in 4 stacks is made once without interruption. Then it is made again, killed on
the way, over and over in new folders until there were as many kills as asked for. Each time the
records must equal those of the uninterrupted run, times and digests aside, and nothing may be left
over. Every attempt is a process of its own, forked from this one, which has imported everything,
so that few kills fall on imports; it writes a checkpoint every 20 steps. With `--processes 2` two
attempts work on the table at once, and each is killed at a moment of its own.
"""

import argparse
import functools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import matplotlib.figure  # noqa: F401, what a run imports late, here before the forks
import torch._dynamo  # noqa: F401, likewise
from safetensors.torch import load_file

from tlresearch import cli
from tlresearch.continual import protocol
from tlresearch.data import catalogue
from tlresearch.launch import local, outputs, progress  # noqa: F401, likewise

FILE = """
family: continual
benchmark: {dataset: optdigits, tasks: 2, scenario: task}
backbone: {name: mlp, hidden: [16], dropout: 0.2}
methods: {naive: {name: naive}, ewc: {name: ewc, strength: 1e3}}
train: {steps: STEPS, batch_size: 16, stack: 2}
settings: {fast: {train.lr: 1e-2}, slow: {train.lr: 1e-4}}
seeds: [0, 1]
"""
LASTING = {".safetensors", ".json", ".jsonl", ".md", ".csv", ".tex", ".svg"}
"""Kinds of files that a finished table consists of."""


def main() -> int:
    """Makes the tables and prints a summary; 0 if all records are equal and nothing is left."""
    parser = argparse.ArgumentParser(description="Kills a run at random moments.")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--processes", type=int, default=1, help="at once on the table")
    parser.add_argument("--steps", type=int, default=200, help="of each task")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    catalogue.load("optdigits")  # kept in memory
    kills, rounds, problems = Counter[str](), 0, list[str]()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table.yaml"
        file.write_text(FILE.replace("STEPS", str(options.steps)))
        began = time.monotonic()
        finish(*start(file, Path(folder) / "whole"))
        span = time.monotonic() - began
        expected = records_in(Path(folder) / "whole")
        assert sum(name.endswith(".json") for name in expected) == 8, "the first run is not whole"
        while kills.total() < options.kills:
            rounds += 1
            results = Path(folder) / f"killed{rounds}"
            left = options.kills - kills.total()
            longest = span / min(left, 5) * options.processes
            kills += make_with_kills(file, results, moments, longest, left, options.processes)
            problems += differences(expected, records_in(results)) + leftovers(results)
    runs = len(expected) // 2  # each has a record and weights
    print(f"{kills.total()} kills over {rounds} tables of {runs} runs; {span:.1f} s each")
    print("".join(f"  {number} {where}\n" for where, number in kills.most_common()), end="")
    print("\n".join(problems) or "all records equal those of the uninterrupted run")
    return 1 if problems else 0


def make_with_kills(
    file: Path, results: Path, moments: random.Random, longest: float, most: int, processes: int
) -> Counter[str]:
    """Starts the command until the table is done; kills attempts, and says where.

    Args:
        file: the experiment file.
        results: where the table is made.
        moments: draws when an attempt is killed.
        longest: time in seconds after which an attempt is killed at the latest.
        most: so many are killed at most.
        processes: so many attempts are made at once.
    """
    kills = Counter[str]()
    while True:
        attempts = [start(file, results) for _ in range(processes)]
        for process, reader in attempts[: most - kills.total()]:
            if moments.random() < 0.9:  # the others may be killed before their work begins
                os.read(reader, 1)
            time.sleep(moments.uniform(0, longest / processes))
            os.kill(process, signal.SIGKILL)
        ended = [finish(process, reader) for process, reader in attempts]
        where = place_of(results) if processes == 1 else "of processes at work together"
        kills[where] += ended.count(False)
        if any(ended):
            return kills


def start(file: Path, results: Path) -> tuple[int, int]:
    """Forks the command: its process, and a pipe that can be read once it begins to work."""
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        return process, reader
    code = 1
    try:
        os.close(reader)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        run, run_stack = local.run, protocol.run_stack

        def announced(*args: Any, **kwargs: Any) -> None:
            os.write(writer, b"!")
            run(*args, **kwargs)

        local.run = announced
        protocol.run_stack = functools.partial(run_stack, checkpoint_seconds=0.0)
        code = cli.main(["run", str(file), "--results", str(results), "--threads", "1"])
    finally:
        os._exit(code)


def finish(process: int, reader: int) -> bool:
    """Whether the command came to its end; False if it was killed."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    os.close(reader)
    if code not in (0, -signal.SIGKILL):
        sys.exit(f"the command ended with exit code {code}")
    return code == 0


def place_of(results: Path) -> str:
    """Where a kill fell, by what it left behind."""
    names = [path.name for path in results.rglob("*") if path.is_file()]
    temporary = [name for name in names if name.endswith(".tmp")]
    if any("checkpoint" in name for name in temporary):
        return "while a checkpoint was written"
    if temporary:
        return "while a record, the plan or the table was written"
    if "checkpoint.pt" in names:
        done = len(list(results.rglob("seed*.json")))
        return "between the records of a stack" if done % 2 else "with a checkpoint to go on from"
    return "in a stack without a checkpoint" if "lock" in names else "before or between stacks"


def records_in(results: Path) -> dict[str, Any]:
    """The records by file name, without what differs from run to run; and the weights."""
    found: dict[str, Any] = {
        str(path.relative_to(results)): {
            k: sha256(w.numpy().tobytes()).hexdigest() for k, w in load_file(path).items()
        }
        for path in sorted(results.rglob("seed*.safetensors"))
    }
    for path in sorted(results.rglob("seed*.json")):
        record = json.loads(path.read_text())
        for name in ("digest", "wall_seconds"):
            del record[name]
        for name in ("stack_seconds", "peak_memory_bytes"):
            del record["details"][name]
        found[str(path.relative_to(results))] = record
    return found


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """A line for each field of a record that is not as in the uninterrupted run."""
    lines = []
    for name in sorted(expected.keys() | found.keys()):
        ours, theirs = found.get(name, {}), expected.get(name, {})
        lines += [
            f"{name}: {key} is {ours.get(key)}, and {theirs.get(key)} without the kills"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]
    return lines


def leftovers(results: Path) -> list[str]:
    """A line for each file that is none of a finished table."""
    paths = (path for path in results.rglob("*") if path.is_file())
    return [f"{path} is left over" for path in paths if path.suffix not in LASTING]


if __name__ == "__main__":
    sys.exit(main())
