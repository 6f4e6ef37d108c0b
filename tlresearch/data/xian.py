"""Xian's files: features of images, attributes, and splits in which no unseen class was pretrained.

Xian, Lampert, Schiele and Akata, arXiv:1707.00600; `xlsa17.zip` of their page. A folder of it, such
as `xlsa17/data/AWA2`, holds `res101.mat` (2048 numbers an image, of a ResNet-101 that was trained
on ImageNet) and `att_splits.mat` (attributes and the proposed split). Both count from 1.

`train_loc` and `val_loc`, by which hyperparameters are to be chosen, reach into `test_seen_loc` in
published files (3,404 images of AWA1) and are not in others. They only say here which seen classes
are for validation; without them `valclasses1.txt` does. The images are those of `trainval_loc`.
"""

import functools
import hashlib
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlresearch.data.attributes import damaged
from tlresearch.data.checksums import file_digest
from tlresearch.data.sources import DATA_VARIABLE, data_root
from tlresearch.data.zero_shot import ZeroShotData, ZeroShotSplit, check_split
from tlresearch.errors import UserError

PREFIX = "xian:"
FOLDERS = {"awa1": "AWA1", "awa2": "AWA2", "cub": "CUB", "sun": "SUN", "apy": "APY"}
"""Name of a data set: its folder in xlsa17/data."""
FEATURES, SPLITS, VALIDATION = "res101.mat", "att_splits.mat", "valclasses1.txt"
PARTS = ("trainval_loc", "test_seen_loc", "test_unseen_loc")

_UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, NotImplementedError),
    *(OverflowError, zlib.error, struct.error),
)
"""What scipy raises on files that are no .mat files, cut short, or of version 7.3 (HDF5)."""


def is_xian(name: str) -> bool:
    """Whether a data set's name means such a folder."""
    return name in FOLDERS or name.startswith(PREFIX)


def folder_of(name: str, root: Path | None = None) -> Path:
    """Where the files of a data set lie.

    Args:
        name: a key of `FOLDERS`, which lies under the data root, or `xian:FOLDER`.
        root: the data root; None: where the environment says.

    Raises:
        UserError: no data root, or a file is not there.
    """
    if name.startswith(PREFIX):
        folder = Path(name.removeprefix(PREFIX)).expanduser()
    else:
        chosen = data_root(root)
        if chosen is None:
            raise UserError(
                f"{name} is read from ROOT/xlsa17/data/{FOLDERS[name]}, but neither --data nor "
                f"{DATA_VARIABLE} names a ROOT; unpack xlsa17.zip there, or use {PREFIX}FOLDER"
            )
        folder = chosen / "xlsa17" / "data" / FOLDERS[name]
    lacking = [file for file in (FEATURES, SPLITS) if not (folder / file).is_file()]
    if lacking:
        raise UserError(
            f"{name}: {folder} lacks {' and '.join(lacking)}; unpack xlsa17.zip of Xian et al. "
            f"(arXiv:1707.00600) into ROOT, or give the folder as {PREFIX}FOLDER"
        )
    return folder


