"""Whole or not at all, and claims that end with their process."""

import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tlresearch import files
from tlresearch.errors import UserError
from tlresearch.files import append_text, claim, remove_leftovers, set_aside, write_text_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("number", files.FULL)
def test_a_full_disk_says_make_room(tmp_path, monkeypatch, number):
    """The old file stays, and nothing half-written beside it."""
    path = tmp_path / "table.md"
    write_text_atomic(path, "old")

    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"table\.md: .*; make room, and the same command goes on"):
        write_text_atomic(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == ["table.md"]


def test_an_appended_line_is_whole_or_not_there(tmp_path, limit_file_size):
    path = tmp_path / "new" / "log"
    append_text(path, "one\n")
    limit_file_size(10)
    with pytest.raises(UserError, match="make room"):
        append_text(path, "a line that is too long\n")
    assert path.read_text() == "one\n"
    limit_file_size(None)
    append_text(path, "two\n")
    assert path.read_text() == "one\ntwo\n"


def test_what_is_set_aside_never_replaces_what_was_set_aside_before(tmp_path):
    path = tmp_path / "a.json"
    for number in ("1", "2", "3"):
        path.write_text(number)
        set_aside(path)
    found = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert found == {
        "a.json.unreadable": "1", "a.json.unreadable2": "2", "a.json.unreadable3": "3"
    }  # fmt: skip


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    """Of a killed writer, of one at work, and of other programs."""
    dead, foreign = tmp_path / ".a.json.0123abcd.tmp", tmp_path / ".mine.tmp"
    for path in (dead, foreign):
        path.write_text("half")
    seen: list[str] = []

    def write(file) -> None:
        remove_leftovers(tmp_path.glob(".*.tmp"))
        seen.extend(names(tmp_path))

    files.write_atomic(tmp_path / "b.json", write)
    assert len(seen) == 2 and ".mine.tmp" in seen and seen[0].startswith(".b.json.")
    assert names(tmp_path) == [".mine.tmp", "b.json"]


def test_a_claim_is_one_holder_at_a_time(tmp_path):
    """Others are told so, or wait and are told for whom; afterwards the file has gone."""
    path, told = tmp_path / "run" / "lock", []
    with claim(path) as first, claim(path) as second:
        assert (first, second) == (True, False)
        got = []

        def patient() -> None:
            with claim(path, told.append) as ours:
                got.append(ours)

        thread = threading.Thread(target=patient)
        thread.start()
        while not told:
            time.sleep(0.001)
        assert path.exists() and not got
    thread.join()
    assert got == [True] and told[0].startswith(f"process {os.getpid()} on ")
    assert names(tmp_path) == []


def test_many_that_wait_hold_it_one_by_one(tmp_path):
    """Also where the file goes away and comes again under those who wait."""
    path, inside, most = tmp_path / "lock", [0], [0]

    def work() -> None:
        for _ in range(20):
            with claim(path, files.silently):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and not path.exists()


def test_the_claim_of_a_killed_process_is_free(tmp_path):
    """The file it left behind is no claim."""
    path, (reader, writer) = tmp_path / "lock", os.pipe()
    process = os.fork()
    if not process:
        with claim(path):
            os.write(writer, b"!")
            time.sleep(60)
        os._exit(1)
    os.read(reader, 1)
    with claim(path) as ours:
        assert not ours
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    assert path.exists()
    with claim(path) as ours:
        assert ours
    assert not path.exists()


def test_without_locks_every_claim_is_granted(tmp_path, monkeypatch):
    """And temporary files stay, as nobody knows whether their writer lives."""
    monkeypatch.setattr(files, "fcntl", None)
    (tmp_path / ".a.0123abcd.tmp").write_text("half")
    remove_leftovers(tmp_path.glob(".*.tmp"))
    assert names(tmp_path) == [".a.0123abcd.tmp"]
    with claim(tmp_path / "lock") as first, claim(tmp_path / "lock") as second:
        assert first and second
    write_text_atomic(tmp_path / "b", "text")
    assert (tmp_path / "b").read_text() == "text"


def test_an_error_of_other_cause_is_not_called_a_disk(tmp_path):
    """torch's writer reports a full disk as RuntimeError; another RuntimeError stays one."""

    def broken(file) -> None:
        raise RuntimeError("CUDA error")

    def full(file) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 832 vs 726")  # noqa: B904

    with pytest.raises(RuntimeError, match="CUDA"):
        files.write_atomic(tmp_path / "a", broken)
    with pytest.raises(UserError, match="No space left"):
        files.write_atomic(tmp_path / "a", full)
    assert names(tmp_path) == []
