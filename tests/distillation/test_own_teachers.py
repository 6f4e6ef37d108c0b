"""Teachers and assistants in own code: found beside the experiment, part of what a run is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tlresearch import cli, experiment, families
from tlresearch.distillation import teachers, teaching
from tlresearch.distillation.lineage import Lineage
from tlresearch.distillation.teaching import School
from tlresearch.errors import UserError
from tlresearch.launch import outputs, plan
from tlresearch.launch.waiting import own_files, sources_of
from tlresearch.training import device

NET = """
from torch import nn

def make(input_shape, width: int = 6):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())
"""
EDITED = NET.replace("ReLU", "Tanh")
FILE = """
family: distillation
benchmark: {dataset: optdigits, samples: 200}
backbone: {name: mlp, hidden: [4]}
methods:
  labels: {name: student}
  kd: {name: kd, teacher: {backbone: {name: ./net.py:make}}}
  teacher: {name: teacher, teacher: {backbone: {name: ./net.py:make}}}
  assistant: {name: teacher_assistant, assistants: [{name: ./net.py:make, width: 5}]}
  chain:
    name: kd
    teacher: {method: {name: kd, teacher: {backbone: {name: ./net.py:make}}}}
train: {steps: 2, batch_size: 8}
metrics: [acc]
seeds: [0]
"""
TAUGHT = ("kd", "teacher", "assistant", "chain")


class Folder:
    """An experiment file with `net.py` beside it."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True)
        self.path, self.results = path, path / "results"
        (path / "net.py").write_text(NET)
        (path / "exp.yaml").write_text(FILE)

    def load(self, *overrides: str) -> dict[str, experiment.Cell]:
        made = experiment.load(self.path / "exp.yaml", list(overrides))
        return {cell.method: cell for cell in made.cells}

    def edit(self) -> None:
        (self.path / "net.py").write_text(EDITED)

    def refusal(self, *overrides: str) -> str:
        with pytest.raises(UserError) as caught:
            for cell in self.load(*overrides).values():
                families.check_networks(cell.config, cell.method)
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "one")


@pytest.mark.parametrize("label", TAUGHT)
def test_a_teachers_file_is_part_of_what_its_students_are_made_by(folder, label):
    """An edit makes them stale; comments do not count, and students without a teacher stay."""
    before = folder.load()
    (folder.path / "net.py").write_text(f"# a comment\n{NET}")
    assert sources_of(folder.load()[label].config) == sources_of(before[label].config)
    folder.edit()
    after = folder.load()
    assert sources_of(after[label].config) != sources_of(before[label].config)
    assert sources_of(after["labels"].config) == sources_of(before["labels"].config)
    assert own_files(after[label].config) == [EDITED.encode()]
    assert own_files(after["labels"].config) == []


@pytest.mark.parametrize("label", TAUGHT)
def test_a_kept_teacher_is_of_the_file_that_trained_it(folder, label):
    """Also an assistant whose own teacher's file was edited: both its key and its source differ."""
    images: Any = SimpleNamespace(fingerprint="", recipe="", held_out=[])
    school: Any = SimpleNamespace(images=images)
    names = set()
    for text in (NET, EDITED, NET):
        (folder.path / "net.py").write_text(text)
        config = folder.load()[label].config
        settings = config.method.taught_by()
        training = teachers.resolve(settings, config.backbone, config.train, "teacher")
        names.add((School._key(school, training, Lineage(0, 0)), teaching._source(training)))
    assert [len(set(one)) for one in zip(*names, strict=True)] == [2, 2]


@pytest.mark.parametrize("label", TAUGHT)
def test_a_teachers_backbone_of_ours_is_part_of_it_too(folder, label):
    """The module that only a teacher uses."""

    def source(name: str) -> str:
        text = FILE.replace(", width: 5", "").replace("./net.py:make", name)
        (folder.path / "exp.yaml").write_text(text)
        return sources_of(folder.load()[label].config)

    assert len({source("mlp"), source("lenet"), source("conv4")}) == 3


def test_keys_do_not_depend_on_the_folder_and_name_the_file_as_written(folder, tmp_path):
    keys = {label: cell.key("data") for label, cell in folder.load().items()}
    other = Folder(tmp_path / "two").load()
    assert {label: cell.key("data") for label, cell in other.items()} == keys
    assert sources_of(other["kd"].config) == sources_of(folder.load()["kd"].config)
    (folder.path / "other.py").write_text(NET)
    renamed = folder.load("methods.kd.teacher.backbone.name=./other.py:make")["kd"]
    assert renamed.key("data") != keys["kd"]


