"""Own methods that an experiment file names: found by path, strictly read, told in one sentence."""

import sys
from pathlib import Path

import pytest

from tlresearch import experiment, inspection, own
from tlresearch.errors import UserError
from tlresearch.launch.local import sources_of

MINE = '''
"""Own methods."""
from __future__ import annotations
from dataclasses import dataclass, field
from typing import ClassVar
import math
from torch import nn
from tlresearch.continual.ewc import EWC
from tlresearch.continual.method import ContinualMethod
from tlresearch.training.settings import NonNegative

@dataclass(frozen=True)
class Group:
    size: int = 3
    """How large."""

@dataclass(frozen=True)
class Mine(ContinualMethod):
    """Mine."""
    strength: NonNegative = 1.0
    """λ, at least 0."""
    group: Group = field(default_factory=Group)
    """A group."""
    scenarios: ClassVar = ("task",)

    def __post_init__(self):
        if self.strength == 13:
            raise ValueError("13 is bad luck")

    def problem(self):
        return math.sqrt(7 - self.strength) and None

class Undecorated(Mine):
    extra: int = 3

@dataclass(frozen=True)
class Strange(ContinualMethod):
    layer: nn.Module | None = None

@dataclass(frozen=True)
class Trains(ContinualMethod):
    train: bool = True

@dataclass(frozen=True)
class NoMethod:
    strength: float = 1.0

def function(): pass
'''
FILE = """
family: continual
benchmark: {dataset: optdigits, tasks: 2, scenario: task}
backbone: mlp
methods: {mine: {name: "./mine.py:Mine", strength: 3}}
seeds: [0]
"""


