"""`tlresearch confirm`: older code's numbers are made again, and stale no more if the same."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Command

from tlresearch import cli, experiment, exporting
from tlresearch.continual import protocol
from tlresearch.errors import UserError
from tlresearch.launch import outputs, waiting
from tlresearch.results import confirmations, trainings
from tlresearch.results.confirmations import Confirmation
from tlresearch.results.store import Record, Store
from tlresearch.training import device, stage

FILE = """
family: continual
benchmark: {dataset: optdigits, tasks: 2}
backbone: {name: mlp, hidden: [4]}
methods: {naive: {name: naive}, ewc: {name: ewc}}
train: {steps: 3, batch_size: 8, stack: 1}
seeds: [0, 1]
"""
OLD, OLDER = "0" * 64, "1" * 64


def prepare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    monkeypatch.setattr(outputs, "_write_figures", lambda *_: [])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished table."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        (folder / "tiny.yaml").write_text(FILE)
        words = ["run", str(folder / "tiny.yaml"), "--results", str(folder / "results")]
        assert cli.main(words) == 0
    return folder


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def command(made: Path, tmp_path: Path, scratch: Path, capsys, monkeypatch) -> Command:
    prepare(monkeypatch)
    shutil.copytree(made / "results", tmp_path / "results")
    return Command(tmp_path, capsys, FILE)


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """Method and seeds of every stack that is run."""
    stacks, original = [], protocol.run_stack

    def counted(run, *args, **kwargs):
        stacks.append(f"{type(run.method).__name__} {run.seeds}")
        return original(run, *args, **kwargs)

    monkeypatch.setattr(protocol, "run_stack", counted)
    return stacks


def change(results: Path, edit: Callable[[Record], Any], table: str = "tiny") -> None:
    """Edits records in place, with the digests that go with them; packs them."""
    store = Store(results, table)
    records = store.read()
    for record in records:
        edit(record)
        store.write(record)
    store.pack([record["key"] for record in records])


def age(results: Path, methods: str = "naive ewc", source: str = OLD, seed: int | None = None):
    """Records of these methods as older code would have made them."""

    def edit(record: Record) -> None:
        if record["method"] in methods.split() and seed in (None, record["seed"]):
            record["source"] = source

    change(results, edit)


def records(command: Command) -> dict[str, bytes]:
    """The files that hold records, and the plan."""
    found = command.written().items()
    kept = {name: text for name, text in found if name.startswith("records/")}
    return {n: text for n, text in kept.items() if not n.endswith(confirmations.SUFFIX)}


def stale(command: Command) -> set[str]:
    """The rows that the table marks, and what a rerun of stale runs would make."""
    _, out, _ = command("table")
    marked = set(re.findall(r"^\| (\w+) \(stale\) \|", out, re.MULTILINE))
    _, out, _ = command("run", "--rerun", "stale", "--dry-run")
    assert ("all done" in out) == (not marked)
    return marked


def test_nothing_is_made_again_where_no_row_is_stale(command: Command, ran):
    before = command.written()
    code, out, err = command("confirm")
    assert (code, err, ran) == (0, "", [])
    assert out.startswith("tiny: 2 rows; 0 of 4 runs are made again, on cpu\n")
    assert "  naive: up to date\n  ewc: up to date\n" in out
    assert command.written() == before


def test_what_older_code_made_is_stale_until_it_is_confirmed(command: Command, ran, scratch):
    """One seed of each row; records stay as they are, and nothing is left behind."""
    age(command.results)
    assert stale(command) == {"naive", "ewc"}
    before = records(command)
    code, out, err = command("confirm")
    assert (code, err) == (0, "") and ran == ["Naive [0]", "EWC [0]"]
    assert "  naive: same (1 of 2 seeds made again)\n" in out
    assert stale(command) == set() and records(command) == before
    assert not list(scratch.iterdir())
    note = (
        "Confirmed: rows naive; ewc were made by older code; 1 of 2 seeds of each made again by "
        "the present code gave the same numbers bit for bit."
    )
    written = (command.results / "tiny.md").read_text()
    assert note in written and written in out and "(stale)" not in written
    assert "ll done" in command("run", "--rerun", "stale")[1] and len(ran) == 2
    assert "all done." in command("run")[1]  # and none by other code
    assert command("confirm")[1].count("up to date") == 2 and len(ran) == 2


def test_a_confirmation_holds_no_date(command: Command):
    """The same work twice is the same file, of one line a row."""
    age(command.results, "ewc")
    command("confirm")
    path = command.results / "records" / "tiny.confirmed.jsonl"
    first = path.read_text()
    (line,) = map(json.loads, first.splitlines())
    assert (line["method"], line["setting"], list(line["seeds"])) == ("ewc", "", ["0"])
    assert line["sources"] == [OLD] and line["device"] == "cpu"
    assert set(line["versions"]) == {"torch", "python"}
    path.unlink()
    assert command("confirm")[0] == 0 and path.read_text() == first
    assert command("confirm", "--all")[0] == 0 and path.read_text() == first


def test_rows_are_confirmed_one_by_one(command: Command, ran):
    """A last digit that is another keeps its row stale, and says what it is; the other is not."""
    age(command.results)

    def edit(record: Record) -> None:
        if (record["method"], record["seed"]) == ("ewc", 0):
            record["metrics"]["acc"] += 1e-12

    change(command.results, edit)
    before = records(command)
    code, out, _ = command("confirm")
    assert code == 1 and "  naive: same (1 of 2 seeds made again)\n" in out
    (told,) = [line for line in out.splitlines() if line.startswith("  ewc: ")]
    assert told.startswith("  ewc: differs: acc of seed 0, stored 0.")
    assert told.endswith("largest difference 1e-12 (acc of seed 0)")
    assert stale(command) == {"ewc"} and records(command) == before and len(ran) == 2


def test_an_array_counts_too(command: Command):
    age(command.results, "ewc")

    def edit(record: Record) -> None:
        record["arrays"]["accuracy_matrix"][1][0] += 1e-12

    change(command.results, edit)
    code, out, _ = command("confirm")
    assert code == 1 and "  ewc: differs: accuracy_matrix[1][0] of seed 0, stored " in out


def test_all_seeds_are_made_again_if_asked_for(command: Command, ran):
    """A difference in the second seed is found then, and only then."""
    age(command.results, "ewc")
    age(command.results, "naive", seed=1)

    def edit(record: Record) -> None:
        if (record["method"], record["seed"]) == ("ewc", 1):
            record["metrics"]["acc"] += 1e-12

    change(command.results, edit)
    assert command("confirm", "--seeds", "all")[0] == 1
    assert sorted(ran) == ["EWC [0]", "EWC [1]", "Naive [0]", "Naive [1]"]
    note = (
        "Confirmed: 1 of 2 seeds of row naive were made by older code; 1 of 1 seeds made again by "
        "the present code gave the same numbers bit for bit."
    )
    assert stale(command) == {"ewc"} and note in command("table")[1]
    assert command("confirm")[0] == 0 and stale(command) == set()


def test_each_source_of_a_row_has_to_be_confirmed(command: Command, ran):
    """Of seeds that two older versions made, one of each is made again."""
    age(command.results, "ewc", OLD, seed=0)
    age(command.results, "ewc", OLDER, seed=1)
    assert command("confirm")[0] == 0 and ran == ["EWC [0]", "EWC [1]"]
    assert stale(command) == set()


def row_of(command: Command, method: str) -> tuple[str, str]:
    """Key of a row, and the current source."""
    cells = experiment.load(command.file).cells
    config = next(cell.config for cell in cells if cell.method == method)
    return waiting.row_key(config), waiting.sources_of(config)


def test_a_chain_of_confirmations_counts(command: Command):
    """Older is confirmed up to old, old up to now; without either link the row is stale."""
    age(command.results, "ewc", OLDER)
    row, current = row_of(command, "ewc")
    store = Store(command.results, "tiny")
    links = [
        Confirmation("ewc", "", row, {}, (older,), newer, {}, "cpu")
        for older, newer in ((OLD, current), (OLDER, OLD))
    ]
    for one, whole in ((0, False), (1, True)):
        confirmations.add(store, links[one])
        assert stale(command) == (set() if whole else {"ewc"})
    note = "0 of 2 seeds made again by later code, which was itself confirmed, gave the same"
    assert note in command("table")[1]
    confirmations.path_of(store).unlink()
    confirmations.add(store, links[1])
    assert stale(command) == {"ewc"}


def test_a_confirmation_is_of_a_row_as_it_was_configured(command: Command):
    """The same label with other settings stays stale; so do numbers that changed since."""
    age(command.results, "ewc")
    command("confirm")
    other = "train.steps=2"
    command("run", other)
    age(command.results, "ewc")
    assert "| ewc (stale) |" in command("table", other)[1]
    assert stale(command) == set()

    def edit(record: Record) -> None:
        record["metrics"]["acc"] += 1e-12

    change(command.results, edit)
    assert stale(command) == {"ewc"}
    assert command("confirm")[0] == 1


def test_rows_that_share_a_stack_share_its_run(command: Command, ran):
    """Under the plan: four runs of two rows in one stack."""
    words = ("methods={ewc: {name: ewc}}", "methods.ewc.strength=1,2", "train.stack=auto")
    command("run", *words)
    age(command.results, "ewc")
    ran.clear()
    code, out, _ = command("confirm", *words)
    assert code == 0 and ran == ["EWC [0, 1, 0, 1]"]
    assert out.count("same (2 of 2 seeds made again)") == 2
    assert "(stale)" not in command("table", *words)[1]


def test_what_is_stopped_keeps_the_rows_that_were_done(command: Command, scratch, monkeypatch):
    age(command.results)
    original = protocol.run_stack

    def stops(run, *args, **kwargs):
        if type(run.method).__name__ == "EWC":
            raise KeyboardInterrupt
        return original(run, *args, **kwargs)

    before = records(command)
    with monkeypatch.context() as patch:
        patch.setattr(protocol, "run_stack", stops)
        code, _, err = command("confirm")
    assert code == 130
    assert "stopped; what was found of 1 of 2 rows is kept; go on with: " in err
    assert stale(command) == {"ewc"} and records(command) == before
    assert not list(scratch.iterdir()) and not list(command.results.rglob("*.tmp"))


DAMAGED: dict[str, Callable[[str], str]] = {
    "cut short": lambda text: text[: len(text) // 2],
    "edited": lambda text: text.replace(OLD, OLDER),
    "no digest": lambda text: text.replace("digest", "digets"),
    "text": lambda text: "<html>\n",
    "a list": lambda text: "[]\n",
    "nothing in it": lambda text: "{}\n",
    "deep": lambda text: "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_damaged_confirmations_are_refused_in_one_sentence(command: Command, ran, damage):
    """By every command, before any work; the file stays as it is."""
    age(command.results, "ewc")
    command("confirm")
    path = command.results / "records" / "tiny.confirmed.jsonl"
    path.write_text(damage(path.read_text()))
    ran.clear()
    before = command.written()
    for words in (("confirm",), ("run", "--rerun", "all"), ("run",), ("table",)):
        code, _, err = command(*words)
        assert code == 2 and err.startswith(f"tlresearch: the confirmations {path}, line 1 cannot")
        assert err.count("\n") == 1 and "delete it" in err
    assert ran == [] and command.written() == before


@pytest.mark.parametrize(
    ("change_it", "told"),
    [
        ({"device": "cuda"}, "not run: its records were made on cuda, this is cpu"),
        ({"processes": 2}, "not run: its records were made by 2 processes"),
        ({"status": "failed"}, "not run: it has no finished runs"),
    ],
)
def test_what_cannot_be_made_again_here_is_said(command: Command, ran, change_it, told):
    age(command.results, "ewc")
    change(command.results, lambda r: r.update(change_it if r["method"] == "ewc" else {}))
    code, out, _ = command("confirm")
    assert f"  ewc: {told}\n" in out and ran == [] and code == ("status" not in change_it)


def test_a_difference_names_what_else_has_changed(command: Command):
    age(command.results, "ewc")

    def edit(record: Record) -> None:
        record["metrics"]["acc"] += 1e-12
        record["stack"] = 5

    change(command.results, edit)
    assert "(not only the code: seeds in a stack: 5 then, 1 now)" in command("confirm")[1]


def test_bad_input_is_refused(command: Command, tmp_path, monkeypatch):
    assert command("confirm", "--threads", "99")[0] == 2
    assert "--threads: " in command("confirm", "--threads", "99")[2]
    assert "debug run is made anew" in command("confirm", "debug=true")[2]
    assert command("confirm", "--data", str(tmp_path / "absent"))[0] == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = command("confirm")
    assert code == 2 and "without torchrun" in err


def test_a_table_that_lacks_runs_is_confirmed_and_not_written(command: Command):
    """As `run` writes none before its end."""
    age(command.results, "ewc")
    before = (command.results / "tiny.md").read_bytes()
    code, out, err = command("confirm", "seeds=[0,1,2]")
    assert code == 0 and "  ewc: same (1 of 2 seeds made again)\n" in out
    assert "is not written anew: it lacks runs" in err and not list(command.results.glob("tiny+*"))
    assert (command.results / "tiny.md").read_bytes() == before
    code, out, _ = command("confirm", "benchmark.tasks=5")
    assert code == 0 and "  ewc: not run: it has no finished runs\n" in out


def test_confirmations_are_no_table_to_export_from(command: Command):
    age(command.results, "ewc")
    command("confirm")
    with pytest.raises(UserError, match="there is no run 'tiny/none/seed0'"):
        exporting.export("tiny/none/seed0", command.results, None, False)


SELECTING = "select: {grid: {methods.ewc.strength: [1, 2]}, seeds: [100], validation: 0.2}\n"


def test_the_runs_of_a_selection_are_confirmed_too(command: Command, ran):
    """Before the table's; with --best the table's alone."""
    command.file.write_text(FILE + SELECTING)
    command("run")
    age(command.results, "ewc")
    change(command.results, lambda r: r.update(source=OLD), "tiny_selection")
    ran.clear()
    assert command("confirm", "--best")[0] == 0 and ran == ["EWC [0]"]
    ran.clear()
    code, out, _ = command("confirm")
    assert code == 0 and ran == ["EWC [100]", "EWC [100]"]
    assert out.startswith("tiny_selection: 2 rows; 2 of 2 runs are made again, on cpu\n")
    assert (
        "Confirmed: rows ewc, strength=1; ewc, strength=2 were made"
        in (command.results / "tiny_selection.md").read_text()
    )


EPISODES = """
family: fewshot
benchmark: {dataset: glyphs, ways: 3, queries: 2, episodes: 4}
backbone: {name: conv4, channels: 2}
methods:
  protonet: {name: protonet, train_ways: 3, train_queries: 2}
  soft_kmeans: {name: soft_kmeans, train_ways: 3, train_queries: 2}
train: {steps: 2}
seeds: [0]
"""


def test_no_training_is_taken_from_the_results(command: Command, monkeypatch):
    """Rows that share one make it once; what is kept is neither read nor written."""
    command.file.write_text(EPISODES)
    shutil.rmtree(command.results)
    fits, fit = [], stage.fit

    def spy(training, *args):
        fits.append(training.seeds[0])
        fit(training, *args)

    monkeypatch.setattr(stage, "fit", spy)
    assert command("run")[0] == 0 and fits == [0]
    change(command.results, lambda r: r.update(source=OLD))
    folder = command.results / "records" / "trained"
    (kept,) = folder.glob("*.safetensors")
    kept.write_bytes(b"damaged")
    fits.clear()
    found, find = [], trainings.find
    monkeypatch.setattr(trainings, "find", lambda *a: found.append(a[0]) or find(*a))
    code, out, _ = command("confirm")
    assert code == 0 and fits == [0] and out.count("same (1 of 1 seeds made again)") == 2
    assert found and folder not in found and kept.read_bytes() == b"damaged"
