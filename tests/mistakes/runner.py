"""Runs tests in a copy of the project, one forked child for each request; see test_known_mistakes.

Importing torch takes seconds, so it is imported once, here, and with it all that the tests use but
tlresearch itself: that each child imports from the copy as it finds it, mistake and all.

Reads lines from standard input, each a JSON list of node ids, and answers each with a line of JSON:
`{"passed": [node ids], "failed": {node id: [exception, message]}, "broken": [what else is wrong]}`.
"""

import gc
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

PRELOADED = ("torch", "torch.func", "torch.testing", "torch._dynamo", "numpy", "scipy.stats",
             "scipy.special", "sklearn.datasets", "yaml", "hypothesis", "beartype", "jaxtyping",
             "rich.console")  # fmt: skip
OPTIONS = ["-q", "-c", "pyproject.toml", "--rootdir", ".", "-p", "no:cacheprovider",
           "-p", "no:unraisableexception"]  # fmt: skip
"""Unraisable exceptions are looked for by collecting garbage, which takes longer than the test."""
SECONDS = 120
"""Longest that a child may take: a mistake may never end."""


class Outcomes:
    """A plugin that keeps what became of each test."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.failed: dict[str, tuple[str, str]] = {}
        self.broken: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        """A failure counts in the test itself; in its setup or teardown something is broken."""
        report = yield
        if report.failed and call.when == "call" and call.excinfo is not None:
            message = str(call.excinfo.value).strip().splitlines() or [""]
            self.failed[item.nodeid] = (call.excinfo.typename, message[0])
        elif report.failed:
            self.broken.append(f"{item.nodeid}, {call.when}: {report.longreprtext[-500:]}")
        elif report.skipped:
            self.broken.append(f"{item.nodeid} was skipped")
        elif call.when == "call":
            self.passed.append(item.nodeid)
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Nothing may go wrong before the first test."""
        if report.failed:
            self.broken.append(f"collecting {report.nodeid}: {report.longreprtext[-500:]}")


def outcomes_of(tests: list[str]) -> dict[str, Any]:
    """Runs tests in this process, which has not imported tlresearch."""
    own = Outcomes()
    code = pytest.main([*OPTIONS, *tests], plugins=[own])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        own.broken.append(f"pytest ended with {code!r}")
    import tlresearch

    found = Path(str(tlresearch.__file__)).resolve().parents[1]
    if found != Path.cwd():
        own.broken.append(f"tlresearch was imported from {found}")
    return vars(own)


def in_a_child(tests: list[str]) -> dict[str, Any]:
    """The same in a fork, its output thrown away."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        sys.dont_write_bytecode = True  # the copy's bytecode must not outlive a mistake
        with os.fdopen(writer, "w") as answer:
            json.dump(outcomes_of(tests), answer)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"broken": [f"the process ended with status {status}"]}


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    # conftest.py asks for shape checks, whose making would take most of a child's time.
    jaxtyping.install_import_hook = lambda *args: None  # type: ignore[assignment]
    gc.freeze()  # what is here now is no child's garbage
    for line in sys.stdin:
        print(json.dumps({"passed": [], "failed": {}} | in_a_child(json.loads(line))), flush=True)
