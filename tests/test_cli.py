"""The command: what it prints, where it writes, how it ends."""

import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Command

import tlresearch
from tlresearch import cli
from tlresearch.backbones import BACKBONES
from tlresearch.continual import METHODS, protocol
from tlresearch.data import catalogue, domain_tables
from tlresearch.training import device

BASE = """
family: continual
title: Tiny
benchmark: {dataset: optdigits, tasks: 2}
backbone: {name: mlp, hidden: [8]}
methods: {naive: {name: naive}, ewc: {name: ewc}}
train: {steps: 3, batch_size: 8}
seeds: [0, 1]
"""
CSV = "method,setting,metric,mean,ci95,sem,n,published,published_spread,status,difference,verdict"


@pytest.fixture(autouse=True)
def ordinary_process(monkeypatch: pytest.MonkeyPatch):
    """The command's settings of malloc and denormals are for its own process, not for pytest's."""
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    monkeypatch.delenv("TLRESEARCH_DATA", raising=False)


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys, BASE)


def process(
    *words: str, cwd: Path, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(tlresearch.__file__).parents[1])}
    environment.pop("PYTHONUNBUFFERED", None)
    call = [sys.executable, "-m", "tlresearch", *words]
    return subprocess.run(
        call, cwd=cwd, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True
    )


def test_run_prints_plan_table_and_paths_and_nothing_else(command: Command):
    """In a pipe: no bars, no colours, no carriage returns; nothing on the error stream."""
    code, out, err = command("run")
    assert (code, err) == (0, "") and "\x1b" not in out and "\r" not in out
    plan, table, *_ = out.partition("# Tiny")
    first, *methods = plan.strip().splitlines()
    assert first.startswith("tiny: 4 runs, 0 done, 4 to do, in 2 stacks of up to 2 seeds, on cpu")
    assert methods == ["  naive: 0 of 2 runs done", "  ewc: 0 of 2 runs done"]
    written = re.search("^Written: (.*)$", out, re.MULTILINE)
    assert table and written
    paths = [Path(path) for path in written[1].split(", ")]
    assert all(path.is_file() for path in paths)
    markdown = (command.results / "tiny.md").read_text()
    assert markdown in out and "| naive |" in markdown and "| ewc |" in markdown
    records = list((command.results / "records" / "tiny").rglob("seed*.json"))
    assert len(records) == 4


def test_a_second_run_prints_the_same_table_without_work(command: Command, monkeypatch):
    _, first, _ = command("run")
    monkeypatch.setattr(protocol, "run_stack", None)
    code, second, _ = command("run")
    assert code == 0 and "tiny: 4 runs, all done" in second
    assert second.partition("# Tiny")[2] == first.partition("# Tiny")[2]


def test_dry_run_prints_the_plan_and_writes_nothing(command: Command):
    code, out, err = command("run", "--dry-run")
    assert (code, err) == (0, "") and out.startswith("tiny: 4 runs, 0 done, 4 to do")
    assert "#" not in out and not command.results.exists()
    settings = ["  naive: naive", "  ewc: ewc", "  data: optdigits (found at scikit-learn)"]
    assert out.splitlines()[-3:] == settings
    words = ("methods.ewc.strength=7,1e5", "methods.ewc.fisher.labels=predicted", "--dry-run")
    assert (
        "\n  ewc: ewc, strength=7 or 100000, fisher.labels=predicted\n" in command("run", *words)[1]
    )
    own = ("methods.ewc.train.lr=1e-2", "methods.ewc.train.betas=[0.8, 0.9]", "--dry-run")
    assert "\n  ewc: ewc, train.lr=0.01, train.betas=[0.8, 0.9]\n" in command("run", *own)[1]
    command("run", "seeds=[0]")
    before = command.listing()
    _, out, _ = command("run", "train.lr=1,2", "--dry-run")
    assert out.startswith("tiny: 8 runs, 0 done") and command.listing() == before


def test_overrides_write_a_table_of_their_own(command: Command):
    command("run")
    plain = (command.results / "tiny.csv").read_bytes()
    code, out, _ = command("run", "train.steps=2", "methods.ewc.strength=1,2")
    assert code == 0 and "# strength=1" not in plain.decode() and "strength=1" in out
    assert (command.results / "tiny.csv").read_bytes() == plain
    assert len(list(command.results.glob("tiny+*.csv"))) == 1


def test_overrides_may_stand_behind_options(command: Command):
    """`tlresearch run FILE --results R key=value` is how people add one more word."""
    words = ["run", str(command.file), "--results", str(command.results), "--dry-run", "seeds=[5]"]
    assert cli.main(words) == 0
    assert "2 runs" in command.capsys.readouterr().out


def test_table_csv_has_the_documented_columns(command: Command):
    command("run")
    code, out, err = command("table", "--format", "csv")
    assert (code, err) == (0, "") and out.splitlines()[0] == CSV
    rows = list(csv.DictReader(io.StringIO(out)))
    pairs = [(row["method"], row["metric"], row["n"]) for row in rows]
    metrics = ("acc", "forgetting", "learning_accuracy")
    assert pairs == [(method, metric, "2") for method in ("naive", "ewc") for metric in metrics]
    assert all(0 <= float(row["mean"]) <= 1 for row in rows if row["metric"] == "acc")
    assert out == (command.results / "tiny.csv").read_text()


def test_table_of_nothing_says_missing_and_writes_nothing(command: Command, monkeypatch):
    monkeypatch.setattr(protocol, "run_stack", None)
    code, out, err = command("table")
    assert (code, err) == (0, "") and "missing" in out and not command.results.exists()
    code, out, _ = command("table", "--format", "latex")
    assert code == 0 and r"\begin{tabular}" in out


