"""The command on a tiny table, in this process."""

import json
from pathlib import Path
from typing import Any

import pytest

from tlresearch import cli
from tlresearch.continual import protocol
from tlresearch.launch import outputs
from tlresearch.training import device

BASE = """
family: continual
benchmark: {dataset: optdigits, tasks: 2}
backbone: {name: mlp, hidden: [8]}
methods: {naive: {name: naive}, ewc: {name: ewc}}
train: {steps: 40, batch_size: 8}
seeds: [0, 1]
"""


class Table:
    """The command in this process, on one experiment file and one results folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file, self.results, self.capsys = folder / "tiny.yaml", folder / "results", capsys
        self.file.write_text(BASE)

    def run(self, *words: str) -> tuple[int, str, str]:
        code = cli.main(["run", str(self.file), *words, "--results", str(self.results)])
        out = self.capsys.readouterr()
        return code, out.out, out.err

    def records(self) -> dict[str, dict[str, Any]]:
        """By file name, without times."""
        found = {}
        for path in self.results.rglob("seed*.json"):
            record = json.loads(path.read_text())
            del record["digest"], record["wall_seconds"]
            del record["details"]["stack_seconds"], record["details"]["peak_memory_bytes"]
            found[f"{path.parent.name}/{path.name}"] = record
        return found

    def written(self) -> dict[str, int]:
        """When each record was written."""
        return {p.name: p.stat().st_mtime_ns for p in self.results.rglob("seed*.json")}

    def half_written(self) -> list[Path]:
        kinds = (".tmp", ".lock", "lock")
        return [p for p in self.results.rglob("*") if p.name.endswith(kinds)]


@pytest.fixture
def table(tmp_path: Path, capsys, monkeypatch) -> Table:
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    monkeypatch.setattr(outputs, "_write_figures", lambda *_: [])  # they take most of the time
    return Table(tmp_path, capsys)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Method and seeds of every stack that is run, as it begins; checkpoints every 20 steps."""
    stacks, original = [], protocol.run_stack

    def counted(run, *args, **kwargs):
        stacks.append(f"{type(run.method).__name__} {run.seeds}")
        return original(run, *args, checkpoint_seconds=0.0, **kwargs)

    monkeypatch.setattr(protocol, "run_stack", counted)
    return stacks
