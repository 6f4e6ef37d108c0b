"""What the README and `results/` say is what the records say."""

import contextlib
import functools
import importlib.util
import json
import math
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from tlresearch import experiment
from tlresearch.experiment import Experiment
from tlresearch.launch import tuning
from tlresearch.launch.outputs import output_name, records_of, write_outputs
from tlresearch.launch.plan import make_plan
from tlresearch.results import confirmations
from tlresearch.results.store import Store
from tlresearch.selection import Choice

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"


def committed() -> list[Path]:
    """The files under results/ that git has, or all of them where there is no git."""
    words = ["git", "ls-files", "-z", "--", "."]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        done = subprocess.run(words, cwd=RESULTS, check=True, capture_output=True, text=True)
        found = [RESULTS / name for name in done.stdout.split("\0") if name]
        return sorted(path.relative_to(RESULTS) for path in found if path.exists())
    return sorted(path.relative_to(RESULTS) for path in RESULTS.rglob("*") if path.is_file())


COMMITTED = committed()
PACKS = [
    path
    for path in COMMITTED
    if path.parts[0] == "records"
    and path.suffix == ".jsonl"
    and not path.name.endswith(confirmations.SUFFIX)
]
TABLES = [
    path.with_suffix("").as_posix()
    for path in COMMITTED
    if path.parts[0] != "records" and path.suffix == ".md" and path.with_suffix(".tex") in COMMITTED
]
"""Rankings of selectors, which are a table's second output, have no LaTeX."""