def test_a_failed_seed_is_named_and_the_exit_code_is_1(command: Command):
    code, out, err = command("run", "train.lr=1e30", "train.optimizer=sgd")
    assert code == 1 and "Failed: ewc, seed 1: " in out and "Traceback" not in out + err
    again, out, _ = command("run", "train.lr=1e30", "train.optimizer=sgd")
    assert again == 1 and "4 runs, all done" in out


def test_a_results_folder_that_cannot_be_written_is_refused_first(command: Command, monkeypatch):
    monkeypatch.setattr(protocol, "run_stack", None)
    command.results.write_text("in the way")
    code, _, err = command("run")
    assert code == 2 and err.startswith(
        f"tlresearch: --results: {command.results} cannot be written"
    )
    assert err.count("\n") == 1 and command.results.read_text() == "in the way"


def test_ctrl_c_ends_with_130_and_a_sentence(command: Command, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(protocol, "run_stack", interrupted)
    code, _, err = command("run")
    assert code == 130
    expected = "tlresearch: stopped; naive seed 0-1 has no checkpoint yet and starts anew; "
    assert err.strip().startswith(f"{expected}0 of 4 runs are done; go on with: ")
    assert err.strip().endswith(f" run {command.file} --results {command.results}")
    monkeypatch.undo()
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    assert command("run")[0] == 0


def test_stale_rows_are_marked(command: Command, monkeypatch):
    from tlresearch.launch import outputs

    command("run")
    assert "(stale)" not in command("table")[1]
    monkeypatch.setattr(outputs, "sources_of", lambda config: "0" * 64)
    assert "| ewc (stale) |" in command("table")[1]


@pytest.mark.parametrize(
    ("what", "table"),
    [
        ("methods", METHODS),
        ("datasets", catalogue.DATASETS),
        ("datasets", domain_tables.DOMAINS),
        ("backbones", BACKBONES),
    ],
)
def test_list_names_everything(what: str, table, capsys):
    for words in (["list", what], ["list"]):
        assert cli.main(words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert {line.split()[0] for line in lines if line.strip()} >= set(table)


def test_list_experiments_shows_those_here_with_their_titles(command: Command, monkeypatch, capsys):
    monkeypatch.chdir(command.file.parent)
    (command.file.parent / "experiments").mkdir()
    assert cli.main(["list", "experiments"]) == 0
    command.file.rename("experiments/tiny.yaml")
    Path("experiments/broken.yaml").write_text("a: [")
    assert cli.main(["list", "experiments"]) == 0
    out = capsys.readouterr().out
    assert "experiments/tiny.yaml" in out and "Tiny" in out and "experiments/broken.yaml" in out


def test_describe_shows_settings_defaults_bounds_and_paper(capsys):
    assert cli.main(["describe", "ewc"]) == 0
    out = capsys.readouterr().out
    for words in (
        "strength",
        "400",
        "a number at least 0",
        "λ",
        "arXiv:1612.00796",
        "fisher.labels",
    ):
        assert words in out
    for name in ("mlp", "train", "continual", "naive", "online_ewc", "resnet20"):
        assert cli.main(["describe", name]) == 0
        assert name in capsys.readouterr().out


def test_describe_shows_every_method_of_a_name(capsys):
    """The upper reference of two families is called oracle."""
    assert cli.main(["describe", "oracle"]) == 0
    out = capsys.readouterr().out
    assert "oracle (method of adaptation)" in out and "oracle (method of fewshot)" in out


def test_describe_of_nothing_gives_the_nearest_name(capsys):
    assert cli.main(["describe", "ewk"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("tlresearch: ") and "'ewc'" in err and err.count("\n") == 1


def test_data_lists_every_set_and_where_it_is(capsys, tmp_path):
    assert cli.main(["data", "--data", str(tmp_path)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines.keys() >= {*catalogue.DATASETS, *domain_tables.DOMAINS}
    assert "not here" in lines["amazon_books"] and "5000x1x1" in lines["amazon_books"]
    assert "scikit-learn" in lines["optdigits"] and "1x8x8" in lines["optdigits"]
    assert cli.main(["data", "--data", str(tmp_path / "absent")]) == 2


def test_version_and_help(capsys):
    for words, text in (
        (["--version"], f"tlresearch {tlresearch.__version__}"),
        (["--help"], "run"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 0 and text in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["fly"], ["run"], ["run", "x.yaml", "--threads", "0"]])
def test_a_wrong_command_line_ends_with_2(words: list[str], capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2 and "usage: tlresearch" in capsys.readouterr().err


def test_help_of_the_module_names_every_command(tmp_path: Path):
    done = process("--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    for name in ("run", "table", "export", "list", "describe", "data"):
        assert f"\n    {name} " in done.stdout


def test_a_process_refuses_with_exit_code_2_and_no_traceback(tmp_path: Path):
    done = process("run", "absent.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith("tlresearch: absent.yaml: there is no such experiment file")


def test_a_run_in_a_pipe_is_silent_on_the_error_stream(command: Command):
    words = ("run", str(command.file), "seeds=[0]", "methods={naive: {name: naive}}")
    done = process(*words, "--threads", "1", cwd=command.file.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert (command.file.parent / "results" / "records" / "tiny").is_dir()


def test_a_reader_that_leaves_is_no_error(command: Command):
    """As in `tlresearch table FILE | head -0`: a pipe that nobody reads, and buffered output."""
    reader, writer = os.pipe()
    os.close(reader)
    done = process("table", str(command.file), cwd=command.file.parent, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