class Folder:
    """An experiment file and an own file in one folder."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        (path / "mine.py").write_text(MINE)
        (path / "exp.yaml").write_text(FILE)

    def load(self, *overrides: str) -> experiment.Experiment:
        return experiment.load(self.path / "exp.yaml", list(overrides))

    def key(self, *overrides: str) -> str:
        return self.load(*overrides).cells[0].key("data")

    def refusal(self, *overrides: str) -> str:
        with pytest.raises(UserError) as caught:
            self.load(*overrides)
        assert "\n" not in str(caught.value) and "exp.yaml" in str(caught.value)
        return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "one")


def test_a_method_is_found_beside_the_experiment_file(folder: Folder, monkeypatch):
    """Not from the current folder, not from `sys.path`; it leaves no compiled copy."""
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before = list(sys.path)
    cell = folder.load().cells[0]
    assert type(cell.config.method).__name__ == "Mine" and cell.config.method.strength == 3.0
    assert "mine" not in sys.modules and sys.path == before
    assert not list(folder.path.rglob("*.pyc"))
    absolute = folder.load(f"methods.mine.name={folder.path}/mine.py:Mine")
    assert absolute.cells[0].config.method.strength == 3.0


def test_nothing_is_run_that_no_file_names(folder: Folder):
    """A file beside the experiment is left alone, and so is its own when the name is overridden."""
    ran = folder.path / "ran"
    (folder.path / "mine.py").write_text(f"{MINE}\nopen({str(ran)!r}, 'w').close()\n")
    folder.load("methods.mine={name: naive}")
    assert not ran.exists()
    folder.load()
    assert ran.exists()


def test_one_file_is_run_once_and_again_when_it_was_edited(folder: Folder):
    """Also when the edit is as long and in the same second."""
    first = type(folder.load().cells[0].config.method)
    assert type(folder.load("seeds=[0, 1]").cells[1].config.method) is first
    (folder.path / "mine.py").write_text(MINE.replace("1.0\n", "2.0\n"))
    edited = type(folder.load().cells[0].config.method)
    assert edited is not first and edited().strength == 2.0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("strength=-1", "'methods.mine.strength' must be a number at least 0, not -1"),
        ("strenght=1", "unknown key 'methods.mine.strenght'; did you mean 'strength'?"),
        ("group.size=1.5", "'methods.mine.group.size' must be a whole number, not 1.5"),
        ("strength=13", "./mine.py:Mine refuses its settings: ValueError: 13 is bad luck (mine.py"),
        ("strength=8", "'methods.mine' cannot be checked: ValueError: math domain error (mine.py"),
        ("name=./mine.py:Miner", "defines no class or function 'Miner'; did you mean 'Mine'"),
        ("name=./mine.py:EWC", "'EWC' (it only imports or assigns it)"),
        ("name=./nine.py:Mine", "./nine.py cannot be read (No such file or directory)"),
        ("name=./mine.py", "own code is named FILE.py:NAME, e.g. ./mine.py:Mine"),
        ("name=mine:Mine", "unknown method 'mine:Mine'"),
        ("name=./mine.py:NoMethod", "NoMethod is no ContinualMethod; derive it from"),
        ("name=./mine.py:function", "function is no ContinualMethod"),
        ("name=./mine.py:Undecorated", "is no frozen dataclass; write @dataclass(frozen=True)"),
        ("name=./mine.py:Strange", "has the setting 'layer' of a type that YAML cannot give"),
        ("name=./mine.py:Trains", "has a setting named 'train', which in an experiment file is"),
    ],
)
def test_what_is_refused(folder: Folder, change: str, sentence: str):
    assert sentence in folder.refusal(f"methods.mine.{change}")


def test_the_scenarios_of_an_own_method_count(folder: Folder):
    assert "Mine cannot do the scenario 'class'" in folder.refusal("benchmark.scenario=class")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("x = 1\ndef f(:\n", "cannot be run: SyntaxError: invalid syntax (mine.py, line 2)"),
        ("\nimport no_such_package\n", "No module named 'no_such_package' (mine.py, line 2)"),
        ("def f():\n    1 / 0\nf()\n", "ZeroDivisionError: division by zero (mine.py, line 2)"),
        ("raise SystemExit(3)\n", "SystemExit: 3 (mine.py, line 1)"),
        ("", "defines no class or function 'Mine'; it defines none at all"),
        ("x = '\0'\n", "SyntaxError: source code string cannot contain null bytes"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_run_is_told_with_its_line(folder: Folder, code: str, sentence: str):
    """And nothing of it stays behind, so that a mended file works."""
    (folder.path / "mine.py").write_text(code)
    assert sentence in folder.refusal()
    (folder.path / "mine.py").write_text(MINE)
    folder.load()


def test_the_key_names_the_class_by_the_file_as_written(folder: Folder, tmp_path: Path):
    """The same in another folder; another file or name is another run; defaults do not count."""
    key = folder.key()
    assert Folder(tmp_path / "two").key() == key
    assert folder.key("methods.mine.group.size=3") == key != folder.key("methods.mine.group.size=4")
    (folder.path / "other.py").write_text(MINE)
    assert folder.key("methods.mine.name=./other.py:Mine") != key
    assert folder.key("methods.mine.name=mine.py:Mine") != key
    plain = experiment.plain_config(folder.load().cells[0].config.method)
    assert plain["kind"] == "./mine.py:Mine" and plain["group"]["kind"] == "./mine.py:Group"


def test_a_backbone_may_be_a_name_alone(folder: Folder):
    """`backbone: mlp` is `backbone: {name: mlp}`, for overrides too."""
    made = folder.load()
    assert made.cells == folder.load("backbone={name: mlp}").cells
    assert folder.load("backbone.hidden=[8]").cells[0].config.backbone.hidden == (8,)
    assert folder.load("backbone=lenet").cells[0].config.backbone != made.cells[0].config.backbone
    assert "unknown backbone 'mpl' at 'backbone'; did you mean 'mlp'" in folder.refusal(
        "backbone=mpl"
    )


def test_the_hash_of_a_record_covers_the_own_file(folder: Folder):
    """Its statements and what it imports of ours, not its comments."""

    def source() -> str:
        return sources_of(folder.load().cells[0].config)

    first = source()
    for edit, same in [
        ("# a comment\n" + MINE, True),
        (MINE.replace("7 - ", "8 - "), False),
        (MINE + "import tlresearch.results.figures\n", False),
    ]:
        (folder.path / "mine.py").write_text(edit)
        assert (source() == first) == same


def test_describe_prints_its_settings(folder: Folder, monkeypatch):
    monkeypatch.chdir(folder.path)
    text = inspection.describe("./mine.py:Mine")
    assert text.startswith("./mine.py:Mine (own method of continual)\n\nOwn methods.\n")
    assert "  strength: a number at least 0 = 1.0\n      λ, at least 0." in text
    assert "  group.size: a whole number = 3\n      How large." in text
    (folder.path / "net.py").write_text('def make(s, width: int = 3):\n    """A net."""\n')
    text = inspection.describe("./net.py:make")
    assert text.startswith("./net.py:make (own backbone)\n\nA net.") and "width: a whole" in text
    with pytest.raises(UserError, match="is no frozen dataclass"):
        inspection.describe("./mine.py:Undecorated")


def test_describe_a_model_of_timm():
    pytest.importorskip("timm")
    text = inspection.describe("timm:resnet10t")
    assert "features of width 512" in text and "\n" not in text


def test_built_in_classes_keep_their_names():
    """So built-in keys are what they were."""
    from tlresearch.continual.ewc import EWC

    assert own.kind_name(EWC) == "EWC" and own.sources(EWC()) == []
