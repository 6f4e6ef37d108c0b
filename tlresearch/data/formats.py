"""Readers of the file formats in which image data sets are published.

A reader takes a folder, gives back a train and a test `Split` in the official order, and refuses
with a `UserError` that names the file what is not whole. A `*_digest` is the hash of one file's
content: of what is inside, so that two ways of packing the same data have the same digest.
"""

import bz2
import gzip
import hashlib
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from tlresearch.data.checksums import file_digest, tensor_digest
from tlresearch.errors import UserError

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
USPS_FILES = ("usps.bz2", "usps.t.bz2")
CIFAR10_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")

UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, OverflowError),
    *(zlib.error, zipfile.BadZipFile),
)


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels; a row of one belongs to the same row of the other."""

    images: UInt8[Tensor, "n channels height width"]
    """0 … 255, on the CPU."""
    labels: Int64[Tensor, " n"]
    """0 … classes − 1."""


def damaged(path: Path, found: str, expected: str) -> UserError:
    """The error for a file that is there but is not what it should be."""
    return UserError(
        f"{path} is damaged: {found} where {expected} was expected; replace it by the original, "
        "or delete it to have it downloaded again"
    )


def present(folder: Path, name: str) -> Path | None:
    """The file of that name in a folder, plain or with `.gz` added; None if neither is there.

    A name that ends in `/` is that of a folder.
    """
    if name.endswith("/"):
        return folder / name if (folder / name).is_dir() else None
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def existing(folder: Path, name: str) -> Path:
    """The file of that name in a folder, plain or with `.gz` added; refused if it is absent."""
    path = present(folder, name)
    if path is None:
        raise UserError(f"{folder} lacks the file {name}; put it there")
    return path


def label_tensor(path: Path, values: np.ndarray, classes: int) -> Int64[Tensor, " n"]:
    """Labels as int64, refused unless every one lies in 0 … classes − 1."""
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise damaged(path, f"an array {values.dtype}{values.shape}", "one integer an image")
    if values.size and (values.min() < 0 or values.max() >= classes):
        worst = values.max() if values.max() >= classes else values.min()
        raise damaged(path, f"the label {worst}", f"a label from 0 to {classes - 1}")
    return torch.from_numpy(values.astype(np.int64))


def _idx_content(path: Path) -> bytes:
    try:
        packed = path.read_bytes()
        return gzip.decompress(packed) if path.suffix == ".gz" else packed
    except UNREADABLE as error:
        raise damaged(path, f"unreadable data ({error})", "a whole file") from error


def read_idx(path: Path, dims: int) -> np.ndarray:
    """An array of the IDX format of LeCun's MNIST page: magic, sizes, then the bytes.

    The magic is the big-endian 32-bit number 0x0800 + dims (0x08: unsigned bytes), each size a
    big-endian 32-bit number, and after the last value the file ends.

    Args:
        path: the file, unpacked first if its name ends in `.gz`.
        dims: 1 for labels, 3 for images.

    Returns:
        uint8 of the shape that the header gives.

    Raises:
        UserError: another magic, or not as many bytes as the header promises.
    """
    content, start = _idx_content(path), 4 + 4 * dims
    if len(content) < start:
        raise damaged(path, f"{len(content)} bytes", f"an IDX header of {start} bytes")
    magic, *shape = struct.unpack(f">{1 + dims}I", content[:start])
    if magic != 0x0800 + dims:
        raise damaged(path, f"magic 0x{magic:08x}", f"0x{0x0800 + dims:08x} ({dims}-d IDX bytes)")
    if len(content) - start != math.prod(shape):
        sizes = " × ".join(map(str, shape))
        raise damaged(path, f"{len(content) - start} bytes of data", f"{sizes} (its header)")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def idx_digest(path: Path) -> str:
    """SHA-256 of an IDX file's unpacked content, header included."""
    return hashlib.sha256(_idx_content(path)).hexdigest()


def read_idx_folder(folder: Path, classes: int = 10) -> tuple[Split, Split]:
    """Train and test of a folder with the four files of MNIST (`IDX_FILES`), plain or `.gz`."""
    paths = [existing(folder, name) for name in IDX_FILES]
    splits = []
    for images_path, labels_path in (paths[:2], paths[2:]):
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise damaged(labels_path, f"{len(labels)} labels", f"one for each of {len(images)}")
        pixels = torch.from_numpy(images.copy()).unsqueeze(1)
        splits.append(Split(pixels, label_tensor(labels_path, labels, classes)))
    return splits[0], splits[1]


