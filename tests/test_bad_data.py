"""Malformed data files under a data root: one sentence that names the file, exit code 2."""

import bz2
import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlresearch import cli
from tlresearch.data import catalogue, formats
from tlresearch.training import device

FILE = """
family: continual
benchmark: {dataset: mnist, tasks: 2}
backbone: {name: mlp, hidden: [8]}
methods: {naive: {name: naive}}
train: {steps: 3, batch_size: 8}
seeds: [0]
"""
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = formats.IDX_FILES


def idx(*shape: int, data: bytes | None = None, magic: int = 0) -> bytes:
    """An IDX file by hand; zeros, unless `data` is given."""
    header = struct.pack(f">{1 + len(shape)}I", magic or 0x800 + len(shape), *shape)
    return header + (bytes(int(np.prod(shape, dtype=object))) if data is None else data)


def picture(kind: str, width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind, lossless=True)
    return buffer.getvalue()


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def usps(line: str, times: int = 2) -> bytes:
    return bz2.compress(f"{line}\n".encode() * times)


LINE = " ".join(["3", *(f"{i}:0.5" for i in range(1, 257))])
MNIST = {
    TRAIN_IMAGES: idx(4, 28, 28),
    TRAIN_LABELS: idx(4),
    TEST_IMAGES: idx(2, 28, 28),
    TEST_LABELS: idx(2),
}
USPS = {"usps.bz2": usps(LINE), "usps.t.bz2": usps(LINE)}
SHEETS = {
    **{f"{batch}.webp": picture("WEBP", 32, 64) for batch in formats.CIFAR10_BATCHES},
    "labels.npz": npz(train=np.zeros(10, np.int64), test=np.zeros(2, np.int64)),
}
BATCHES = dict.fromkeys([*formats.CIFAR10_BATCHES, "batches.meta"], b"\x80\x04}.")
RECORDS = {"train.bin": bytes(3074) * 4, "test.bin": bytes(3074)}
SETS = {
    "MNIST/raw": ("mnist", MNIST),
    "USPS": ("usps", USPS),
    "cifar10": ("cifar10", SHEETS),
    "cifar-10-batches-py": ("cifar10", BATCHES),
    "cifar-100-binary": ("cifar100", RECORDS),
}
PACKED = gzip.compress(MNIST[TRAIN_LABELS])