def readme_module():
    spec = importlib.util.spec_from_file_location(
        "update_readme", ROOT / "scripts/update_readme.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_the_readme_are_those_of_the_results():
    """`scripts/update_readme.py` would change nothing."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    module = readme_module()
    assert len(module.BLOCK.findall(readme)) >= 2
    assert module.filled(readme) == readme


def example() -> str:
    """The README's loop that calls the functions."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (code,) = [block for block in blocks if "diagonal_fisher" in block]
    return code


def accuracies(code: str, file: Path, capsys: pytest.CaptureFixture[str]) -> list[float]:
    """What the loop prints: accuracy on the first and on the second task."""
    file.write_text(code, encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        runpy.run_path(str(file))
    return json.loads(capsys.readouterr().out)


def test_the_loop_of_the_readme_runs_and_its_penalty_keeps_the_first_task(tmp_path, capsys):
    """At most 15 lines; without the penalty much more of the first task is lost."""
    code = example()
    assert 0 < sum(bool(line.strip()) for line in code.splitlines()) <= 15
    assert code.count("100 * penalties.quadratic_penalty") == 1
    kept = accuracies(code, tmp_path / "kept.py", capsys)
    without = code.replace("100 * penalties", "0 * penalties")
    lost = accuracies(without, tmp_path / "lost.py", capsys)
    assert kept[0] > lost[0] + 0.1 and min(kept) > 0.7
    said = re.search(
        r"e\.g\. (\S+) and (\S+); with 0 in place of 100, (\S+) and (\d\.\d+)",
        (ROOT / "README.md").read_text(encoding="utf-8"),
    )
    assert said
    assert [float(number) for number in said.groups()] == pytest.approx([*kept, *lost], abs=0.1)


def test_only_the_first_table_of_a_setting_is_shown():
    """Paired tests and notes stay in the file."""
    text = "# T\n\n## a\n\n| x |\n| 1 |\n\nPaired:\n\n| y |\n\n## b\n\n| z |\n\n- note\n"
    assert readme_module().results_of(text) == "**a**\n\n| x |\n| 1 |\n\n**b**\n\n| z |\n"


@functools.cache
def tables() -> dict[str, Experiment]:
    """Every table of the repository by the name of its files: experiments and their selections.

    The values that a file's `select` chooses are in place, worked out from the packed records;
    tables whose selection has no records yet are left out.
    """
    made = {}
    packs = {path.relative_to("records").with_suffix("").as_posix() for path in PACKS}
    for path in sorted((ROOT / "experiments").rglob("*.yaml")):
        table = experiment.load(path)
        if table.header.select:
            selection = tuning.selection_of(table)
            if selection.name not in packs:
                continue
            made[output_name(selection)] = selection
            table = tuning.with_choice(table, choice_of(selection))
        made[table.name] = table
    return made


def choice_of(selection: Experiment) -> Choice:
    plan, records = plan_and_records(selection)
    return tuning.choose(selection, plan, records)


def plan_and_records(made: Experiment, folder: Path = RESULTS):
    """As the command finds them under results/."""
    plan = make_plan(made, Store(folder, output_name(made)), torch.device("cpu"))
    return plan, records_of(plan, Store(folder, made.name))


def made_anew(made: Experiment, folder: Path) -> dict[Path, str]:
    """What a table's packed records give, by path under results/; stale marks aside."""
    shutil.copytree(RESULTS / "records", folder / "records", ignore=only_committed)
    plan, _ = plan_and_records(made, folder)
    paths = write_outputs(made, plan, Store(folder, made.name))
    return {path.relative_to(folder): without_stale(path) for path in paths}


def only_committed(folder: str, names: list[str]) -> set[str]:
    """What a copy leaves out: files of single records, checkpoints, weights."""
    here = Path(folder).relative_to(RESULTS)
    kept = {here / name for name in names if (RESULTS / here / name).is_dir()} | set(COMMITTED)
    return {name for name in names if here / name not in kept}


@pytest.mark.parametrize("name", TABLES)
def test_every_committed_table_is_a_function_of_its_records(name: str, tmp_path, monkeypatch):
    """Markdown, CSV, LaTeX and figures, to the letter; none is missing, none is left over."""
    monkeypatch.chdir(ROOT)
    expected = made_anew(tables()[name], tmp_path)
    assert {".md", ".csv", ".tex"} <= {path.suffix for path in expected}
    for path, text in expected.items():
        assert text == without_stale(RESULTS / path), f"results/{path} is not what its records give"
    of_it = {path for path in COMMITTED if path.parts[0] != "records" and table_of(path) == name}
    assert of_it == {path for path in expected if path.parts[0] != "records"}


def table_of(path: Path) -> str | None:
    """The table whose output a file is by its name: the longest name that it begins with."""
    stem = path.with_suffix("").as_posix()
    names = [name for name in TABLES if stem == name or stem.startswith(f"{name}_")]
    return max(names, key=len, default=None)


@pytest.mark.parametrize("path", COMMITTED, ids=str)
def test_every_committed_result_has_a_source(path: Path):
    """A table's output, its records, plan, choice, confirmations, or what a benchmark printed."""
    if path.parts[0] == "records":
        name = path.relative_to("records").as_posix()
        ends = (".jsonl", confirmations.SUFFIX)
        stores = {f"{made.name}{end}" for made in tables().values() for end in ends}
        plans = {f"{table}{end}" for table in tables() for end in (".plan.json", ".choice.json")}
        assert name in stores | plans, "not of an experiment"
    elif path.suffix == ".txt":
        numbers = json.loads((RESULTS / path).read_text(encoding="utf-8").splitlines()[-1])
        assert numbers and all(math.isfinite(number) for number in numbers.values())
        assert (ROOT / "scripts" / path.name).with_suffix(".py").exists()
    else:
        assert table_of(path), "no records of a table of this name"


def test_every_pack_of_records_is_printed_as_a_table():
    """With its plan; and no table is printed that has no records."""
    packs = {path.relative_to("records").with_suffix("").as_posix() for path in PACKS}
    assert packs == {tables()[name].name for name in TABLES}
    assert set(TABLES) == {name for name, made in tables().items() if made.name in packs}
    for name in TABLES:  # a selection that found all its runs in another table planned nothing
        planned = Path("records", f"{name}.plan.json") in COMMITTED
        assert planned or tables()[name].name != name


def test_every_committed_choice_is_a_function_of_its_records():
    """And the values that the table was run with are those."""
    paths = sorted(path for path in COMMITTED if path.name.endswith(".choice.json"))
    assert paths
    for path in paths:
        name = path.relative_to("records").as_posix().removesuffix(".choice.json")
        selection = tables()[name]
        store = Store(RESULTS, selection.name)
        kept = tuning.read_choice(selection, plan_and_records(selection)[0], store)
        assert kept == choice_of(selection)


def without_stale(path: Path) -> str:
    """Which rows older code made, and was confirmed, depends on the code, not on the records."""
    lines = path.read_text(encoding="utf-8").splitlines()
    marks = ("(stale)", "Confirmed: ")
    notes = tuple(f"{item} {mark}" for item in ("-", "\\item") for mark in marks)
    kept = [line for line in lines if not line.strip().startswith(notes)]
    return "\n".join(kept).replace(" (stale)", "")