def read_usps(path: Path, side: int = 16) -> Split:
    """One file of USPS in LIBSVM's text format, packed by bzip2.

    A line is `label 1:v 2:v … 256:v`: label 1 … 10 for the digits 0 … 9, v in [−1, 1] with −1 for
    paper. A pixel is ⌊(v + 1) / 2 · 255⌋ in float32, as in torchvision; v is first rounded to the
    three decimals of the original release, so that a copy with more of them gives the same bytes.

    Raises:
        UserError: not bzip2, a line without exactly these features, a label or a value outside.
    """
    pixels = side * side
    expected = f"lines 'label 1:value … {pixels}:value'"
    try:
        fields = np.array(bz2.decompress(path.read_bytes()).replace(b":", b" ").split(), dtype="S")
        table = fields.reshape(-1, 1 + 2 * pixels)
        labels, index = table[:, 0].astype(np.int64), table[:, 1::2].astype(np.int64)
        values = np.round(table[:, 2::2].astype(np.float64), 3)
    except UNREADABLE as error:
        raise damaged(path, f"unreadable data ({error})", expected) from error
    if not (index == np.arange(1, pixels + 1)).all():
        raise damaged(path, "a line with other features", expected)
    if not (np.abs(values) <= 1).all():
        raise damaged(path, "a value outside [-1, 1]", expected)
    images = ((values.astype(np.float32) + 1) / 2 * 255).astype(np.uint8)
    return Split(
        torch.from_numpy(images).view(-1, 1, side, side), label_tensor(path, labels - 1, classes=10)
    )


def usps_digest(path: Path) -> str:
    """SHA-256 of the decoded images and labels of one USPS file."""
    split = read_usps(path)
    return tensor_digest(split.images, split.labels)


def read_usps_folder(folder: Path) -> tuple[Split, Split]:
    """Train (`usps.bz2`) and test (`usps.t.bz2`) of USPS."""
    train, test = (read_usps(existing(folder, name)) for name in USPS_FILES)
    return train, test


def read_sheet(path: Path, side: int = 32) -> UInt8[Tensor, "n 3 side side"]:
    """Images cut, row by row, from one lossless WebP sheet of side × side tiles in RGB."""
    from PIL import Image

    try:
        with Image.open(path, formats=["WEBP"]) as sheet:
            width, height = sheet.size
            pixels = np.array(sheet.convert("RGB"))
    except (*UNREADABLE, SyntaxError, Image.DecompressionBombError) as error:
        raise damaged(path, f"unreadable data ({error})", "a WebP sheet") from error
    if width % side or height % side:
        raise damaged(path, f"a sheet of {width} × {height}", f"whole tiles of {side} × {side}")
    tiles = pixels.reshape(height // side, side, width // side, side, 3)
    return torch.from_numpy(tiles.transpose(0, 2, 4, 1, 3).reshape(-1, 3, side, side))


def read_sheet_labels(path: Path, classes: int = 10) -> tuple[Tensor, Tensor]:
    """The int64 labels `train` and `test` of an `.npz` file, read without pickle."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            train, test = arrays["train"], arrays["test"]
    except UNREADABLE as error:
        found = f"unreadable data ({error})"
        raise damaged(path, found, "an npz with train and test labels") from error
    return label_tensor(path, train, classes), label_tensor(path, test, classes)


def sheet_digest(path: Path) -> str:
    """SHA-256 of a sheet's images (batch, channel, row, column), or of a label file's labels."""
    return tensor_digest(
        *(read_sheet_labels(path) if path.suffix == ".npz" else [read_sheet(path)])
    )


def read_sheets_folder(
    folder: Path, batches: Sequence[str] = CIFAR10_BATCHES
) -> tuple[Split, Split]:
    """CIFAR-10 as one WebP sheet a batch, the last one the test set, and `labels.npz`."""
    sheets = [read_sheet(existing(folder, f"{batch}.webp")) for batch in batches]
    labels_path = existing(folder, "labels.npz")
    images = (torch.cat(sheets[:-1]), sheets[-1])
    labels = read_sheet_labels(labels_path)
    for x, y in zip(images, labels, strict=True):
        if len(x) != len(y):
            raise damaged(labels_path, f"{len(y)} labels", f"one for each of {len(x)} images")
    return Split(images[0], labels[0]), Split(images[1], labels[1])


def cifar10_batch_digest(path: Path) -> str:
    """MD5 of a file of a Python version of CIFAR: the hash under which it is published."""
    return file_digest(path, "md5")


def read_cifar10_batches(folder: Path) -> tuple[Split, Split]:
    """CIFAR-10's Python version in `folder`, which must be named `cifar-10-batches-py`."""
    from torchvision.datasets import CIFAR10

    return read_batches(folder, CIFAR10)


def read_batches(folder: Path, kind: type["CIFAR10"]) -> tuple[Split, Split]:
    """A Python version of torchvision's class `kind`, in a folder of the name that it knows.

    The files are pickles, so torchvision opens them, after comparing each with its published
    MD5: no byte of another file is ever unpickled. They are compared here first only because
    torchvision does not say which one differs.
    """
    published = [*kind.train_list, *kind.test_list]
    for name, md5 in [*published, (kind.meta["filename"], kind.meta["md5"])]:
        path = existing(folder, name)
        if cifar10_batch_digest(path) != md5:
            raise damaged(path, "another MD5", f"the published {md5}")
    splits = []
    for train in (True, False):
        data = kind(folder.parent, train=train, download=False)
        images = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
        splits.append(Split(images, torch.tensor(data.targets, dtype=torch.int64)))
    return splits[0], splits[1]
