"""What goes wrong on the way, through the command: it ends cleanly, and goes on afterwards."""

import errno
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tlresearch import cli
from tlresearch.continual import protocol
from tlresearch.training import checkpoint

SMALL = 3_000
"""Bytes that hold the plan and the log of these runs, but no checkpoint and no table."""


def fail_after(saves: int, fault: Callable[[], None]) -> Callable[..., None]:
    """`checkpoint.save`, and `fault` once it was called so many times."""
    original, count = checkpoint.save, [0]

    def save(*args: Any) -> None:
        original(*args)
        count[0] += 1
        if count[0] == saves:
            fault()

    return save


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "TERM"]
)
def test_a_stopped_command_says_what_is_kept_and_how_to_go_on(
    table, ran, monkeypatch, number, expected
):
    """In the second stack, after its first checkpoint; then it goes on from there."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", fail_after(7, partial(os.kill, os.getpid(), number)))
        code, _, err = table.run()
    assert code == expected and len(table.records()) == 2
    said = "stopped; ewc seed 0-1 goes on from its checkpoint, 0 s old; 2 of 4 runs are done; "
    assert f"tlresearch: {said}go on with: " in err and err.count("\n") <= 2
    assert err.strip().endswith(f" run {table.file} --results {table.results}")
    assert table.half_written() == []
    resumed = []
    monkeypatch.setattr(checkpoint, "load", spy(checkpoint.load, resumed))
    assert table.run()[0] == 0
    assert ran == ["Naive [0, 1]", "EWC [0, 1]", "EWC [0, 1]"] and len(resumed) == 1


def spy(function: Callable[..., Any], results: list[Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        results.append(function(*args, **kwargs))
        return results[-1]

    return call


def test_the_handler_of_sigterm_is_given_back(table):
    before = signal.getsignal(signal.SIGTERM)
    table.run("--dry-run")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_full_disk_stops_cleanly_wherever_it_is_met(table, ran, limit_file_size):
    """Checkpoint, then record, plan and table: one sentence each; then the command goes on."""
    sentences = []
    for size in (100, SMALL, 12_000):
        limit_file_size(size)
        code, _, err = table.run()
        limit_file_size(None)
        assert code == 2 and err.startswith("tlresearch: cannot write ") and err.count("\n") == 1
        assert err.endswith("; make room, and the same command goes on where it was.\n")
        assert table.half_written() == []
        sentences.append(err.split(":")[1].rsplit("/")[-1])
    assert sentences[0] == "tiny.plan.json" and "checkpoint.pt" in sentences, sentences
    assert table.run()[0] == 0
    found = table.records()
    table.results = table.results.with_name("never full")
    assert table.run()[0] == 0 and table.records() == found


@pytest.mark.parametrize("kind", ["seed", "checkpoint", "tiny.md", "tiny.jsonl"])
def test_a_disk_that_fills_up_stops_cleanly(table, ran, monkeypatch, kind):
    """Whichever file does not fit any more."""
    original = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(target).name.startswith(kind):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        code, _, err = table.run()
    assert code == 2 and "; make room, and the same command goes on" in err
    assert "Traceback" not in err and table.half_written() == []
    assert table.run()[0] == 0


def test_a_full_disk_behind_the_output_is_one_sentence(table, monkeypatch):
    """`tlresearch run FILE > full/table.md`."""

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cli, "_drop_output", lambda: None)
    monkeypatch.setattr(protocol, "run_stack", full)
    code, _, err = table.run()
    assert code == 2 and err == (
        "tlresearch: cannot write the output: No space left on device; "
        "make room, and the same command goes on where it was.\n"
    )


def test_a_non_finite_loss_stops_that_seed_alone_and_is_named_with_its_step(table):
    """The others' numbers equal, bit for bit, those of the same stack where none fails."""
    words = ("methods={ewc: {name: ewc}}", "methods.ewc.strength=1,{}")
    runs = {}
    for last in ("1e308", "2"):
        table.results = table.results.with_name(f"with {last}")
        code, out, _ = table.run(words[0], words[1].format(last))
        assert code == (1 if last == "1e308" else 0)
        runs[last] = table.records()
        if code:
            assert "Failed: ewc, strength=1e+308, seed 0: the loss was nan at step 0" in out
    names = [name for name in runs["2"] if "strength=1/" in name]
    assert len(names) == 2 and {runs["2"][name]["stack"] for name in names} == {4}
    for name in names:
        assert runs["1e308"][name] == runs["2"][name]
    failed = [r for name, r in runs["1e308"].items() if name not in names]
    assert [r["status"] for r in failed] == ["failed"] * 2
    assert all("the loss was" in r["reason"] and r["details"]["steps"] >= 40 for r in failed)
    assert all(r["metrics"] == {} for r in failed)
