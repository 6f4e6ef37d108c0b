"""Each mistake that public code is known for is made in a copy, and a named test turns red.

The table is `tests/mistakes/*.yaml`, one file a family. An entry, by the mistake's name:

    file: the source file, under tlresearch/
    edits: {old text: new text, …}; each old text occurs in the file exactly once
    test: the node id, under tests/, of the test that must fail (its parameters too)
    raises: the exception that it fails by, where that is no assertion

A test is run by `tests/mistakes/runner.py`: a process that has imported torch and forks.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tlresearch import yamlfile

ROOT = Path(__file__).resolve().parents[1]
TABLES = sorted((ROOT / "tests/mistakes").glob("*.yaml"))
LISTED = [entry for path in TABLES for entry in yamlfile.read(path).items()]
MISTAKES: dict[str, dict[str, Any]] = dict(LISTED)


class Copy:
    """A copy of the project, and a process that runs tests in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("tlresearch", "tests"):
            shutil.copytree(ROOT / name, root / name)
        shutil.copy(ROOT / "pyproject.toml", root)
        self.process = subprocess.Popen(
            [sys.executable, "tests/mistakes/runner.py"],
            cwd=root,
            env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def outcomes(self, *tests: str) -> dict[str, Any]:
        """What became of tests: see the runner."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([f"tests/{test}" for test in tests]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    @contextmanager
    def changed(self, file: str, edits: dict[str, str]) -> Iterator[None]:
        """Within: the texts of a file of tlresearch replaced."""
        path = self.root / "tlresearch" / file
        times, sound = path.stat(), path.read_text(encoding="utf-8")
        text = sound
        for old, new in edits.items():
            assert sound.count(old) == 1, (
                f"the edit no longer fits: {old!r} occurs {sound.count(old)} times in "
                f"tlresearch/{file}; renew the entry in tests/mistakes/"
            )
            text = text.replace(old, new)
        try:
            path.write_text(text, encoding="utf-8")
            # Bytecode is found by a source's time and size: no mistake may have those of another.
            os.utime(path, (times.st_atime, times.st_mtime - 1e6))
            yield
        finally:
            path.write_text(sound, encoding="utf-8")
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """One for all the tests of this file that a process runs."""
    one = Copy(tmp_path_factory.mktemp("mistakes") / "copy")
    try:
        yield one
    finally:
        one.process.kill()
        one.process.communicate()


def test_each_mistake_has_a_name_of_its_own():
    """Else one of two would not be made."""
    assert len(LISTED) == len(MISTAKES) >= 20


def test_without_a_mistake_every_named_test_passes(copy: Copy):
    """Else a red test would say nothing of the mistake."""
    tests = sorted({mistake["test"] for mistake in MISTAKES.values()})
    found = copy.outcomes(*tests)
    assert found["failed"] == {} and found["broken"] == []
    assert sorted(found["passed"]) == [f"tests/{test}" for test in tests]


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_caught(name: str, copy: Copy):
    """The named test fails, by an assertion (or the exception that the entry names)."""
    mistake = MISTAKES[name]
    test = f"tests/{mistake['test']}"
    with copy.changed(mistake["file"], mistake["edits"]):
        found = copy.outcomes(mistake["test"])
    assert not found["broken"], f"{test} did not run with the mistake {name!r}: {found['broken']}"
    assert test in found["failed"], f"the mistake {name!r} is no longer caught by {test}"
    expected = {mistake["raises"]} if "raises" in mistake else {"AssertionError", "Failed"}
    by, message = found["failed"][test]
    assert by in expected, (
        f"with the mistake {name!r}, {test} fails by {by} ({message}) and not by "
        f"{' or '.join(sorted(expected))}: renew the edit or the test"
    )
