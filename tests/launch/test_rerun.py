"""Runs that are made again, and two processes on one table."""

import json
import os
import threading
from typing import Any

import pytest
import torch

from tlresearch import experiment
from tlresearch.continual import protocol
from tlresearch.files import claim
from tlresearch.launch import local, plan, running, waiting
from tlresearch.results.store import Store
from tlresearch.training import checkpoint


def test_a_stack_that_another_process_runs_is_left_to_it_and_waited_for(table, ran):
    """The other stack is run meanwhile, the first never; one line says who is waited for."""
    table.run()
    other = Store(table.results.rename(table.results.with_name("other")), "tiny")
    ran.clear()
    made = experiment.load(table.file)
    store = Store(table.results, "tiny")
    planned = plan.make_plan(made, store, torch.device("cpu"))
    source = waiting.sources_of(made.cells[0].config)
    lock = local.run_files(store, planned.stacks[0], source).lock
    told: list[tuple[str, str]] = []
    asked = threading.Event()

    def wait(stack: plan.Stack, holder: str) -> None:
        told.append((stack.label, holder))
        asked.set()

    def work() -> None:
        reporter = local.Reporter(wait=wait)
        local.run(local.Work(made, planned, store, torch.device("cpu"), reporter=reporter))

    thread = threading.Thread(target=work)
    with claim(lock):
        thread.start()
        assert asked.wait(60)
        assert {r["method"] for r in store.read()} == {"ewc"}
        for record in other.read():
            if record["method"] == "naive":
                store.write(record)
    thread.join()
    assert ran == ["EWC [0, 1]"] and len(store.read()) == 4
    (label, holder) = told[0]
    assert len(told) == 1 and label == "naive seed 0-1"
    assert holder.startswith(f"process {os.getpid()} on ")


def test_of_two_that_begin_the_second_takes_the_first_ones_plan(table, monkeypatch):
    """The plan that is written between making and writing it is the one that counts."""
    original, made = plan.make_plan, []

    def make_plan(found, store, where, *more):
        made.append(original(found, store, where, *more))
        if len(made) == 1:  # another process writes stacks of one seed now
            alone = experiment.load(table.file, ["train.stack=1"])
            plan.write_plan(original(alone, Store(store.root / "x", "tiny"), where), store)
        return made[-1]

    monkeypatch.setattr(running, "make_plan", make_plan)
    assert table.run()[0] == 0
    assert [len(s.keys) for s in made[0].stacks] == [2, 2]
    assert {r["stack"] for r in table.records().values()} == {1}


def test_rerun_stale_makes_those_of_other_code_again(table, ran, monkeypatch):
    """Whole stacks; the old records stay until the new ones are written, packed ones too."""
    table.run()
    first = table.records()
    for path in table.results.rglob("seed*.json"):
        path.unlink()  # only the packed table is left
    pack = table.results / "records" / "tiny.jsonl"
    lines = [json.loads(line) for line in pack.read_text().splitlines()]
    store = Store(table.results, "tiny")
    old = [{k: v for k, v in line.items() if k != "digest"} for line in lines]
    for record in old:
        store.write(record | {"source": "0" * 64} if record["method"] == "ewc" else record)
    store.pack([record["key"] for record in old])
    for path in table.results.rglob("seed*.json"):
        path.unlink()
    ran.clear()
    code, out, _ = table.run()
    assert code == 0 and ran == [] and "run it again with --rerun stale" in out
    code, out, _ = table.run("--rerun", "stale", "--dry-run")
    assert "2 finished runs are made again (stale: made by other code); stacks run whole" in out
    assert "4 runs, 2 done, 2 to do" in out and ran == []
    code, out, _ = table.run("--rerun", "stale")
    assert code == 0 and ran == ["EWC [0, 1]"] and "(stale)" not in out.partition("| n |")[2]
    assert table.records() == {name: r for name, r in first.items() if name.startswith("ewc")}
    assert '"source": "000' not in pack.read_text() and len(pack.read_text().splitlines()) == 4
    assert "all done" in table.run("--rerun", "stale")[1] and len(ran) == 1


