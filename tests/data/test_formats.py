"""Readers against hand-packed files, torchvision's own readers, and every kind of damage."""

import bz2
import gzip
import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlresearch.data import formats
from tlresearch.errors import UserError

GEN = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    """The IDX format by hand: magic, big-endian sizes, bytes."""
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, packed: bool = False) -> list[np.ndarray]:
    """Five train and three test images of 2 × 3; returns the four arrays in the files' order."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = []
    for n in (5, 3):
        arrays += [GEN.integers(0, 256, (n, 2, 3), np.uint8), GEN.integers(0, 10, n, np.uint8)]
    for name, array in zip(formats.IDX_FILES, arrays, strict=True):
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return arrays


def usps_line(label: int, values: np.ndarray) -> str:
    return " ".join([str(label), *(f"{i}:{v:g}" for i, v in enumerate(values, 1))]) + "\n"


def write_usps(path: Path, labels: list[int], values: np.ndarray) -> None:
    lines = [usps_line(label, row) for label, row in zip(labels, values, strict=True)]
    path.write_bytes(bz2.compress("".join(lines).encode()))


def write_sheets(folder: Path, images: np.ndarray, labels: np.ndarray) -> list[str]:
    """Batches of four images (n, 3, 32, 32) as 64 × 64 sheets, the last one the test set."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"batch{i}" for i in range(len(images) // 4)]
    for name, (a, b, c, d) in zip(names, images.reshape(-1, 4, 3, 32, 32), strict=True):
        sheet = np.concatenate([np.concatenate([a, b], 2), np.concatenate([c, d], 2)], 1)
        picture = Image.fromarray(np.ascontiguousarray(sheet.transpose(1, 2, 0)))
        picture.save(folder / f"{name}.webp", lossless=True)
    np.savez(folder / "labels.npz", train=labels[:-4], test=labels[-4:])
    return names


@pytest.mark.parametrize("packed", [False, True])
def test_idx_folder_gives_back_what_was_packed(tmp_path: Path, packed: bool):
    arrays = write_mnist(tmp_path, packed)
    for split, (images, labels) in zip(
        formats.read_idx_folder(tmp_path), (arrays[:2], arrays[2:]), strict=True
    ):
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        np.testing.assert_array_equal(split.images.numpy(), images[:, None])
        np.testing.assert_array_equal(split.labels.numpy(), labels)


def test_idx_digest_is_of_the_unpacked_bytes(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"content"))
    expected = hashlib.sha256(b"content").hexdigest()
    assert formats.idx_digest(tmp_path / "a") == formats.idx_digest(tmp_path / "a.gz") == expected


