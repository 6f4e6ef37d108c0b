"""Processes that are killed with SIGKILL: the same command finishes the table, bit for bit."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "processes"), [(6, 1), (2, 2)])
def test_killed_at_random_moments_the_records_are_those_of_an_uninterrupted_run(kills, processes):
    """Two processes work on one table at once in the second case; no file is left over."""
    words = ["--kills", str(kills), "--processes", str(processes), "--steps", "40"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "kill_test.py"), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(rf"{kills} kills over \d+ tables of 8 runs", done.stdout)
    assert done.stdout.endswith("all records equal those of the uninterrupted run\n")
    assert "Traceback" not in done.stderr