def test_rerun_failed_and_all(table, ran):
    """A stack with a failed seed runs whole; `all` runs everything, to the same bits."""
    words = ("methods.ewc.strength=1,1e308", "methods={ewc: {name: ewc}, naive: {name: naive}}")
    assert table.run(*reversed(words))[0] == 1
    first, times = table.records(), table.written()
    failed = {r["setting"] for r in first.values() if r["status"] == "failed"}
    assert failed == {"strength=1e+308"}
    ran.clear()
    code, out, _ = table.run(*reversed(words), "--rerun", "failed")
    assert code == 1 and ran == ["EWC [0, 1, 0, 1]"]
    assert "  2 finished runs are made again (failed: their loss was not finite)" in out
    changed = {name for name, time in table.written().items() if time != times[name]}
    assert len(changed) == 4
    assert table.run(*reversed(words), "--rerun", "all")[0] == 1 and len(ran) == 3
    assert table.records() == first


def test_a_rerun_that_is_stopped_keeps_the_old_record(table, ran, monkeypatch):
    """It goes on from its checkpoint if it is asked for again, and is forgotten if it is not."""
    table.run()
    first, save, load = table.records(), checkpoint.save, checkpoint.load
    loads = []

    def stop(*args: Any) -> None:
        save(*args)
        raise KeyboardInterrupt

    def loaded(*args: Any) -> Any:
        loads.append(args[0])
        return load(*args)

    for words, resumed in ((("--rerun", "all"), 1), ((), 1)):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save", stop)
            assert table.run("--rerun", "all")[0] == 130
        assert table.records() == first and list(table.results.rglob("checkpoint.pt"))
        monkeypatch.setattr(checkpoint, "load", loaded)
        assert ("all done" in table.run(*words)[1]) == (not words)
        assert len(loads) == resumed and table.records() == first
        assert not list(table.results.rglob("checkpoint.pt"))


@pytest.mark.parametrize("which", ["all", "failed"])
def test_a_rerun_that_is_stopped_goes_on_with_the_rest(table, ran, monkeypatch, which):
    """The stack that was done is not made a third time, and then nothing is left to remember."""
    words = ["methods={ewc: {name: ewc}}", "methods.ewc.strength=1e308,2e307", "train.stack=1"]
    words += ["seeds=[0]"]
    again = (*words, "--rerun", which)
    table.run(*words)
    times = table.written()
    with monkeypatch.context() as patch:
        begun, original = [], protocol.run_stack

        def second_stops(run, *args, **kwargs):
            begun.append(run)
            if len(begun) == 2:
                raise KeyboardInterrupt
            return original(run, *args, **kwargs)

        patch.setattr(protocol, "run_stack", second_stops)
        code, _, err = table.run(*again)
    assert code == 130 and "1 of 2 runs are done; go on with: " in err
    (path,) = table.results.rglob("*.rerun.json")
    first = {name for name, time in table.written().items() if time != times[name]}
    ran.clear()
    code, out, err = table.run(*again)
    assert code == 1 and len(ran) == 1 and "2 runs, 1 done, 1 to do" in out
    assert f"going on with the --rerun {which} that was stopped" in err and str(path) in err
    last = {name for name, time in table.written().items() if time != times[name]}
    assert len(first) == 1 and len(last) == 2 and not path.exists()
    assert table.run(*again)[0] == 1 and len(ran) == 3


@pytest.mark.parametrize(
    "content", ["", "[]", '{"which": "all"}', '{"which": "failed", "digests": {}}', "[" * 9999]
)
def test_what_a_rerun_left_is_ignored_if_it_cannot_be_used(table, ran, content):
    """Or is of another kind: what is made again is worked out anew; a plain run gives it up."""
    table.run()
    path = table.results / "records" / "tiny.rerun.json"
    path.write_text(content)
    ran.clear()
    assert "4 to do" in table.run("--rerun", "all", "--dry-run")[1] and path.exists()
    assert table.run("--rerun", "all")[0] == 0 and len(ran) == 2 and not path.exists()
    path.write_text(content)
    assert "all done" in table.run()[1] and not path.exists()


@pytest.mark.parametrize("label", ["a", "z"])
def test_a_rerun_under_another_label_counts(table, ran, label):
    """Of equal runs under a former and a new label, the new label's record is the table's."""
    table.run()
    for path in table.results.rglob("seed*.json"):
        record = json.loads(path.read_text())
        del record["digest"]
        Store(table.results, "tiny").write(record | {"source": "0" * 64})
    table.file.write_text(table.file.read_text().replace("ewc: {name", f"{label}: {{name"))
    ran.clear()
    assert f"| {label} (stale) |" in table.run()[1]
    assert "(stale)" not in table.run("--rerun", "stale")[1] and len(ran) == 2
    assert "all done" in table.run("--rerun", "stale")[1]
