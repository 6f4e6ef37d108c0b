"""The command with a section `select:`: runs, --best, table, dry run."""

import threading
from pathlib import Path

import pytest
from commands import Command

from tlresearch.continual import protocol
from tlresearch.results import figures
from tlresearch.results.store import Store
from tlresearch.training import device

FILE = """
family: continual
title: Tiny
benchmark: {dataset: optdigits, tasks: 2}
backbone: {name: mlp, hidden: [8]}
methods: {naive: {name: naive}, ewc: {name: ewc}}
train: {steps: 3, batch_size: 8}
select: {grid: {methods.ewc.strength: [1, 1e3]}, seeds: [100], table: tries}
seeds: [0]
"""


@pytest.fixture
def command(tmp_path: Path, capsys, monkeypatch) -> Command:
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    for name in ("accuracy_matrix_figure", "forgetting_curve_figure"):  # slow, and not of interest
        monkeypatch.setattr(figures, name, lambda matrices, path: None)
    return Command(tmp_path, capsys, FILE)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int], list[float]]]:
    """What is measured on, seeds and strengths of every stack of EWC that is run."""
    stacks, original = [], protocol.run_stack

    def counted(run, *args, **kwargs):
        strength = getattr(run.method, "strength", None)
        if strength is not None:
            strengths = run.fields.get("strength", [strength])
            stacks.append((run.benchmark.evaluate, list(run.seeds), list(strengths)))
        return original(run, *args, **kwargs)

    monkeypatch.setattr(protocol, "run_stack", counted)
    return stacks


def test_selection_runs_first_on_held_out_data_and_its_choice_is_used(command: Command, ran):
    code, out, err = command("run")
    assert (code, err) == (0, "")
    assert ran[0] == ("validation", [100, 100], [1.0, 1e3])
    (kind, seeds, (strength,)) = ran[1]
    assert (kind, seeds) == ("test", [0]) and strength in (1.0, 1e3) and len(ran) == 2
    assert f"- Chosen for ewc: strength {strength:g}, of 1, 1000" in out
    written = command.written()
    for name in ("tiny.md", "tiny.csv", "tiny.tex", "tiny_selection.md", "tiny_selection.csv"):
        assert written[name]
    assert {name for name in written if name.startswith("records/") and name.count("/") == 1} == {
        "records/tiny.jsonl",
        "records/tiny.plan.json",
        "records/tries.jsonl",
        "records/tiny_selection.plan.json",
        "records/tiny_selection.choice.json",
    }
    assert b"<svg" in written["tiny_selection_sweep.svg"]
    assert b"| ewc | 1000 |" in written["tiny_selection.md"]
    again, second, _ = command("run")
    assert again == 0 and len(ran) == 2 and command.written() == written
    assert second.partition("# Tiny")[2] == out.partition("# Tiny")[2]
    assert command("table")[1] == written["tiny.md"].decode()
    assert command("table", "--best")[1] == written["tiny.md"].decode()


def test_the_chosen_value_wins_over_the_others(command: Command, ran, monkeypatch):
    """Where validation accuracy says 1000, the reported runs have it."""
    original = protocol.run_stack

    def biased(run, *args, **kwargs):
        outcomes = original(run, *args, **kwargs)
        for outcome, strength in zip(outcomes, run.fields.get("strength", []), strict=False):
            outcome.metrics["acc"] = strength / 1e4
        return outcomes

    monkeypatch.setattr(protocol, "run_stack", biased)
    assert command("run")[0] == 0
    assert ran[-1] == ("test", [0], [1e3])
    assert command("run", "--best", "train.steps=4")[0] == 0
    assert ran[2:] == [("test", [0], [1e3])]


def test_best_tunes_nothing_and_has_a_table_of_its_own(command: Command, ran):
    command("run")
    before = command.written()
    ran.clear()
    code, out, _ = command("run", "--best", "train.steps=4,5")
    assert code == 0 and [stack[:2] for stack in ran] == [("test", [0])] * 2
    assert (
        "# Tiny (train.steps=4,5, --best)" in out
        and "Tuned (by the file without these overrides)" in out
    )
    assert {name: command.written()[name] for name in before} == before
    code, out, _ = command("run", "train.steps=4")  # tunes anew
    assert ran[2][:2] == ("validation", [100, 100])
    assert len(list(command.results.glob("tiny_selection+*.md"))) == 1