def fingerprint(name: str, root: Path | None = None) -> str:
    """SHA-256 of the files, without reading what they mean."""
    folder = folder_of(name, root)
    paths = [path for file in (FEATURES, SPLITS, VALIDATION) if (path := folder / file).is_file()]
    digests = [_digest(path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


@functools.lru_cache(maxsize=16)
def _digest(path: Path, size: int, time: int) -> str:
    """Of a file as it is now; read once."""
    return file_digest(path, "sha256")


def load(name: str, root: Path | None = None) -> ZeroShotData:
    """Features, attributes and the proposed split; kept in memory for the next call.

    Raises:
        UserError: a file is missing, damaged, or does not fit the other.
    """
    return _load(name, folder_of(name, root), fingerprint(name, root))


@functools.lru_cache(maxsize=2)
def _load(name: str, folder: Path, digest: str) -> ZeroShotData:
    features, labels = _features(folder / FEATURES)
    path = folder / SPLITS
    raw = _mat(path, ("att", "allclasses_names", "val_loc", *PARTS), ("att", *PARTS))
    attributes, names = _attributes(path, raw)
    classes = len(attributes)
    if labels.min() < 0 or labels.max() >= classes:
        worst = labels.min().item() + 1 if labels.min() < 0 else labels.max().item() + 1
        raise damaged(folder / FEATURES, f"the label {worst}", f"a label from 1 to {classes}")
    split = ZeroShotSplit(*(_indices(path, key, raw[key], len(labels)) for key in PARTS))
    if "val_loc" in raw:
        images = _indices(path, "val_loc", raw["val_loc"], len(labels))
        validation = tuple(labels[images].unique().tolist())
    else:
        validation = _named(folder / VALIDATION, names)
    check_split(labels, split, validation, str(path))
    return ZeroShotData(
        name=name,
        inputs=features.view(*features.shape, 1, 1),
        labels=labels,
        attributes=attributes,
        class_names=names,
        attribute_names=tuple(f"attribute {i}" for i in range(attributes.shape[1])),
        split=split,
        validation_classes=validation,
        found=str(folder),
        fingerprint=digest,
    )


def sizes(name: str, root: Path | None = None) -> tuple[tuple[int, int, int], int]:
    """Shape of an input, (dim, 1, 1), and how many classes there are; from the files' heads.

    Raises:
        UserError: a file is missing or no such file.
    """
    folder = folder_of(name, root)
    dim, _ = _shape(folder / FEATURES, "features")
    _, classes = _shape(folder / SPLITS, "att")
    return (dim, 1, 1), classes


def _shape(path: Path, key: str) -> tuple[int, int]:
    import scipy.io

    try:
        shapes = {name: shape for name, shape, _ in scipy.io.whosmat(str(path))}
        rows, columns = shapes[key]
    except (*_UNREADABLE, scipy.io.matlab.MatReadError) as error:
        raise _unreadable(path, error, f"a .mat file with the matrix {key}") from error
    return rows, columns


def _mat(path: Path, keys: Iterable[str], required: Iterable[str]) -> dict[str, Any]:
    """Those of the arrays of a .mat file that it has."""
    import scipy.io

    expected = f"a .mat file with {', '.join(required)}"
    try:
        raw = scipy.io.loadmat(str(path), variable_names=list(keys))
    except (*_UNREADABLE, scipy.io.matlab.MatReadError) as error:
        raise _unreadable(path, error, expected) from error
    lacking = [key for key in required if key not in raw]
    if lacking:
        raise damaged(path, f"a file without {', '.join(lacking)}", expected)
    return {key: raw[key] for key in keys if key in raw}


def _unreadable(path: Path, error: Exception, expected: str) -> UserError:
    what = " ".join(str(error).split())[:120] or type(error).__name__
    return damaged(path, f"unreadable data ({what})", expected)


def _numbers(path: Path, key: str, value: Any, dimensions: int) -> np.ndarray:
    """A numeric array of so many dimensions, all of it finite."""
    array = np.asarray(value)
    if dimensions == 1 and array.ndim == 2 and 1 in array.shape:
        array = array.ravel()
    if array.dtype.kind not in "iuf" or array.ndim != dimensions or not array.size:
        found = f"{key} as an array {array.dtype}{array.shape}"
        raise damaged(path, found, "a matrix of numbers" if dimensions == 2 else "a row of numbers")
    if not np.isfinite(array).all():
        raise damaged(path, f"{key} with NaN or infinity", "finite numbers")
    return array


def _features(path: Path) -> tuple[Tensor, Tensor]:
    """Features, (n, dim), and labels counted from 0."""
    raw = _mat(path, ("features", "labels"), ("features", "labels"))
    features = _numbers(path, "features", raw["features"], 2).T.astype(np.float32)
    labels = _whole(path, "labels", raw["labels"])
    if len(labels) != len(features):
        raise damaged(path, f"{len(labels)} labels", f"one for each of {len(features)} images")
    return torch.from_numpy(np.ascontiguousarray(features)), torch.from_numpy(labels - 1)


def _attributes(path: Path, raw: dict[str, Any]) -> tuple[Tensor, tuple[str, ...]]:
    """Attributes, (classes, attributes), with rows of length 1 in the published files; names."""
    values = _numbers(path, "att", raw["att"], 2).T.astype(np.float64)
    cells = np.asarray(raw.get("allclasses_names", [])).ravel()
    names = tuple(str(np.asarray(cell).ravel()[0]) for cell in cells if np.asarray(cell).size)
    names = names or tuple(f"class {c + 1}" for c in range(len(values)))
    if len(names) != len(values):
        raise damaged(path, f"{len(names)} class names", f"one for each of {len(values)} columns")
    return torch.from_numpy(np.ascontiguousarray(values)), names


def _whole(path: Path, key: str, value: Any) -> np.ndarray:
    array = _numbers(path, key, value, 1)
    if (array != np.floor(array)).any():
        raise damaged(path, f"{key} with fractions", "whole numbers from 1")
    return array.astype(np.int64)


def _indices(path: Path, key: str, value: Any, images: int) -> Tensor:
    """Indices of images, counted from 0 where the file counts from 1."""
    array = _whole(path, key, value)
    if array.min() < 1 or array.max() > images:
        worst = array.min() if array.min() < 1 else array.max()
        found = f"{key} with the image {worst}"
        raise damaged(path, found, f"a number from 1 to {images}, as MATLAB counts")
    return torch.from_numpy(array - 1)


def _named(path: Path, names: tuple[str, ...]) -> tuple[int, ...]:
    """The classes whose names stand in a file, one a line."""
    try:
        wanted = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path.parent / SPLITS} has no val_loc, and {path} cannot be read ({error}); put "
            f"{path.name} of xlsa17.zip there, which names the validation classes"
        ) from None
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise damaged(path, f"the class {unknown[0]!r}", "names of allclasses_names")
    return tuple(sorted(names.index(name) for name in wanted))
