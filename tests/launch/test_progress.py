"""What the console says at the end of a stack."""

from types import SimpleNamespace
from typing import Any

from tlresearch.launch import progress
from tlresearch.training.runs import Outcome


def test_a_warning_is_said_on_one_line(capsys):
    """Beside a seed that failed and one of which there is nothing to say."""
    cells = [SimpleNamespace(seed=seed) for seed in (3, 4, 5)]
    stack: Any = SimpleNamespace(keys=("a", "b", "c"), cells=cells, label="self_training [0, 1]")
    warned = Outcome({}, {}, "finished", None, {"warning": "round 2 of 3 " + "x" * 90})
    failed = Outcome({}, {}, "failed", "the loss was nan")
    with progress.reporter([stack]) as reporter:
        reporter.end(stack, [warned, failed, Outcome({}, {}, "finished", None)])
    lines = capsys.readouterr().err.splitlines()
    assert f"self_training [0, 1], seed 3: round 2 of 3 {'x' * 90}" in lines
    assert len([line for line in lines if "seed" in line]) == 2
