"""Street View House Numbers, the cropped digits.

Netzer et al., "Reading digits in natural images with unsupervised feature learning", NIPS Workshop
2011; `train_32x32.mat` and `test_32x32.mat` of their page, as torchvision downloads them. The files
are pinned by their published MD5: no copy was at hand when this was written, so there is no digest
of the content, as other sets have.
"""

from pathlib import Path

import numpy as np
import torch

from tlresearch.data import matfiles
from tlresearch.data.checksums import file_digest
from tlresearch.data.formats import Split, damaged, label_tensor
from tlresearch.errors import UserError

FILES = (
    ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
    ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
)
"""Published MD5, as in torchvision."""


def read_mat(path: Path) -> Split:
    """`X` (32, 32, 3, n), uint8, and `y` 1 … 10, where 10 stands for the digit 0.

    Raises:
        UserError: the file is missing or no such file.
    """
    expected = "a .mat file with X (32 x 32 x 3 x n, uint8) and y"
    if not path.is_file():
        raise UserError(f"{path.parent} lacks the file {path.name}; put it there")
    pixels, labels = matfiles.read(path, ("X", "y"), expected)
    labels = labels.ravel()
    if pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3) or pixels.dtype != np.uint8:
        raise damaged(path, f"images {pixels.dtype}{pixels.shape}", expected)
    if len(labels) != pixels.shape[3]:
        raise damaged(path, f"{len(labels)} labels", f"one for each of {pixels.shape[3]} images")
    digits = np.where(labels == 10, 0, np.where(labels == 0, 10, labels))  # a 0 is none
    images = np.ascontiguousarray(pixels.transpose(3, 2, 0, 1))
    return Split(torch.from_numpy(images), label_tensor(path, digits, classes=10))


def read_folder(folder: Path) -> tuple[Split, Split]:
    """Train and test."""
    train, test = (read_mat(folder / name) for name, _ in FILES)
    return train, test


def digest(path: Path) -> str:
    """The MD5 under which a file is published."""
    return file_digest(path, "md5")
