"""What the README and `results/` say is what the records say."""

import functools
import importlib.util
import json
import re
import runpy
from pathlib import Path

import pytest
import torch

from tlresearch import experiment
from tlresearch.experiment import Experiment
from tlresearch.launch import tuning
from tlresearch.launch.outputs import output_name, records_of, table_of
from tlresearch.launch.plan import make_plan
from tlresearch.results.store import Store
from tlresearch.results.tables import to_csv, to_markdown
from tlresearch.selection import Choice

ROOT = Path(__file__).resolve().parents[1]
PACKS = sorted(
    path.relative_to(ROOT / "results/records")
    for path in ROOT.glob("results/records/**/*.jsonl")
    if path.name != "metrics.jsonl"
)
TABLES = sorted(
    str(p.relative_to(ROOT / "results").with_suffix("")) for p in ROOT.glob("results/*/*.md")
)


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


def test_only_the_first_table_of_a_setting_is_shown():
    """Paired tests and notes stay in the file."""
    text = "# T\n\n## a\n\n| x |\n| 1 |\n\nPaired:\n\n| y |\n\n## b\n\n| z |\n\n- note\n"
    assert readme_module().results_of(text) == "**a**\n\n| x |\n| 1 |\n\n**b**\n\n| z |\n"


@functools.cache
def tables() -> dict[str, Experiment]:
    """Every table of the repository by the name of its files: experiments and their selections.

    The values that a file's `select` chooses are in place, worked out from the packed records.
    """
    made = {}
    for path in sorted((ROOT / "experiments").rglob("*.yaml")):
        table = experiment.load(path)
        if table.header.select:
            selection = tuning.selection_of(table)
            made[output_name(selection)] = selection
            table = tuning.with_choice(table, choice_of(selection))
        made[table.name] = table
    return made


def choice_of(selection: Experiment) -> Choice:
    plan, records = plan_and_records(selection)
    return tuning.choose(selection, plan, records)


def plan_and_records(made: Experiment):
    """As the command finds them under results/."""
    plan = make_plan(made, Store(ROOT / "results", output_name(made)), torch.device("cpu"))
    return plan, records_of(plan, Store(ROOT / "results", made.name))


def test_every_pack_of_records_is_printed_as_a_table():
    """And no table is printed that has no records."""
    packs = {str(path.with_suffix("")) for path in PACKS}
    assert packs == {tables()[name].name for name in TABLES}
    assert set(TABLES) == {name for name, made in tables().items() if made.name in packs}


@pytest.mark.parametrize("name", TABLES)
def test_every_committed_table_is_a_function_of_its_records(name: str, monkeypatch):
    """Markdown and CSV under results/ are what the packed records give, stale marks aside."""
    monkeypatch.chdir(ROOT)
    made = tables()[name]
    table = table_of(made, plan_and_records(made)[1])
    committed = (ROOT / "results" / f"{name}.md").read_text(encoding="utf-8")
    assert without_stale(to_markdown(table)) == without_stale(committed)
    assert to_csv(table) == (ROOT / "results" / f"{name}.csv").read_text(encoding="utf-8")


def test_every_committed_choice_is_a_function_of_its_records():
    """And the values that the table was run with are those."""
    paths = sorted((ROOT / "results/records").rglob("*.choice.json"))
    assert paths
    for path in paths:
        name = str(path.relative_to(ROOT / "results/records")).removesuffix(".choice.json")
        selection = tables()[name]
        store = Store(ROOT / "results", selection.name)
        kept = tuning.read_choice(selection, plan_and_records(selection)[0], store)
        assert kept == choice_of(selection)


def without_stale(markdown: str) -> str:
    """Which rows older code made depends on the code, not on the records."""
    lines = [line for line in markdown.splitlines() if not line.startswith("- (stale)")]
    return "\n".join(lines).replace(" (stale)", "")
