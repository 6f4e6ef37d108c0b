"""Two processes that pack one table at the same time."""

import threading
from pathlib import Path
from typing import Any

import pytest

from tlresearch.results import store as stores
from tlresearch.results.store import Record, Store


def record(seed: int) -> Record:
    fields: dict[str, Any] = {"experiment": "exp", "family": "continual", "method": "ewc"}
    fields |= {"setting": "", "seed": seed, "key": f"{seed:016x}", "source": "", "reason": None}
    return fields | {"status": "finished", "checkpoint": "last", "metrics": {}, "arrays": {}}


@pytest.mark.parametrize("name", ["pack", "repair"])
def test_of_two_that_change_a_pack_neither_loses_a_record(tmp_path: Path, monkeypatch, name: str):
    """The second packs while the first has read the pack and not yet written it."""
    a, b = record(0), record(1)
    store = Store(tmp_path, "exp")
    store.write(a)
    path = store.pack([a["key"]])
    store.path(a).unlink()  # only the pack has it
    store.write(b)
    if name == "repair":
        path.write_text(path.read_text() + "half a line\n")
    write, done = stores.write_text_atomic, threading.Event()

    def pack() -> None:
        Store(tmp_path, "exp").pack([b["key"]], others=True)
        done.set()

    other = threading.Thread(target=pack, daemon=True)

    def slowly(path: Path, text: str) -> None:
        if not other.ident:
            other.start()
            done.wait(0.5)  # it is done by then only if it does not wait for the claim
        write(path, text)

    monkeypatch.setattr(stores, "write_text_atomic", slowly)
    monkeypatch.setattr(stores.files, "write_text_atomic", slowly)
    if name == "repair":
        assert len(store.repair()) == 1
    else:
        store.pack([], others=True)
    other.join(60)
    assert done.is_set() and store.packed() == [a, b]
    store.pack([a["key"]])
    assert store.packed() == [a]
