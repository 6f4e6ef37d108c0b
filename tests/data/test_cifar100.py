"""CIFAR-100's files, on small ones in both published layouts; the real ones are not at hand."""

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tlresearch.data import catalogue, cifar100
from tlresearch.data.sources import Layout
from tlresearch.errors import UserError

GEN = np.random.default_rng(0)
FINE = {"train": [0, 99, 19, 49, 7], "test": [3, 98]}
PIXELS = {part: GEN.integers(0, 256, (len(y), 3, 32, 32), np.uint8) for part, y in FINE.items()}


def records(fine: list[int], pixels: np.ndarray, coarse: int = 19) -> bytes:
    """By hand: a byte of the coarse label, one of the fine label, red, green, blue by rows."""
    return b"".join(
        bytes([coarse, label]) + image.tobytes() for label, image in zip(fine, pixels, strict=True)
    )


def write_binary(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, labels in FINE.items():
        (folder / f"{part}.bin").write_bytes(records(labels, PIXELS[part]))


def write_python(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, labels in FINE.items():
        rows = PIXELS[part].reshape(len(labels), -1)
        content = {"data": rows, "fine_labels": labels, "coarse_labels": [0] * len(labels)}
        (folder / part).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": list(cifar100.NAMES)}))


def pinned(folder: Path, algorithm: str) -> tuple[tuple[str, str], ...]:
    """Each file with its hash as it is."""
    return tuple(
        (path.name, hashlib.new(algorithm, path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir(), key=lambda p: -len(p.name))
    )


def test_records_are_read_by_channel_row_and_column(tmp_path: Path):
    write_binary(tmp_path)
    train, test = cifar100.read_binary(tmp_path)
    assert train.images.dtype == torch.uint8 and train.labels.dtype == torch.int64
    for part, split in (("train", train), ("test", test)):
        np.testing.assert_array_equal(split.images.numpy(), PIXELS[part])
        assert split.labels.tolist() == FINE[part]
    raw = (tmp_path / "train.bin").read_bytes()
    assert train.images[1, 2, 3, 4] == raw[3074 + 2 + 2 * 1024 + 3 * 32 + 4]


def test_other_files_are_refused(tmp_path: Path):
    path, one = tmp_path / "train.bin", PIXELS["test"][:1]
    for content, words in (
        (b"", "0 bytes where whole records of 3,074 bytes"),
        (records([5], one)[:-1], "3,073 bytes where whole records"),
        (records([5], one) + b"\0", "3,075 bytes where whole records"),
        (b"\5" + one.tobytes(), "3,073 bytes where whole records"),  # a record of CIFAR-10
        (records([100], one), "the label 100 where a label from 0 to 99"),
        (records([5], one, coarse=20), "the label 20 where a label from 0 to 19"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=words) as caught:
            cifar100.read_records(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"lacks the file test\.bin"):
        path.write_bytes(records([5], one))
        cifar100.read_binary(tmp_path)


def test_the_published_checksums_and_names_are_torchvisions():
    from torchvision.datasets import CIFAR100

    theirs = [*CIFAR100.train_list, *CIFAR100.test_list]
    meta = CIFAR100.meta
    assert [list(x) for x in cifar100.PYTHON] == [*theirs, [meta["filename"], meta["md5"]]]
    entry = catalogue.DATASETS["cifar100"]
    assert entry.layouts[0].folder == CIFAR100.base_folder
    assert sorted(cifar100.NAMES) == list(cifar100.NAMES)  # as in fine_label_names.txt
    assert (cifar100.NAMES[19], cifar100.NAMES[49]) == ("cattle", "mountain")


@pytest.fixture
def torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the Python version of the small set, which torchvision takes for the real."""
    from torchvision.datasets import CIFAR100

    folder = tmp_path / "python" / "cifar-100-python"
    write_python(folder)
    md5 = dict(pinned(folder, "md5"))
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5["meta"]})
    return folder


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.mkdir, (self.path,)  # type: ignore[return-value]


def test_the_python_version_is_the_same_and_unpickled_only_with_its_md5(
    tmp_path: Path, torchvisions: Path
):
    write_binary(tmp_path / "binary")
    ours_of = cifar100.read_binary(tmp_path / "binary")
    for theirs, ours in zip(cifar100.read_python(torchvisions), ours_of, strict=True):
        assert torch.equal(theirs.images, ours.images) and torch.equal(theirs.labels, ours.labels)
    for name in ("train", "test", "meta"):
        whole = (torchvisions / name).read_bytes()
        (torchvisions / name).write_bytes(pickle.dumps(Hostile(tmp_path / "executed")))
        with pytest.raises(UserError, match=f"{name} is damaged: another MD5"):
            cifar100.read_python(torchvisions)
        (torchvisions / name).write_bytes(whole)
    assert not (tmp_path / "executed").exists()


@pytest.fixture
def small(tmp_path: Path, torchvisions: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The catalogue's CIFAR-100 has 5 + 2 images; the binary version lies in the root returned."""
    root = tmp_path / "root"
    write_binary(root / "cifar-100-binary")
    entry = catalogue.DATASETS["cifar100"]
    files = (
        pinned(torchvisions, "md5"),
        pinned(root / "cifar-100-binary", "sha256"),
    )
    layouts = tuple(replace(a, files=b) for a, b in zip(entry.layouts, files, strict=True))
    small = replace(
        entry,
        train_size=5,
        test_size=2,
        layouts=layouts,
        fingerprint=catalogue._of_files(files[0]),
    )
    monkeypatch.setitem(catalogue.DATASETS, "cifar100", small)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return root


def of_files(layout: Layout) -> str:
    return catalogue._of_files(layout.files)


def test_the_catalogue_knows_each_version_by_its_files(small: Path, torchvisions: Path):
    python, binary = catalogue.DATASETS["cifar100"].layouts
    first = catalogue.load("cifar100", small)
    second = catalogue.load("cifar100", torchvisions.parent)
    assert first.found.endswith("cifar-100-binary") and first.fingerprint == of_files(binary)
    assert second.found.endswith("cifar-100-python") and second.fingerprint == of_files(python)
    assert torch.equal(first.train.images, second.train.images)
    rows = [row for row in catalogue.verify(small) if row["dataset"] == "cifar100"]
    assert [(Path(r["file"]).name, r["status"]) for r in rows] == [
        ("train.bin", "ok"),
        ("test.bin", "ok"),
    ]


def test_other_content_of_either_version_is_refused(small: Path):
    path = small / "cifar-100-binary/test.bin"
    path.write_bytes(records(FINE["test"][::-1], PIXELS["test"]))
    catalogue._read_place.cache_clear()
    with pytest.raises(UserError, match=r"test\.bin is damaged: content with the hash"):
        catalogue.load("cifar100", small)
    rows = {Path(r["file"]).name: r["status"] for r in catalogue.verify(small)}
    assert (rows["train.bin"], rows["test.bin"]) == ("ok", "differs")


def test_it_is_downloaded_in_the_python_version(
    small: Path, torchvisions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from torchvision.datasets import CIFAR100

    asked = []

    def download(self: CIFAR100) -> None:
        asked.append(self.train)
        write_python(Path(self.root) / "cifar-100-python")

    monkeypatch.setattr(CIFAR100, "download", download)
    data = catalogue.load("cifar100", tmp_path / "nothing")
    assert asked == [True, False]
    assert data.found == str(tmp_path / "cache/tlresearch/cifar-100-python")
    assert data.fingerprint == catalogue.DATASETS["cifar100"].fingerprint
    with pytest.raises(UserError, match=r"CIFAR-100 \(cifar100\) is not in .* unpack cifar-100-py"):
        (tmp_path / "cache/tlresearch/cifar-100-python/meta").unlink()
        catalogue.load("cifar100", tmp_path / "nothing", download=False)
