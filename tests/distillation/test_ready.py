"""The experiments that need a GPU: the lengths of their recipes, and a few steps on noise here."""

import csv
import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tlresearch import cli, experiment
from tlresearch.data import catalogue
from tlresearch.training import device

FOLDER = Path(__file__).parents[2] / "experiments/distillation"
CIFAR100 = FOLDER / "cifar100_resnet56_resnet20.yaml"
CIFAR10 = FOLDER / "cifar10_resnet56_to_20_full.yaml"
FEW = [
    *("seeds=[0]", "train.steps=2", "train.batch_size=4", "methods.CRD.negatives=32"),
    # The maps of a teacher of two steps are huge: its running statistics are not yet theirs.
    "methods.FitNets.weight=1e-9",
]


@pytest.mark.parametrize(
    ("file", "epochs", "drops"), [(CIFAR100, 240, [150, 180, 210]), (CIFAR10, 200, [100, 150])]
)
def test_the_length_is_that_of_the_published_recipe(file: Path, epochs: int, drops: list[int]):
    """In epochs of all 50,000 images, of which none is held out."""
    header = experiment.load(file).header
    train = header.train
    assert train["steps"] * train["batch_size"] == epochs * 50_000
    assert [m * epochs for m in train["milestones"]] == drops
    assert header.benchmark["validation"] == 0 and header.benchmark["shift"] == 4


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with the binary version of 104 + 8 images, which the catalogue has pinned."""
    generator, files = np.random.default_rng(0), []
    folder = tmp_path / "data/cifar-100-binary"
    folder.mkdir(parents=True)
    for name, count in (("train.bin", 104), ("test.bin", 8)):
        records = generator.integers(0, 256, (count, 2 + 3 * 32 * 32), np.uint8)
        records[:, 0], records[:, 1] = 0, np.arange(count) % 100
        (folder / name).write_bytes(records.tobytes())
        files.append((name, hashlib.sha256(records.tobytes()).hexdigest()))
    entry = catalogue.DATASETS["cifar100"]
    layout = replace(entry.layouts[1], files=tuple(files))
    small = replace(entry, train_size=104, test_size=8, layouts=(layout,))
    monkeypatch.setitem(catalogue.DATASETS, "cifar100", small)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    return tmp_path / "data"


def test_every_row_of_cifar100_takes_steps(small: Path, tmp_path: Path, capsys):
    """By the user's command: the teacher is trained, all students are taught and measured."""
    results = tmp_path / "results"
    places = ["--data", str(small), "--results", str(results), "--device", "cpu"]
    assert cli.main(["run", str(CIFAR100), *places, *FEW]) == 0
    out = capsys.readouterr().out
    assert "71.16" in out and "DKD 71.97" in out
    (table,) = results.rglob("*.csv")
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    header = experiment.load(CIFAR100).header
    for method in header.methods:
        means = {row["metric"]: row["mean"] for row in rows if row["method"] == method}
        undefined = {metric for metric in header.metrics if not means[metric]}
        alone = method in ("labels", "ResNet-56 (teacher)")
        assert undefined == ({"agreement", "kl_teacher"} if alone else set()), method
        assert all(math.isfinite(float(value)) for value in means.values() if value), method