def test_damaged_idx_names_the_file_and_what_was_expected(tmp_path: Path):
    good = idx(np.arange(24, dtype=np.uint8).reshape(4, 2, 3))
    packed = gzip.compress(good)
    flipped = bytearray(packed)
    flipped[-6] ^= 1  # in the CRC
    for name, content, message in [
        ("magic", b"\0\0\x08\x01" + good[4:], "magic 0x00000801 where 0x00000803"),
        ("short", good[:-1], "23 bytes of data where 4 × 2 × 3"),
        ("long", good + b"\0", "25 bytes of data where 4 × 2 × 3"),
        ("count", good[:4] + struct.pack(">I", 5) + good[8:], "where 5 × 2 × 3"),
        ("header", good[:9], "9 bytes where an IDX header of 16 bytes"),
        ("truncated.gz", packed[: len(packed) // 2], "unreadable data"),
        ("flipped.gz", bytes(flipped), "unreadable data"),
        ("not.gz", good, "unreadable data"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            formats.read_idx(tmp_path / name, 3)
        assert str(tmp_path / name) in str(caught.value)
    (tmp_path / "whole.gz").write_bytes(packed)
    assert formats.read_idx(tmp_path / "whole.gz", 3)[3, 1, 2] == 23


def test_idx_labels_must_fit_images_and_classes(tmp_path: Path):
    write_mnist(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx(np.array([1, 10, 2], np.uint8)))
    with pytest.raises(UserError, match=r"t10k-labels.*label 10 where a label from 0 to 9"):
        formats.read_idx_folder(tmp_path)
    labels.write_bytes(idx(np.array([1, 2], np.uint8)))
    with pytest.raises(UserError, match=r"t10k-labels.*2 labels where one for each of 3"):
        formats.read_idx_folder(tmp_path)
    labels.unlink()
    with pytest.raises(UserError, match="lacks the file t10k-labels-idx1-ubyte"):
        formats.read_idx_folder(tmp_path)


def test_usps_equals_torchvision(tmp_path: Path):
    """Every value of three decimals, −1 … 1, gives torchvision's pixel."""
    from torchvision.datasets import USPS

    values = np.resize(np.arange(-1000, 1001) / 1000, (8, 256))
    write_usps(tmp_path / "usps.bz2", [1, 2, 3, 4, 5, 6, 7, 10], values)
    write_usps(tmp_path / "usps.t.bz2", [8, 9], values[:2])
    for train, split in zip((True, False), formats.read_usps_folder(tmp_path), strict=True):
        theirs = USPS(tmp_path, train=train, download=False)
        np.testing.assert_array_equal(split.images[:, 0].numpy(), theirs.data)
        assert split.labels.tolist() == theirs.targets


def test_usps_ignores_noise_below_a_thousandth(tmp_path: Path):
    """0.999999 is the 1 of the original release: white 255, not 254."""
    (tmp_path / "noisy.bz2").write_bytes(
        bz2.compress(
            usps_line(1, np.ones(256)).replace(":1 ", ":0.999999 ").encode()
            + usps_line(2, -np.ones(256)).replace(":-1 ", ":-1.000002 ").encode()
        )
    )
    assert formats.read_usps(tmp_path / "noisy.bz2").images.flatten(1).unique().tolist() == [0, 255]


def test_damaged_usps_is_refused(tmp_path: Path):
    path, ones = tmp_path / "usps.bz2", np.ones(256)
    line = usps_line(3, ones)
    for text, message in [
        (usps_line(11, ones), "label 10 where a label from 0 to 9"),
        (usps_line(0, ones), "label -1 where"),
        (line.replace("256:1", "256:1.01"), r"outside \[-1, 1\]"),
        (line.replace("256:1", "256:nan"), r"outside \[-1, 1\]"),
        (line.replace("256:1", "257:1"), "other features"),
        (line.replace(" 256:1", ""), "unreadable data"),
        (line.replace("256:1", "256:one"), "unreadable data"),
    ]:
        path.write_bytes(bz2.compress(text.encode()))
        with pytest.raises(UserError, match=message) as caught:
            formats.read_usps(path)
        assert str(path) in str(caught.value)
    path.write_bytes(bz2.compress((line * 50).encode())[:-5])
    with pytest.raises(UserError, match="unreadable data"):
        formats.read_usps(path)


def test_sheets_give_back_the_tiles_row_by_row(tmp_path: Path):
    images = GEN.integers(0, 256, (12, 3, 32, 32), np.uint8)
    labels = GEN.integers(0, 10, 12)
    train, test = formats.read_sheets_folder(tmp_path, write_sheets(tmp_path, images, labels))
    np.testing.assert_array_equal(torch.cat([train.images, test.images]).numpy(), images)
    assert train.labels.tolist() == labels[:8].tolist()
    assert test.labels.tolist() == labels[8:].tolist()
    content = hashlib.sha256(images[8:].tobytes()).hexdigest()
    assert formats.sheet_digest(tmp_path / "batch2.webp") == content
    content = hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()
    assert formats.sheet_digest(tmp_path / "labels.npz") == content


def test_damaged_sheets_are_refused(tmp_path: Path):
    images = GEN.integers(0, 256, (8, 3, 32, 32), np.uint8)
    names = write_sheets(tmp_path, images, np.arange(8))
    np.savez(tmp_path / "labels.npz", train=np.arange(3), test=np.arange(4))
    with pytest.raises(UserError, match=r"labels.npz.*3 labels where one for each of 4 images"):
        formats.read_sheets_folder(tmp_path, names)
    np.savez(tmp_path / "labels.npz", train=np.arange(4))
    with pytest.raises(UserError, match=r"labels.npz.*train and test labels"):
        formats.read_sheets_folder(tmp_path, names)
    np.savez(tmp_path / "labels.npz", train=np.arange(4), test=np.full(4, 0.5))
    with pytest.raises(UserError, match=r"labels.npz.*float64.*one integer an image"):
        formats.read_sheets_folder(tmp_path, names)

    sheet = tmp_path / "batch0.webp"
    whole = sheet.read_bytes()
    sheet.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"batch0.webp is damaged: unreadable"):
        formats.read_sheet(sheet)
    Image.new("RGB", (64, 50)).save(sheet, lossless=True)
    with pytest.raises(UserError, match=r"64 × 50 where whole tiles of 32 × 32"):
        formats.read_sheet(sheet)
    Image.new("RGB", (64, 64)).save(tmp_path / "png.png")
    with pytest.raises(UserError, match="a WebP sheet"):
        formats.read_sheet(tmp_path / "png.png")


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_label_file_is_never_unpickled(tmp_path: Path):
    hostile = np.array([Hostile(tmp_path / "executed")], dtype=object)
    np.savez(tmp_path / "labels.npz", train=hostile, test=hostile)
    with pytest.raises(UserError, match=r"labels\.npz"):
        formats.read_sheet_labels(tmp_path / "labels.npz")
    assert not (tmp_path / "executed").exists()


def write_batches(folder: Path, images: np.ndarray, labels: np.ndarray) -> dict[str, str]:
    """CIFAR-10's pickles of one image a batch; returns the MD5 by name."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        name: {"data": image.reshape(1, -1), "labels": [int(label)]}
        for name, image, label in zip(formats.CIFAR10_BATCHES, images, labels, strict=True)
    }
    contents["batches.meta"] = {"label_names": ["a"]}  # type: ignore[assignment]
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    return {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in contents}


def test_cifar10_batches_are_unpickled_only_with_their_md5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    images = GEN.integers(0, 256, (6, 3, 32, 32), np.uint8)
    md5 = write_batches(folder, images, np.arange(6))
    with pytest.raises(UserError, match=r"data_batch_1 is damaged: another MD5 .*c99cafc15224"):
        formats.read_cifar10_batches(folder)

    monkeypatch.setattr(CIFAR10, "train_list", [[n, md5[n]] for n in list(md5)[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})
    train, test = formats.read_cifar10_batches(folder)
    np.testing.assert_array_equal(train.images.numpy(), images[:5])
    np.testing.assert_array_equal(test.images.numpy(), images[5:])
    assert train.labels.tolist() == [0, 1, 2, 3, 4] and test.labels.tolist() == [5]

    for name in md5:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(pickle.dumps(Hostile(tmp_path / "executed")))
        with pytest.raises(UserError, match=f"{name} is damaged: another MD5"):
            formats.read_cifar10_batches(folder)
        (folder / name).write_bytes(whole)
    assert not (tmp_path / "executed").exists()
