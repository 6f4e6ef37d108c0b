"""Malformed records, plans and checkpoints: read they are an error, and a run sets them aside."""

import io
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tlresearch import cli
from tlresearch.continual import protocol
from tlresearch.launch import outputs
from tlresearch.results.store import Store, digest
from tlresearch.training import checkpoint, device

FILE = """
family: continual
benchmark: {dataset: optdigits, tasks: 2}
backbone: {name: mlp, hidden: [4]}
methods: {naive: {name: naive}}
train: {steps: 40, batch_size: 8, optimizer: adam}
seeds: [0, 1]
"""


class Table:
    """A finished table, or one with a checkpoint on the way, to be damaged."""

    def __init__(self, folder: Path) -> None:
        self.file, self.results = folder / "exp.yaml", folder / "results"

    def run(self, command: str = "run", *words: str) -> int:
        return cli.main([command, str(self.file), *words, "--results", str(self.results)])

    def contents(self) -> dict[str, bytes]:
        paths = [path for path in self.results.rglob("*") if path.is_file()]
        return {str(p.relative_to(self.results)): p.read_bytes() for p in paths}

    def timeless(self) -> list[dict[str, Any]]:
        changing = ("wall_seconds", "details")
        records = Store(self.results, "exp").read()
        return [{k: v for k, v in r.items() if k not in changing} for r in records]

    def find(self, pattern: str) -> Path:
        return next(iter(sorted((self.results / "records").glob(pattern))))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """`done`: a finished table; `midway`: one that was stopped after its checkpoint of step 20."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "prepare_process", lambda threads=None: None)
        patch.setattr(outputs, "_write_figures", lambda *_: [])
        for name in ("done", "midway"):
            (folder / name).mkdir()
            (folder / name / "exp.yaml").write_text(FILE)
        assert Table(folder / "done").run() == 0
        original, save = protocol.run_stack, checkpoint.save

        def stopping(*args: Any) -> None:
            save(*args)
            raise KeyboardInterrupt

        patch.setattr(checkpoint, "save", stopping)
        hasty = partial(original, checkpoint_seconds=0.0)
        patch.setattr(protocol, "run_stack", hasty)
        assert Table(folder / "midway").run() == 130
    return folder


@pytest.fixture
def table(made: Path, tmp_path: Path, monkeypatch, request) -> Table:
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    monkeypatch.setattr(outputs, "_write_figures", lambda *_: [])
    shutil.copytree(made / getattr(request, "param", "done"), tmp_path / "copy")
    return Table(tmp_path / "copy")


def edited(**changes: Any) -> Callable[[bytes], bytes]:
    """A record with other fields and the digest that goes with them."""

    def damage(content: bytes) -> bytes:
        record = json.loads(content) | changes
        record = {k: v for k, v in record.items() if k != "digest" and v != "absent"}
        return json.dumps(record | {"digest": digest(record)}).encode()

    return damage


RECORDS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda b: b"",
    "cut short": lambda b: b[: len(b) // 2],
    "a nul": lambda b: b[:50] + b"\0" + b[50:],
    "zeros": lambda b: b"\0" * len(b),
    "not utf-8": lambda b: b"\xff" + b,
    "text": lambda b: b"<html>",
    "a list": lambda b: b"[" + b + b"]",
    "a number": lambda b: b"3",
    "deep": lambda b: b"[" * 100_000,
    "twice": lambda b: b + b,
    "a number changed": lambda b: b.replace(b'"acc": 0.', b'"acc": 0.9', 1),
    "nan": lambda b: b.replace(b'"acc": ', b'"acc": NaN, "x": ', 1),
    "no digest": lambda b: b.replace(b'"digest"', b'"digets"'),
    "no seed": edited(seed="absent"),
    "a seed of text": edited(seed="0"),
    "another seed": edited(seed=5),
    "no key": edited(key="absent"),
    "another key": edited(key="f" * 64),
    "another table": edited(experiment="other"),
    "another method": edited(method="ewc"),
    "an unknown status": edited(status="done"),
    "metrics of text": edited(metrics={"acc": "0.9"}),
    "metrics in a list": edited(metrics=[0.9]),
    "arrays of text": edited(arrays="none"),
}


@pytest.mark.parametrize("damage", RECORDS.values(), ids=RECORDS)
def test_a_bad_record_is_refused_by_table_and_set_aside_by_run(table: Table, capsys, damage):
    """Its run is made again, to the same bits; nothing of the damaged file is lost."""
    (table.results / "records" / "exp.jsonl").unlink()
    expected = table.timeless()
    path = table.find("exp/naive/seed1-*.json")
    bad = damage(path.read_bytes())
    assert bad != path.read_bytes()
    path.write_bytes(bad)
    before = table.contents()
    for words in (("table",), ("run", "--dry-run")):
        capsys.readouterr()
        assert table.run(*words) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"tlresearch: the record {path} cannot be used: ")
        assert err.endswith("; `tlresearch run` sets it aside and makes its run again\n")
        assert err.count("\n") == 1 and len(err) < 1000 and table.contents() == before
    told = Store(table.results, "exp").repair()
    aside = path.with_name(path.name + ".unreadable")
    assert len(told) == 1 and f"{path} cannot be used" in told[0] and aside.name in told[0]
    assert aside.read_bytes() == bad and not path.exists()
    assert len(Store(table.results, "exp").read()) == len(expected) - 1


def test_a_run_names_what_it_sets_aside_and_makes_it_again(table: Table, capsys):
    """A record and a line of the pack at once: each is one line, and the table is whole again."""
    expected = table.timeless()
    record, pack = table.find("exp/naive/seed1-*.json"), table.results / "records" / "exp.jsonl"
    record.write_bytes(b"")
    lines = pack.read_bytes().splitlines(keepends=True)
    pack.write_bytes(lines[0] + lines[1][:-30])
    assert table.run() == 0
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2 and all(line.startswith("tlresearch: the record ") for line in err)
    assert err[0].endswith(f"it was renamed to {record.name}.unreadable, and its run is made again")
    assert err[1].endswith("; exp.jsonl.unreadable keeps it, and its run is made again")
    assert pack.with_name("exp.jsonl.unreadable").read_bytes() == lines[0] + lines[1][:-30]
    assert table.timeless() == expected and len(pack.read_bytes().splitlines()) == 2
    assert table.run() == 0 and capsys.readouterr().err == ""


PACKS: dict[str, Callable[[list[bytes]], bytes]] = {
    "cut short": lambda lines: lines[0] + lines[1][:-30],
    "a line changed": lambda lines: lines[0] + lines[1].replace(b'"acc": 0.', b'"acc": 0.9'),
    "an empty line": lambda lines: lines[0] + b"\n" + lines[1],
    "a line twice": lambda lines: lines[0] + lines[0],
    "not utf-8": lambda lines: lines[0] + b"\xff\xfe\n",
    "of another table": lambda lines: lines[0] + edited(experiment="x")(lines[1]),
    "conflict marks": lambda lines: b"<<<<<<< HEAD\n" + lines[0],
    "nothing good": lambda lines: b"{}\n",
}


@pytest.mark.parametrize("damage", PACKS.values(), ids=PACKS)
def test_of_a_bad_pack_the_good_lines_stay(table: Table, capsys, damage):
    """A copy of the whole is kept; reading alone changes nothing."""
    shutil.rmtree(table.results / "records" / "exp")
    pack = table.results / "records" / "exp.jsonl"
    lines = pack.read_bytes().splitlines(keepends=True)
    pack.write_bytes(damage(lines))
    before = table.contents()
    capsys.readouterr()
    assert table.run("table") == 2 and table.contents() == before
    err = capsys.readouterr().err
    assert str(pack) in err and err.count("\n") == 1
    store = Store(table.results, "exp")
    assert len(store.repair()) == 1 and store.repair() == []
    assert pack.with_name("exp.jsonl.unreadable").read_bytes() == damage(lines)
    good = [line for line in lines if line in damage(lines)]
    assert pack.read_bytes() == b"".join(good)


PLANS = {
    "empty": b"", "text": b"plan", "a list": b"[]", "deep": b"[" * 100_000, "not utf-8": b"\xff",
    "threads of text": b'{"stacks": [], "threads": "2"}',
    "no threads at all": b'{"stacks": [], "threads": 0}',
    "absurdly many threads": b'{"stacks": [], "threads": 1000000000000000000000}',
    "stacks of numbers": b'{"stacks": [[1]], "threads": 1}',
    "a cell twice": b'{"stacks": [["a"], ["a"]], "threads": 1}',
}  # fmt: skip


@pytest.mark.parametrize("table", ["midway"], indirect=True)
@pytest.mark.parametrize("content", PLANS.values(), ids=PLANS)
def test_a_bad_plan_is_set_aside_and_made_again(table: Table, monkeypatch, capsys, content):
    """It says how a table is computed and not what came out: reading a table needs none."""
    path = table.results / "records" / "exp.plan.json"
    good = path.read_bytes()
    path.write_bytes(content)
    before = table.contents()
    assert table.run("table") == 0 and table.contents() == before
    monkeypatch.setattr("tlresearch.launch.local.run", stop)
    capsys.readouterr()
    assert table.run() == 130
    err = capsys.readouterr().err.splitlines()[0]
    assert err == (
        f"tlresearch: the plan {path} cannot be used; it was renamed to exp.plan.json.unreadable "
        "and is made again"
    )
    assert path.with_name("exp.plan.json.unreadable").read_bytes() == content
    assert path.read_bytes() == good


def stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def other(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    """A well-formed file with another content."""

    def damage(content: bytes) -> bytes:
        plain = torch.load(io.BytesIO(content), weights_only=True)
        change(plain)
        buffer = io.BytesIO()
        torch.save(plain, buffer)
        return buffer.getvalue()

    return damage


def flipped(content: bytes) -> bytes:
    """One bit of the first tensor, which torch itself does not notice."""
    tensor = torch.load(io.BytesIO(content), weights_only=True)["params"]["head.bias"]
    place = content.index(tensor.numpy().tobytes())
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def narrower(plain: dict[str, Any]) -> None:
    """One seed's weights, which would spread to both."""
    plain["params"]["head.weight"] = plain["params"]["head.weight"][:1]


CHECKPOINTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda b: b"",
    "cut short": lambda b: b[: len(b) // 2],
    "cut at its end": lambda b: b[:-1],
    "zeros": lambda b: b"\0" * len(b),
    "text": lambda b: b"not a checkpoint",
    "a bit": flipped,
    "a pickle": lambda b: b"cos\nabort\n(tR.",
    "a tensor": lambda b: other(dict.clear)(b),
    "no place": other(lambda plain: plain.pop("place")),
    "another place": other(lambda plain: plain["place"].update(stage=7)),
    "a step too far": other(lambda plain: plain["place"].update(step=41)),
    "another matrix": other(lambda plain: plain["place"].update(matrix=torch.zeros(1))),
    "a place of text": other(lambda plain: plain.update(place="here")),
    "other weights": other(lambda plain: plain["params"].pop("head.weight")),
    "weights of one seed": other(narrower),
    "doubles": other(lambda plain: plain["params"].update(
        {"head.weight": plain["params"]["head.weight"].double()})),
    "steps of one seed": other(lambda plain: plain["steps"].pop()),
    "another optimiser": other(lambda plain: plain["optimizer"].update(param_groups=[])),
    "other moments": other(lambda plain: plain["optimizer"]["state"][0].update(
        exp_avg=torch.zeros(3))),
    "moments of nothing": other(lambda plain: plain["optimizer"]["state"].update({99: {}})),
}  # fmt: skip


@pytest.mark.parametrize("table", ["midway"], indirect=True)
@pytest.mark.parametrize("damage", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_bad_checkpoint_is_set_aside_and_its_run_starts_anew(
    table: Table, made: Path, capsys, damage
):
    """Nothing of it reaches the run: the records are those of an uninterrupted one."""
    path = table.find("exp/runs/*/checkpoint.pt")
    bad = damage(path.read_bytes())
    assert bad != path.read_bytes()
    path.write_bytes(bad)
    capsys.readouterr()
    assert table.run() == 0
    err = capsys.readouterr().err
    assert err.startswith(f"tlresearch: the checkpoint {path} cannot be used (")
    end = "it was renamed to checkpoint.pt.unreadable, and its run starts anew\n"
    assert err.endswith(end) and err.count("\n") == 1 and len(err) < 1000
    assert path.with_name("checkpoint.pt.unreadable").read_bytes() == bad and not path.exists()
    assert table.timeless() == Table(made / "done").timeless()
