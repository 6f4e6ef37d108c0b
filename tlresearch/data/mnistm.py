"""MNIST-M: MNIST's digits on patches of photographs.

Ganin and Lempitsky, arXiv:1409.7495, section 4.1: I_ijk = |I¹_ijk − I²_ijk| of a digit and of a
patch of BSDS500, on the three channels alike.

`mnistm` takes the patches from the 200 training photographs of BSDS500 under the data root;
`mnistm_bundled` from six photographs that Python packages carry: china and flower of scikit-learn,
astronaut, chelsea, coffee and rocket of scikit-image. The name says which, and so does each record.

Differs from the paper: the published file drew patches of its own, so that images differ one by one
from it, not in distribution. A photograph is drawn first, then a place in it, uniformly, by the
keys of (0, "mnistm"); which photographs the authors used for which part is not stated, so both
parts draw from all.
"""

import importlib.util
import io
import zipfile
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from tlresearch.data import catalogue
from tlresearch.data.attributes import damaged
from tlresearch.data.domain_files import Entry, File, digest, paths, verify
from tlresearch.data.domains import Domain, Labelled
from tlresearch.data.formats import UNREADABLE
from tlresearch.data.sources import data_root
from tlresearch.errors import UserError
from tlresearch.functional import random

SIDE, _CHUNK = 28, 256
_BSDS = File(
    "BSDS500/train.zip", "2f1d5843f1b46f2fc8390f738c3931c7c509e984f43f91bc4abe0d3878446efa"
)
_BUNDLED = (
    (
        "sklearn/datasets/images/china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
    ),
    (
        "sklearn/datasets/images/flower.jpg",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
    ),
    (
        "skimage/data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
    (
        "skimage/data/chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    ),
    (
        "skimage/data/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    ),
    (
        "skimage/data/rocket.jpg",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    ),
)
"""Files in packages, and their SHA-256."""


def blend(
    digits: UInt8[Tensor, "n 1 side side"],
    photographs: Sequence[UInt8[Tensor, "_rows _columns 3"]],
    key: random.Key,
) -> UInt8[Tensor, "n 3 side side"]:
    """|digit − patch| on each channel, a patch drawn for each digit.

    Args:
        digits: 0 … 255.
        photographs: of any sizes, at least as large as a digit.
        key: one key; sub-streams 0, 1, 2 draw photograph, row and column.
    """
    side, n = digits.shape[-1], len(digits)
    chosen = random.integers(random.fold(key, 0), len(photographs), (n,))
    sizes = torch.tensor([photograph.shape[:2] for photograph in photographs])
    rows, columns = sizes[chosen].unbind(1)
    row = random.bits(random.fold(key, 1), (n,)) % (rows - side + 1)
    column = random.bits(random.fold(key, 2), (n,)) % (columns - side + 1)
    pixels = torch.cat([photograph.reshape(-1) for photograph in photographs])
    # Row i: the 3 · side numbers from pixel i on, side by side as they are in a line of a patch.
    runs = pixels.as_strided((len(pixels) // 3 - side + 1, 3 * side), (3, 1))
    start = sizes.prod(1).cumsum(0) - sizes.prod(1)
    corner = start[chosen] + row * columns + column
    blended = torch.empty(n, 3, side, side, dtype=torch.uint8)
    steps = torch.arange(side)
    for part in torch.arange(n).split(_CHUNK):
        lines = corner[part, None] + steps * columns[part, None]
        patches = runs[lines].view(-1, side, side, 3).permute(0, 3, 1, 2).contiguous()
        digit = digits[part]
        # Greater less smaller: a difference of uint8 that is below 0 would wrap around.
        blended[part] = torch.maximum(digit, patches) - torch.minimum(digit, patches)
    return blended


def _decoded(path: Path, content: bytes) -> UInt8[Tensor, "rows columns 3"]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["JPEG", "PNG"]) as image:
            pixels = np.array(image.convert("RGB"))
    except (*UNREADABLE, SyntaxError, Image.DecompressionBombError) as error:
        raise damaged(path, f"a photograph is unreadable ({error})", "a JPEG or PNG") from error
    if min(pixels.shape[:2]) < SIDE:
        found = f"a photograph of {pixels.shape[0]} x {pixels.shape[1]}"
        raise damaged(path, found, f"at least {SIDE} x {SIDE} pixels")
    return torch.from_numpy(pixels)


def read_zip(path: Path) -> list[UInt8[Tensor, "rows columns 3"]]:
    """The photographs of a zip file, by name.

    Raises:
        UserError: no zip file, one without photographs, or one that cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if not name.endswith("/"))
            contents = [archive.read(name) for name in names]
    except UNREADABLE as error:
        raise damaged(path, f"unreadable data ({error})", "a zip of photographs") from error
    if not contents:
        raise damaged(path, "an empty zip", "a zip of photographs")
    return [_decoded(path, content) for content in contents]


def bsds500(root: Path | None) -> list[UInt8[Tensor, "rows columns 3"]]:
    """The training photographs of BSDS500, by name.

    Raises:
        UserError: the file is missing or another one.
    """
    (path,) = paths(
        "mnistm",
        [_BSDS],
        root,
        "put the training photographs of BSDS500 there, or use mnistm_bundled, which takes "
        "photographs that come with scikit-learn and scikit-image",
    )
    photographs = read_zip(path)
    verify([path], [_BSDS])
    return photographs


def bundled(root: Path | None) -> list[UInt8[Tensor, "rows columns 3"]]:
    """The six photographs of scikit-learn and scikit-image, in the order of `_BUNDLED`.

    Raises:
        UserError: a package is not installed, or has another file.
    """
    photographs = []
    for name, sha256 in _BUNDLED:
        package, _, inside = name.partition("/")
        path = _package_folder(package) / inside
        if not path.is_file() or digest(path) != sha256:
            raise UserError(
                f"mnistm_bundled: {path} is not the photograph that was expected (SHA-256 "
                f"{sha256[:12]}…); install another version of {package}, or use mnistm"
            )
        photographs.append(_decoded(path, path.read_bytes()))
    return photographs


def _package_folder(package: str) -> Path:
    """Where a package is installed; found without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        known = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
        raise UserError(
            f"mnistm_bundled takes photographs of {known}, which is not installed; pip install "
            f"{known}, or put BSDS500/train.zip under the data root and use mnistm"
        )
    return Path(found.submodule_search_locations[0])


_PHOTOGRAPHS: dict[str, Callable[[Path | None], list[Tensor]]] = {
    "mnistm": bsds500,
    "mnistm_bundled": bundled,
}


def _read(name: str, root: Path | None) -> Domain:
    return _made(name, data_root(root))


@lru_cache(maxsize=2)
def _made(name: str, root: Path | None) -> Domain:
    """165 MB of images and 2 s of work, so it is kept."""
    photographs = _PHOTOGRAPHS[name](root)
    mnist = catalogue.load("mnist", root)
    parts = [
        Labelled(blend(part.images, photographs, random.make_key(0, "mnistm", i)), part.labels)
        for i, part in enumerate((mnist.train, mnist.test))
    ]
    return Domain(name, parts[0], parts[1], mnist.class_names, ENTRIES[name].fingerprint)


_RECIPE = "mnistm 1: photograph, row and column by the keys of (0, mnistm, part)"
ENTRIES = {
    "mnistm": Entry(
        title="MNIST-M, on photographs of BSDS500",
        read=partial(_read, "mnistm"),
        shape=(3, SIDE, SIDE),
        class_names=tuple("0123456789"),
        sizes=(60_000, 10_000),
        licence="CC BY-SA 3.0; photographs: research use",
        files=(_BSDS,),
        recipe=_RECIPE,
        made_of=("mnist",),
    ),
    "mnistm_bundled": Entry(
        title="MNIST-M, on photographs of scikit-learn and scikit-image",
        read=partial(_read, "mnistm_bundled"),
        shape=(3, SIDE, SIDE),
        class_names=tuple("0123456789"),
        sizes=(60_000, 10_000),
        licence="CC BY-SA 3.0; photographs: free",
        recipe=_RECIPE,
        made_of=("mnist",),
        packages=_BUNDLED,
    ),
}