def test_best_without_a_choice_is_refused_in_one_sentence(command: Command):
    for words in (["run", "--best"], ["table", "--best"], ["run", "--best", "train.steps=5"]):
        code, out, err = command(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "nothing was chosen before" in err and not command.results.exists()
    command.file.write_text(FILE.replace("select:", "# select:"))
    code, _, err = command("run", "--best")
    assert code == 2 and "there is no section 'select'" in err


def test_a_table_whose_values_are_not_chosen_is_refused(command: Command):
    code, out, err = command("table")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "2 of the 2 runs that choose its values are missing; run them with 'tlresearch" in err


def test_a_dry_run_shows_both_plans_and_writes_nothing(command: Command):
    code, out, err = command("run", "--dry-run")
    assert (code, err) == (0, "") and not command.results.exists()
    assert out.startswith("tiny_selection: 2 runs, 0 done, 2 to do")
    lines = out.splitlines()[2:]
    assert lines == [
        "tiny: 2 runs, once these have chosen its values",
        "  naive: naive",
        "  ewc: ewc, strength=1 or 1000 (to be chosen)",
        "  data: optdigits (found at scikit-learn)",
    ]
    command("run")
    before = command.written()
    code, out, _ = command("run", "--dry-run")
    done, settings = out.split("  naive: naive\n")
    assert done == "tiny_selection: 2 runs, all done.\ntiny: 2 runs, all done.\n"
    assert settings.startswith("  ewc: ewc, strength=1") and "chosen" not in settings
    assert command.written() == before


def test_runs_of_another_table_are_shared(command: Command, ran, tmp_path: Path):
    """By key, whatever the method is called there."""
    command("run")
    ran.clear()
    command.file = tmp_path / "other.yaml"
    command.file.write_text(FILE.replace("ewc: {", "mine: {").replace(".ewc.", ".mine."))
    code, out, _ = command("run", "seeds=[0]")
    assert code == 0 and "other_selection: 2 runs, all done." in out
    assert [stack[0] for stack in ran] == ["test"]


def test_a_debug_run_leaves_the_records_of_a_shared_table_alone(command: Command):
    """Equal keys: they would be written over. Its own names end in `+debug`, once."""
    command("run")
    before = command.written()
    command.file.write_text(FILE + "debug: true\n")
    assert command("run")[0] == 0
    after = command.written()
    assert {name: after[name] for name in before} == before
    new = {name for name in after if name not in before and name.count("/") <= 1}
    assert {"records/tries+debug.jsonl", "tiny_selection+debug.md", "tiny+debug.md"} <= new
    assert all(name.count("+debug") == 1 for name in new)


def test_best_is_refused_where_a_reported_seed_chose(command: Command):
    command("run")
    before = command.written()
    words = ("--best", "seeds=[100, 101]", "select.seeds=[7]")
    for name in ("run", "table"):
        code, out, err = command(name, *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "argument 'select.seeds=[7]': --best takes what" in err
    assert command.written() == before


@pytest.mark.parametrize("name", ["tries", "tiny_selection"])
def test_a_selection_in_the_table_of_another_file_ends(command: Command, tmp_path: Path, name: str):
    """Records, outputs and plan then have one claim, which no command holds while it waits."""
    other = tmp_path / f"{name}.yaml"
    other.write_text(FILE[: FILE.index("select:")] + "seeds: [0]\n")
    file = command.file
    file.write_text(FILE.replace("tries", name))
    codes = []

    def work() -> None:
        for command.file in (other, file, other, file):
            codes.append(command("run")[0])

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert codes == [0] * 4
    records = Store(command.results, name).packed()
    assert sorted(record["seed"] for record in records) == [0, 0, 100, 100]


def test_a_tuned_key_on_the_command_line_is_not_tuned(command: Command, ran):
    code, out, _ = command("run", "methods.ewc.strength=7")
    assert code == 0 and "tuning" not in out and ran == [("test", [0], [7.0])]