def test_a_file_is_found_beside_the_experiment_file(folder, tmp_path, monkeypatch):
    """Not in the current folder, whatever lies there; relative paths of the experiment too."""
    (tmp_path / "net.py").write_text("raise ValueError('of another folder')\n")
    monkeypatch.chdir(tmp_path)
    made = experiment.load(Path("one/exp.yaml"), [])
    monkeypatch.chdir("/")
    for cell in made.cells[1:]:
        assert own_files(cell.config) == [NET.encode()]
    assert len(own_files(folder.load()["chain"].config)) == 1


def test_a_run_has_the_code_that_was_read_with_its_experiment(folder):
    """An edit afterwards, while others run, changes neither its hash nor its teacher."""
    cell = folder.load()["assistant"]
    before = sources_of(cell.config)
    (folder.path / "net.py").write_text("raise ValueError('half an edit')\n")
    assert sources_of(cell.config) == before
    assert own_files(cell.config) == [NET.encode()]


CASES = {
    "a file that is not there": (
        "methods.kd.teacher.backbone.name=./nine.py:make",
        "exp.yaml: methods.kd.teacher.backbone: ./nine.py cannot be read (No such file or directory"
        "); expected a Python file, its path relative to ",
    ),
    "a name that is not there": (
        "methods.kd.teacher.backbone.name=./net.py:mke",
        "methods.kd.teacher.backbone: ./net.py defines no class or function 'mke'; did you mean",
    ),
    "an unknown setting": (
        "methods.kd.teacher.backbone.widht=3",
        "methods.kd.teacher: unknown key 'backbone.widht'; did you mean 'width'?",
    ),
    "an assistant that is not there": (
        "methods.assistant.assistants=[{name: ./nine.py:make}]",
        "methods.assistant.teacher.backbone: ./nine.py cannot be read",
    ),
    "a network that cannot be built": (
        "methods.kd.teacher.backbone.width=-1",
        "methods.kd.teacher.backbone: backbone ./net.py:make, for images of shape (1, 8, 8): "
        "RuntimeError: Trying to create tensor with negative dimension",
    ),
    "own code that teaches a teacher": (
        "methods.kd.teacher.method={name: ./net.py:Mine}",
        "methods.kd.teacher.method.name: a teacher is taught by a method of ours, not by own code "
        "such as './net.py:Mine'; choose e.g. kd, or give the own method a row of its own",
    ),
}


@pytest.mark.parametrize(("override", "sentence"), CASES.values(), ids=CASES)
def test_what_cannot_be_used_is_one_sentence(folder, override, sentence):
    assert sentence in folder.refusal(override)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    monkeypatch.setattr(outputs, "_write_figures", lambda *args: [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_an_edit_is_seen_by_the_next_run(folder, quiet, monkeypatch, capsys):
    """From another folder: rows are marked stale, and made again they have new teachers."""
    short = FILE
    for label in ("labels", "teacher", "assistant"):
        short = short.replace(f"\n  {label}: {{", "\n  # {")
    (folder.path / "exp.yaml").write_text(short)
    monkeypatch.chdir("/")
    words = ["run", str(folder.path / "exp.yaml"), "--results", str(folder.results)]
    assert cli.main(words) == 0
    table = folder.results / "exp.md"
    assert "stale" not in table.read_text()
    assert len(list(folder.results.rglob("trained/*"))) == 2
    folder.edit()
    assert cli.main(words) == 0
    assert table.read_text().count(" (stale) |") == 2
    assert cli.main([*words, "--rerun", "stale"]) == 0
    assert "(stale" not in table.read_text() and "Traceback" not in capsys.readouterr().err
    assert len(list(folder.results.rglob("trained/*"))) == 4


def test_a_mistake_in_a_teachers_file_is_told_as_its_own(folder, quiet, capsys):
    """With file and line, as that of a student's backbone."""
    text = (
        NET
        + """
class Fails(nn.Flatten):
    def forward(self, x):
        if self.training:
            raise ValueError("no luck")
        return super().forward(x)

def fails(input_shape): return Fails()
"""
    )
    (folder.path / "net.py").write_text(text)
    words = ["run", str(folder.path / "exp.yaml"), "--results", str(folder.results)]
    kd = "{name: kd, teacher: {backbone: {name: ./net.py:fails}}}"
    assert cli.main([*words, f"methods={{kd: {kd}}}"]) == 2
    err = capsys.readouterr().err
    assert "cannot be run: ValueError: no luck (net.py, line 10)" in err and "Traceback" not in err


def test_the_version_of_timm_is_that_of_a_teachers_model_too(folder):
    pytest.importorskip("timm")
    cells = folder.load("methods.kd.teacher.backbone={name: 'timm:resnet10t'}")
    assert "timm" in plan.versions(cells["kd"].config)
    assert "timm" not in plan.versions(cells["chain"].config)