CASES: dict[str, tuple[str, str, bytes | None, str]] = {
    # what is wrong: folder, file, its content (None: absent), words of the sentence
    "idx empty": ("MNIST/raw", TRAIN_IMAGES, b"", "0 bytes where an IDX header"),
    "idx header cut": ("MNIST/raw", TRAIN_LABELS, b"\0\0\x08\x01\0", "5 bytes where an IDX header"),
    "idx truncated": ("MNIST/raw", TEST_IMAGES, MNIST[TEST_IMAGES][:-1], "2 × 28 × 28"),
    "idx too long": ("MNIST/raw", TEST_LABELS, MNIST[TEST_LABELS] + b"\0", "3 bytes of data"),
    "idx magic": ("MNIST/raw", TRAIN_LABELS, idx(4, magic=0x803), "magic 0x00000803"),
    "idx of floats": ("MNIST/raw", TRAIN_IMAGES, idx(4, 28, 28, magic=0xD03), "0x00000d03"),
    "idx labels as images": ("MNIST/raw", TRAIN_IMAGES, MNIST[TRAIN_LABELS] * 9, "magic"),
    "idx text": ("MNIST/raw", TRAIN_IMAGES, b"<html>404 not found</html>", "magic 0x3c68746d"),
    "idx count huge": ("MNIST/raw", TEST_IMAGES, idx(2**32 - 1, 2**32 - 1, 1, data=b"x"), "× 1"),
    "idx count negative": ("MNIST/raw", TEST_LABELS, idx(2**31, data=b"12"), "2 bytes of data"),
    "idx no labels": ("MNIST/raw", TEST_LABELS, idx(0), "0 labels where one for each of 2"),
    "idx counts differ": ("MNIST/raw", TRAIN_LABELS, idx(5), "5 labels where one for each of 4"),
    "idx label 10": ("MNIST/raw", TEST_LABELS, idx(2, data=b"\x03\x0a"), "the label 10"),
    "idx label 255": ("MNIST/raw", TRAIN_LABELS, idx(4, data=b"\0\0\xff\0"), "the label 255"),
    "idx other size": ("MNIST/raw", TRAIN_IMAGES, idx(4, 14, 56), "content with the hash"),
    "idx other set": ("MNIST/raw", TRAIN_IMAGES, MNIST[TRAIN_IMAGES], "content with the hash"),
    "idx absent": ("MNIST/raw", TEST_LABELS, None, f"lacks {TEST_LABELS}"),
    "gz text": ("MNIST/raw", f"{TRAIN_LABELS}.gz", b"not gzip at all", "unreadable data"),
    "gz empty": ("MNIST/raw", f"{TRAIN_LABELS}.gz", b"", "is damaged"),
    "gz truncated": ("MNIST/raw", f"{TRAIN_LABELS}.gz", PACKED[:-4], "unreadable data"),
    "gz checksum": ("MNIST/raw", f"{TRAIN_LABELS}.gz", PACKED[:-8] + b"\0" * 8, "unreadable data"),
    "gz with rubbish": ("MNIST/raw", f"{TRAIN_LABELS}.gz", PACKED + b"rubbish", "unreadable data"),
    "usps text": ("USPS", "usps.bz2", LINE.encode(), "unreadable data"),
    "usps empty": ("USPS", "usps.bz2", b"", "content with the hash"),
    "usps truncated": ("USPS", "usps.bz2", usps(LINE, 50)[:-9], "is damaged"),
    "usps no lines": ("USPS", "usps.bz2", bz2.compress(b""), "content with the hash"),
    "usps line cut": ("USPS", "usps.bz2", usps(LINE[:-6]), "unreadable data"),
    "usps label 0": ("USPS", "usps.bz2", usps("0" + LINE[1:]), "the label -1"),
    "usps label 11": ("USPS", "usps.bz2", usps("11" + LINE[1:]), "the label 10"),
    "usps label text": ("USPS", "usps.bz2", usps("x" + LINE[1:]), "unreadable data"),
    "usps label huge": ("USPS", "usps.bz2", usps("9" * 40 + LINE[1:]), "is damaged"),
    "usps value 2": ("USPS", "usps.t.bz2", usps(LINE.replace("7:0.5", "7:2", 1)), "outside"),
    "usps value nan": ("USPS", "usps.t.bz2", usps(LINE.replace(" 7:0.5", " 7:nan")), "outside"),
    "usps twice a feature": ("USPS", "usps.bz2", usps(LINE.replace(" 7:", " 8:")), "features"),
    "usps not ascii": ("USPS", "usps.bz2", bz2.compress(b"\xff\xfe" * 99), "is damaged"),
    "webp text": ("cifar10", "data_batch_2.webp", b"not a picture", "unreadable data"),
    "webp empty": ("cifar10", "test_batch.webp", b"", "unreadable data"),
    "webp is a png": ("cifar10", "test_batch.webp", picture("PNG", 32, 64), "a WebP sheet"),
    "webp cut": ("cifar10", "test_batch.webp", SHEETS["test_batch.webp"][:20], "is damaged"),
    "webp no tiles": ("cifar10", "test_batch.webp", picture("WEBP", 33, 64), "33 × 64"),
    "npz more": ("cifar10", "labels.npz", npz(train=[0] * 10, test=[0] * 3), "one for each of 2"),
    "npz text": ("cifar10", "labels.npz", b"train,test", "unreadable data"),
    "npz empty": ("cifar10", "labels.npz", b"", "unreadable data"),
    "npz cut": ("cifar10", "labels.npz", SHEETS["labels.npz"][:200], "unreadable data"),
    "npz without test": ("cifar10", "labels.npz", npz(train=np.zeros(10, int)), "train and test"),
    "npz of objects": ("cifar10", "labels.npz", npz(train=np.array([{}]), test=[0]), "unreadable"),
    "npz of floats": ("cifar10", "labels.npz", npz(train=np.zeros(3), test=[0, 1]), "float64(3,)"),
    "npz matrix": ("cifar10", "labels.npz", npz(train=[[0] * 10], test=[0, 1]), "(1, 10)"),
    "npz scalar": ("cifar10", "labels.npz", npz(train=3, test=[0, 1]), "one integer an image"),
    "npz label 10": ("cifar10", "labels.npz", npz(train=[10] * 10, test=[0, 1]), "the label 10"),
    "npz label -1": ("cifar10", "labels.npz", npz(train=[-1] * 10, test=[0, 1]), "the label -1"),
    "npz fewer": ("cifar10", "labels.npz", npz(train=[0] * 9, test=[0, 1]), "9 labels where one"),
    "npy": ("cifar10", "labels.npz", b"\x93NUMPY\x01\0", "is damaged"),
    "pickle": ("cifar-10-batches-py", "data_batch_1", b"cos\nabort\n(tR.", "another MD5"),
    "pickle empty": ("cifar-10-batches-py", "data_batch_1", b"", "another MD5"),
    "records empty": ("cifar-100-binary", "test.bin", b"", "0 bytes where whole records"),
    "records cut": ("cifar-100-binary", "train.bin", bytes(3074 * 4 - 1), "12,295 bytes where"),
    "records label 100": ("cifar-100-binary", "test.bin", b"\0\x64" + bytes(3072), "label 100"),
    "records of others": ("cifar-100-binary", "train.bin", bytes(3074), "content with the hash"),
    "records absent": ("cifar-100-binary", "test.bin", None, "lacks test.bin"),
}  # fmt: skip


