"""How long does importing `tlresearch` take beyond torch's own import?

Each import happens in a fresh process, the modules in turn, so that a busy moment of the machine
meets all of them. A process times `import torch` and then, beyond it, the module. Prints a table
and, as its last line, one JSON object of seconds:

- `torch`: `import torch` alone (median).
- `MODULE.beyond`: what importing the module takes after it (median).

Run: python scripts/benchmark_import.py [--quick] [--repeats N]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = (
    "tlresearch",
    "tlresearch.functional.fisher",
    "tlresearch.functional.penalties",
    "tlresearch.backbones",
    "tlresearch.cli",
)

TIMED = """
import importlib, sys, time
start = time.perf_counter()
import torch
middle = time.perf_counter()
importlib.import_module(sys.argv[1])
print(middle - start, time.perf_counter() - middle)
"""


def seconds(module: str) -> tuple[float, float]:
    """`import torch`, and `import module` after it, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", TIMED, module],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    torch, beyond = map(float, done.stdout.split())
    return torch, beyond


def main() -> None:
    """Times each module `--repeats` times, in turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="processes a module (default: 7)")
    parser.add_argument("--quick", action="store_true", help="two processes a module")
    options = parser.parse_args()
    repeats = 2 if options.quick else max(1, options.repeats)
    seconds(MODULES[0])  # compiles bytecode and fills the file cache
    torch: list[float] = []
    beyond: dict[str, list[float]] = {module: [] for module in MODULES}
    for _ in range(repeats):
        for module in MODULES:
            first, second = seconds(module)
            torch.append(first)
            beyond[module].append(second)
    medians = {f"{module}.beyond": statistics.median(beyond[module]) for module in MODULES}
    result = {"torch": statistics.median(torch)} | medians
    for module in MODULES:
        own = beyond[module]
        print(f"{module:<34}{statistics.median(own):8.3f} s ({min(own):.3f} to {max(own):.3f})")
    print(
        f"{'torch, before each':<34}{result['torch']:8.3f} s ({min(torch):.3f} to {max(torch):.3f})"
    )
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
