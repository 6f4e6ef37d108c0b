"""SVHN's files, on small ones in their layout; the real ones are not at hand."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from tlresearch.data import catalogue, domain_tables, sources, svhn
from tlresearch.data.sources import Layout
from tlresearch.errors import UserError


def write(folder: Path, name: str, n: int, labels: list[int] | None = None) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(n).integers(0, 256, (32, 32, 3, n), np.uint8)
    found = labels or [1 + i % 10 for i in range(n)]
    scipy.io.savemat(folder / name, {"X": pixels, "y": np.array(found, np.uint8).reshape(-1, 1)})
    return pixels


def test_pixels_and_labels(tmp_path: Path):
    pixels = write(tmp_path, "a.mat", 12)
    split = svhn.read_mat(tmp_path / "a.mat")
    assert split.images.shape == (12, 3, 32, 32) and split.images.dtype == torch.uint8
    for n, channel, row, column in ((0, 0, 0, 0), (3, 2, 5, 7), (11, 1, 31, 2)):
        assert split.images[n, channel, row, column] == pixels[row, column, channel, n]
    assert split.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]  # 10 stands for 0


def test_torchvision_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torchvision.datasets import SVHN

    write(tmp_path, "test_32x32.mat", 15)
    monkeypatch.setattr(SVHN, "_check_integrity", lambda self: True)
    theirs = SVHN(tmp_path, split="test")
    ours = svhn.read_mat(tmp_path / "test_32x32.mat")
    assert np.array_equal(ours.images, theirs.data) and np.array_equal(ours.labels, theirs.labels)


def test_the_published_checksums_are_torchvisions():
    from torchvision.datasets import SVHN

    theirs = [(SVHN.split_list[part][1], SVHN.split_list[part][2]) for part in ("train", "test")]
    assert list(svhn.FILES) == theirs


def test_other_files_are_refused(tmp_path: Path):
    path = tmp_path / "a.mat"
    for labels, words in (([0, 1], "the label 10"), ([1, 11], "the label 11")):
        write(tmp_path, "a.mat", 2, labels)
        with pytest.raises(UserError, match=words):
            svhn.read_mat(path)
    for arrays, words in (
        ({"X": np.zeros((32, 32, 1, 2), np.uint8), "y": [1, 2]}, "images uint8"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": [1, 2]}, "images float64"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [1, 2, 3]}, "3 labels where one for each"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "unreadable data"),
    ):
        scipy.io.savemat(path, arrays)
        with pytest.raises(UserError, match=words):
            svhn.read_mat(path)
    path.unlink()
    with pytest.raises(UserError, match=r"lacks the file a\.mat"):
        svhn.read_mat(path)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root whose SVHN has 20 + 10 images, pinned by their MD5."""
    files = []
    for (name, _), n in zip(svhn.FILES, (20, 10), strict=True):
        write(tmp_path / "SVHN", name, n)
        files.append((name, hashlib.md5((tmp_path / "SVHN" / name).read_bytes()).hexdigest()))
    dataset = replace(
        catalogue.DATASETS["svhn"],
        train_size=20,
        test_size=10,
        fingerprint=catalogue._of_files(files),
        layouts=(Layout("SVHN", tuple(files), svhn.read_folder, svhn.digest),),
    )
    monkeypatch.setitem(catalogue.DATASETS, "svhn", dataset)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    catalogue._read_place.cache_clear()
    return tmp_path


def test_the_catalogue_knows_it_by_its_files(small: Path):
    data = catalogue.load("svhn", small)
    assert data.fingerprint == catalogue.DATASETS["svhn"].fingerprint
    assert data.train.images.shape == (20, 3, 32, 32) and len(data.test.labels) == 10
    domain = domain_tables.read("svhn", small)
    assert domain.class_names == tuple("0123456789") and domain.test is not None
    write(small / "SVHN", "test_32x32.mat", 10, [3] * 10)
    catalogue._read_place.cache_clear()
    with pytest.raises(UserError, match=r"test_32x32\.mat is damaged: content with the hash"):
        catalogue.load("svhn", small)


def test_a_download_asks_torchvision_for_both_splits(small: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def download(root: str, download: bool, split: str) -> None:
        asked.append((split, download))
        name = f"{split}_32x32.mat"
        (Path(root) / name).write_bytes((small / "SVHN" / name).read_bytes())

    monkeypatch.setattr("torchvision.datasets.SVHN", download)
    dataset = catalogue.DATASETS["svhn"]
    here = replace(dataset.layouts[0], folder=".")
    dataset = replace(dataset, layouts=(dataset.layouts[0], here))
    monkeypatch.setitem(catalogue.DATASETS, "svhn", dataset)
    place = sources.fetch(dataset, None)
    assert asked == [("train", True), ("test", True)]
    assert place.folder == small / "cache/tlresearch" and not place.missing()
    assert len(catalogue.load("svhn", small / "none", download=False).train.labels) == 20
