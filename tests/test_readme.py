"""What the README and `results/` say is what the records say."""

import importlib.util
import json
import re
import runpy
from pathlib import Path

import pytest
import torch

from tlresearch import experiment
from tlresearch.launch.outputs import records_of, table_of
from tlresearch.launch.plan import make_plan
from tlresearch.results.store import Store
from tlresearch.results.tables import to_csv, to_markdown

ROOT = Path(__file__).resolve().parents[1]
PACKS = (
    path.relative_to(ROOT / "results/records") for path in ROOT.glob("results/records/**/*.jsonl")
)
TABLES = sorted(path for path in PACKS if path.name != "metrics.jsonl")


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


@pytest.mark.parametrize("path", TABLES, ids=str)
def test_every_committed_table_is_a_function_of_its_records(path: Path, monkeypatch):
    """Markdown and CSV under results/ are what the packed records give, stale marks aside."""
    monkeypatch.chdir(ROOT)
    name = str(path.with_suffix(""))
    made = experiment.load(ROOT / "experiments" / f"{name}.yaml")
    store = Store(ROOT / "results", made.name)
    plan = make_plan(made, store, torch.device("cpu"))
    table = table_of(made, records_of(plan, store))
    committed = (ROOT / "results" / f"{name}.md").read_text(encoding="utf-8")
    assert without_stale(to_markdown(table)) == without_stale(committed)
    assert to_csv(table) == (ROOT / "results" / f"{name}.csv").read_text(encoding="utf-8")


def without_stale(markdown: str) -> str:
    """Which rows older code made depends on the code, not on the records."""
    lines = [line for line in markdown.splitlines() if not line.startswith("- (stale)")]
    return "\n".join(lines).replace(" (stale)", "")