@pytest.fixture
def refused(tmp_path: Path, monkeypatch, capsys) -> Callable[..., str]:
    """What the command says of a data root; the results folder must not be made."""

    def offline(*_: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(catalogue, "fetch", offline)
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "exp.yaml").write_text(FILE)

    def refused_(dataset: str) -> str:
        words = ["run", str(tmp_path / "exp.yaml"), f"benchmark.dataset={dataset}"]
        root, results = tmp_path / "data", tmp_path / "results"
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        code = cli.main([*words, "--data", str(root), "--results", str(results)])
        err = capsys.readouterr().err
        assert code == 2 and not results.exists() and not (tmp_path / "cache").exists()
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
        assert err.startswith("tlresearch: ") and err.count("\n") == 1 and len(err) < 1500
        assert "Traceback" not in err
        return err

    return refused_


def lay_out(folder: Path, contents: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("name", CASES)
def test_bad_data_is_one_sentence_that_names_the_file(name: str, tmp_path: Path, refused):
    """All other files of the set are well-formed."""
    where, file, content, expected = CASES[name]
    folder, (dataset, contents) = tmp_path / "data" / where, SETS[where]
    lay_out(folder, contents)
    (folder / file.removesuffix(".gz")).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    err = refused(dataset)
    assert expected in err and file.removesuffix(".gz") in err


def test_a_folder_in_the_place_of_a_file_is_a_file_that_is_absent(tmp_path: Path, refused):
    lay_out(tmp_path / "data/MNIST/raw", MNIST)
    (tmp_path / "data/MNIST/raw" / TRAIN_IMAGES).unlink()
    (tmp_path / "data/MNIST/raw" / TRAIN_IMAGES).mkdir()
    assert f"lacks {TRAIN_IMAGES}" in refused("mnist")


def test_a_picture_of_absurd_size_is_refused(tmp_path: Path, refused, monkeypatch):
    """Pillow's guard against decompression bombs raises an error of its own kind."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    lay_out(tmp_path / "data/cifar10", SHEETS)
    assert "data_batch_1.webp is damaged" in refused("cifar10")
