"""The store: round trips, whole-or-nothing writes, damaged files refused."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlresearch.errors import UserError
from tlresearch.results.store import (
    Store,
    plain,
    safe_name,
    write_json_atomic,
    write_text_atomic,
)

TABLE = "continual/split_mnist_task"


def make(method: str = "ewc", seed: int = 0, key: str = "0123456789abcdef", **fields) -> dict:
    record: dict[str, Any] = {
        "experiment": TABLE,
        "family": "continual",
        "method": method,
        "setting": "",
        "seed": seed,
        "key": key,
        "source": "feed",
        "status": "finished",
        "reason": None,
        "checkpoint": "last",
        "metrics": {"acc": 0.1 + 0.2, "bwt": -0.25},
        "arrays": {"accuracy_matrix": [[0.5, None], [1.0, 0.5], [0.75, 1.0]]},
        "config": {"strength": 1e3, "name": "λ"},
        "wall_seconds": 1.5,
    }
    return record | fields


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, TABLE)


def test_round_trip_is_exact(store):
    record = make()
    path = store.write(record)
    assert path == store.root / "records" / TABLE / "ewc" / "seed0-01234567.json"
    assert path == store.path(record)
    assert store.read() == [record]


def test_a_setting_is_a_folder_of_its_own(store):
    path = store.write(make(setting="strength=1e3"))
    assert path.parent == store.root / "records" / TABLE / "ewc" / "strength=1e3"
    store.write(make(setting="../a/b"))
    assert {r["setting"] for r in store.read()} == {"strength=1e3", "../a/b"}
    assert all(store.root in p.resolve().parents for p in store.root.rglob("*.json"))


@given(st.lists(st.text(max_size=150), min_size=2, max_size=2, unique=True))
def test_names_are_safe_and_differ(labels):
    one, other = map(safe_name, labels)
    assert one != other
    assert "/" not in one and not one.startswith(".") and len(one) <= 100
    assert one.isascii() and "\0" not in one


@pytest.mark.parametrize("table", ["", "a//b", "../a", "a/..", "/a", "a b", "a/.b", "a\n"])
def test_a_table_cannot_leave_its_folder(tmp_path, table):
    with pytest.raises(UserError, match="table name"):
        Store(tmp_path, table)


def test_order_does_not_depend_on_the_order_of_writing(tmp_path):
    records = [make(m, s, setting=t) for m in ("b", "a") for t in ("y", "x") for s in (10, 9)]
    stores = Store(tmp_path / "one", TABLE), Store(tmp_path / "two", TABLE)
    for record in records:
        stores[0].write(record)
    for record in reversed(records):
        stores[1].write(record)
    assert stores[0].read() == stores[1].read()
    order = [(r["method"], r["setting"], r["seed"]) for r in stores[0].read()]
    assert order == sorted(order) and len(order) == 8


def test_plain_values():
    given = {
        "nan": math.nan,
        "infinite": -math.inf,
        "pair": (1, True),
        3: np.float32(0.5),
        "array": np.array([[1.0, math.nan]]),
        "tensor": torch.tensor([1, 2]),
    }
    assert plain(given) == {
        "nan": None,
        "infinite": None,
        "pair": [1, True],
        "3": 0.5,
        "array": [[1.0, None]],
        "tensor": [1, 2],
    }
    with pytest.raises(TypeError, match="set"):
        plain({"x": {1, 2}})


def test_nan_is_null_on_disk_and_none_when_read(store):
    path = store.write(make(metrics={"acc": math.nan}))
    assert '"acc": null' in path.read_text() and "NaN" not in path.read_text()
    assert store.read()[0]["metrics"] == {"acc": None}


def test_writing_again_replaces(store):
    store.write(make(status="failed", reason="out of memory"))
    store.write(make())
    assert [r["status"] for r in store.read()] == ["finished"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", True),
        ("seed", "0"),
        ("key", "not hex!"),
        ("key", "abc"),
        ("method", ""),
        ("status", "done"),
        ("checkpoint", None),
        ("metrics", {"acc": "0.9"}),
        ("experiment", "another"),
        ("reason", 3),
    ],
)
def test_what_is_no_record_is_not_written(store, field, value):
    with pytest.raises(ValueError, match=field):
        store.write(make(**{field: value}))
    record = make()
    del record[field]
    with pytest.raises(ValueError, match=f"`{field}` is missing"):
        store.write(record)
    assert not store.root.joinpath("records").exists()


def files_under(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, error, step):
    path = tmp_path / "table.csv"
    write_text_atomic(path, "old\n")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, step, fail)
    expected = UserError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_text_atomic(path, "new\n")
    assert path.read_text() == "old\n"
    assert files_under(tmp_path) == ["table.csv"]


def test_the_new_text_is_complete_before_it_has_the_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "table.csv", []
    replace = os.replace

    def look(source, target):
        seen.append((Path(source).parent, Path(source).read_text(), path.exists()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    write_text_atomic(path, "é\n")
    assert seen == [(tmp_path, "é\n", False)]
    assert path.read_bytes() == "é\n".encode()
    assert files_under(tmp_path) == ["table.csv"]


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "records").write_text("a file in the way")
    with pytest.raises(UserError, match=r"cannot write .*records"):
        Store(tmp_path, TABLE).write(make())


def test_permission_denied_is_a_user_error(tmp_path, monkeypatch):
    def deny(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", deny)
    with pytest.raises(UserError, match="Permission denied; give a folder"):
        Store(tmp_path, TABLE).write(make())


def refused(store: Store, path: Path) -> str:
    with pytest.raises(UserError) as error:
        store.read()
    assert str(path) in str(error.value)
    assert "`tlresearch run` sets it aside and makes its run again" in str(error.value)
    return str(error.value)


def test_a_record_cut_short_anywhere_is_refused(store):
    path = store.write(make())
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 37):  # the last two bytes are "}\n"
        path.write_bytes(whole[:length])
        assert "not whole JSON" in refused(store, path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("-0.25", "-0.05"),
        lambda text: text.replace('"seed": 0', '"seed": 1'),
        lambda text: text.replace("-0.25", "NaN"),
        lambda text: text.replace("-0.25", "1e999"),
        lambda text: text.replace('"digest"', '"digesi"'),
        lambda text: "[]",
        lambda text: "[" * 100_000,
        lambda text: "\udcff" + text,  # not UTF-8
    ],
)
def test_a_changed_record_is_refused(store, damage):
    path = store.write(make())
    text = path.read_text()
    assert damage(text) != text
    path.write_bytes(damage(text).encode("utf-8", "surrogateescape"))
    refused(store, path)


def test_a_record_in_the_wrong_place_is_refused(store):
    path = store.write(make())
    moved = path.with_name("seed1-01234567.json")
    path.rename(moved)
    assert "seed0" in refused(store, moved)


def test_other_files_and_longer_table_names_are_not_ours(tmp_path):
    short, long = Store(tmp_path, "continual"), Store(tmp_path, "continual/split")
    ours, theirs = make(experiment="continual"), make(experiment="continual/split")
    short.write(ours)
    long.write(theirs)
    write_json_atomic(short.plan_path, {"stacks": []})
    write_json_atomic(long.plan_path, {"stacks": []})
    (tmp_path / "records/continual/ewc/.seed0.tmp").write_text("left by a kill -9")
    assert short.read() == [ours]
    assert long.read() == [theirs]
    assert long.plan_path == tmp_path / "records/continual/split.plan.json"


def test_pack_merges_and_individual_files_win(store):
    a, b, c = (make(seed=s, key=f"{s}{'0' * 15}") for s in range(3))
    for record in (c, a, b):
        store.write(record)
    packed = store.pack([c["key"], a["key"]])
    assert packed == store.root / "records" / f"{TABLE}.jsonl"
    assert [json.loads(line)["seed"] for line in packed.read_text().splitlines()] == [0, 2]
    first = packed.read_bytes()
    store.pack([a["key"], c["key"]])
    assert packed.read_bytes() == first
    for path in store.root.rglob("seed*.json"):
        path.unlink()
    assert store.read() == [a, c]
    newer = a | {"wall_seconds": 2.0}
    store.write(newer)
    assert store.read() == [newer, c]


def test_pack_refuses_to_pack_what_is_not_there(store):
    store.write(make())
    with pytest.raises(UserError, match=r"1 of 2 cells have no record \(first key ffffffff\)"):
        store.pack([make()["key"], "f" * 16])
    assert not store.packed_path.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: text.replace("-0.25", "0.25", 1),
        lambda text: text + text,
        lambda text: "\n" + text,
    ],
)
def test_a_damaged_packed_table_is_refused(store, damage):
    store.write(make())
    store.write(make(seed=1))
    path = store.pack([make()["key"]])
    path.write_text(damage(path.read_text()))
    refused(store, path)


def test_a_packed_table_under_another_name_is_refused(store):
    store.write(make())
    packed = store.pack([make()["key"]])
    other = Store(store.root, "continual/other")
    packed.rename(other.packed_path)
    assert "`experiment`" in refused(other, other.packed_path)


def test_an_empty_store_has_no_records(store):
    assert store.read() == []
