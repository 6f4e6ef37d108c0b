"""Every number in the prose of README.md and docs/ that could be a result says where it is from.

Results stand in tables, which are made from records (`test_readme.py`). What prose says of them is
listed in `QUOTED`, with a check against the records; `PLAIN` lists the numbers that are no results.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import pytest

from tlresearch.data import catalogue, class_tables

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
MADE = re.compile(r"<!-- table: .*?<!-- end -->|```.*?```|`[^`\n]*`", re.DOTALL)
"""Blocks made from results/, and code."""
NUMBER = re.compile(
    r"(?<!\w)\d[\d.,]*\s*(?:%|±|(?:percent|points?|times|minutes?|seconds?|hours?|ms|s|GB|GiB|MB|MiB)\b)"
    r"|±\s*\d[\d.]*"
    r"|(?<![\w.:/-])\d+\.\d+(?![\w.]*\d*\.\d)"
)
"""A number with a unit in which results are given, or with decimals (of arXiv's numbers none).

It does not begin inside a word, such as `omniglot_5w1s`."""


def accuracies(table: str, method: str, setting: str = "") -> list[float]:
    """Final accuracy of each seed, in [0, 1]."""
    text = (ROOT / "results/records" / f"{table}.jsonl").read_text(encoding="utf-8")
    records = [json.loads(line) for line in text.splitlines()]
    found = [r for r in records if (r["method"], r["setting"]) == (method, setting)]
    assert found
    return [record["metrics"]["acc"] for record in found]


def benchmark(name: str, key: str) -> float:
    """A number that a benchmark printed on its last line."""
    text = (ROOT / "results" / f"benchmark_{name}.txt").read_text(encoding="utf-8")
    return json.loads(text.splitlines()[-1])[key]


def runs(quick: str) -> int:
    """Records of a quick table."""
    pack = ROOT / f"results/records/quick/{quick}.jsonl"
    return len(pack.read_text(encoding="utf-8").splitlines())


DOMAIN = "continual/split_mnist_domain"
MAIN, GRID = "continual/split_mnist_task", "continual/split_mnist_task_strengths"
STRENGTHS = {f"strength={s}": float(s) for s in ("1e+07", "1e+08", "1e+09", "1e+10", "1e+11")}


def lie_between(low: int, high: int) -> bool:
    """The naive runs, to the whole percent."""
    found = accuracies(MAIN, "naive")
    return (round(100 * min(found)), round(100 * max(found))) == (low, high)


def spread(values: list[float]) -> float:
    """Between the largest and the smallest."""
    return max(values) - min(values)


def best_strength(method: str) -> float:
    """Of the grid, by mean accuracy on held-out training data."""
    return max((mean(accuracies(GRID, method, s)), value) for s, value in STRENGTHS.items())[1]


def change_of_ewc() -> float:
    """Of EWC's mean accuracy on the grid, between the strengths 1e8 and 1e10."""
    inner = [mean(accuracies(GRID, "ewc", s)) for s, v in STRENGTHS.items() if 1e8 <= v <= 1e10]
    return max(inner) - min(inner)


def errors(row: str) -> float:
    """Mean test errors of a row of Hinton's table."""
    path = ROOT / "results/records/distillation/hinton_mnist.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = [r["metrics"]["errors"] for r in records if r["method"] == row]
    return mean(found)


QUOTED: dict[str, dict[str, Callable[[], bool]]] = {
    "README.md": {
        "trains 120 networks": lambda: runs("forgetting") + runs("forgetting_strengths") == 120,
        "60 to choose the strengths": lambda: runs("forgetting_strengths") == 60,
        "then the 60 of": lambda: runs("forgetting") == 60,
        "makes 15 errors more than the paper's": lambda: round(errors("teacher") - 67) == 15,
        "what it teaches 25 more": lambda: round(errors("distilled") - 74) == 25,
    },
    "docs/continual.md": {
        "between 83 and 94 %": lambda: lie_between(83, 94),
        "EWC differ by more than ten points": lambda: spread(accuracies(DOMAIN, "ewc")) > 0.1,
        "so do the three selection seeds of one strength": lambda: (
            spread(accuracies(f"{DOMAIN}_selection", "ewc", "strength=1e+10")) > 0.1
        ),
        "chose 1e10 for both": lambda: all(
            best_strength(method) == 1e10 for method in ("ewc", "online_ewc")
        ),
        "between 1e8 and 1e10 the accuracy of EWC changes by less than half a point": lambda: (
            change_of_ewc() < 0.005
        ),
    },
    "docs/design.md": {
        "a stack of 20 takes less than half the time a seed": lambda: (
            benchmark("loop", "stack.over_hand") < 0.5
        ),
    },
}
"""Statements about results, by page, and whether the records say so."""

PLAIN: dict[str, dict[str, str]] = {
    "README.md": {
        "95 % interval": "a definition",
        "Python >= 3.11": "a version",
        "6 GB of disk": "the size of an installation",
        "e.g. 0.87 and 0.83; with 0 in place of 100, 0.60 and 0.97": "run by test_readme.py",
    },
    "docs/design.md": {
        "95 % interval": "a definition",
        "(1 point unless": "a default",
        "last checkpoint (60 seconds)": "a default",
        "above 99 %": "a definition",
        "`torch.compile` (2.14)": "a version",
    },
    "docs/fewshot.md": {
        "section 5.1": "a section of a paper",
        "section 5.2": "a section of a paper",
        "section 6.2": "a section of a paper",
        "up to 3 points": "of Nichol et al., arXiv:1803.02999, section 6.2",
        "95 % interval": "a definition",
        "torch (2.14)": "a version",
    },
    "docs/adaptation.md": {
        "150 points a class": "a number of samples",
        "(1 + 10 p)^(−0.75)": "a formula",
        "skada 0.6": "a version",
        "95 % interval": "a definition",
        "250 points a domain": "a number of samples",
    },
    "docs/distillation.md": {
        "1 % of its largest number": "a tolerance",
        "±500": "an argument",
    },
    "docs/tuning.md": {"95 % bands": "a definition"},
    "docs/extending.md": {"0.01 is a point": "a definition"},
}
"""Numbers with a unit or decimals that are no results, and what they are."""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_has_no_other_numbers(page: Path):
    """A new one goes into a made block, or into one of the two lists with its source."""
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    for fragment in [*QUOTED.get(name, {}), *PLAIN.get(name, {})]:
        assert fragment in text, f"{name} no longer says {fragment!r}: remove it from the list"
        text = text.replace(fragment, "")
    text = MADE.sub("", text)
    lines = [line.strip() for line in text.splitlines() if NUMBER.search(line)]
    assert not lines, f"{name} has numbers without a source: {lines}"


@pytest.mark.parametrize(
    ("page", "statement"), [(page, text) for page, texts in QUOTED.items() for text in texts]
)
def test_what_prose_says_of_results_is_so(page: str, statement: str):
    """Worked out again from the records, or from what a benchmark printed."""
    assert QUOTED[page][statement](), f"{page}: {statement!r} is not what results/ has"


def test_the_pattern_finds_results():
    """Percent, points, spreads, times and decimals; not versions of papers, grids or counts."""
    found = [
        "98.6 %",
        "98.64 ± 0.22",
        "3 points",
        "12 minutes",
        "75 s",
        "1.4 times",
        "a mean of 0.97",
    ]
    assert all(NUMBER.search(text) for text in found)
    passed = ["arXiv:1904.07734", "10 seeds", "5e7 operations", "eq. (3)", "1e8 to 1e11", "8x8"]
    passed += ["omniglot_5w1s", "5-way 1-shot"]
    assert not any(NUMBER.search(text) for text in passed)


def test_the_table_of_class_splits_is_that_of_the_code():
    """Every split but those of data sets that have `all` only, in order, with its classes."""
    page = (ROOT / "docs/fewshot.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| (?:`(\w+)`)? ?\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", re.M)
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for dataset, split, *sizes in row.findall(page):
        dataset = dataset or list(found)[-1]
        numbers = tuple(int(size.replace(",", "")) for size in sizes)
        found.setdefault(dataset, {})[split] = numbers
    expected = {}
    for dataset in catalogue.DATASETS:
        names = class_tables.split_names(dataset)
        parts = {s: class_tables.facts(dataset, s, None, False)[1:4] for s in names}
        if names != ("all",):
            expected[dataset] = parts
    assert found == expected
    assert all(list(found[dataset]) == list(expected[dataset]) for dataset in found)
