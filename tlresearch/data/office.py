"""Office-Caltech-10: ten classes of objects, photographed for four domains.

Gong, Shi, Sha and Grauman, "Geodesic flow kernel for unsupervised domain adaptation", CVPR 2012, of
Office-31 (Saenko et al., ECCV 2010) and Caltech-256: amazon 958, caltech 1,123, dslr 157, webcam
295. There is no test part: methods are measured on the inputs that they adapt to (transductive).

`office_surf_*`: 800 counts of visual words (SURF), of which by default `zscore` is made, as Gong et
al. and all who compare with them do. `office_*`: the photographs, the largest square in the middle
of each resized to 224 x 224 (bilinear; that of the data root's is at most 224); `benchmark.size`
makes them smaller. `office_mobilenet_*`: features of a pretrained network, see `office_features`.
"""

import io
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16, UInt8
from torch import Tensor

from tlresearch.data import matfiles
from tlresearch.data.attributes import damaged
from tlresearch.data.counts import EXACT
from tlresearch.data.domain_files import Entry, File, paths, verify
from tlresearch.data.domains import Domain, Labelled
from tlresearch.data.formats import UNREADABLE

NAMES = (
    *("backpack", "bike", "calculator", "headphones", "keyboard"),
    *("laptop", "monitor", "mouse", "mug", "projector"),
)
WORDS, SIDE = 800, 224
SIZES = {"amazon": 958, "caltech": 1123, "dslr": 157, "webcam": 295}
_FOLDERS = {"amazon": "amazon", "caltech": "caltech10", "dslr": "dslr", "webcam": "webcam"}
_OBTAIN = "put the file of this project's data root there"
_SURF = {
    "amazon": "df32548b994e18d364c99e1f317e1fae100597259f0423a41b90f4f68187bb1f",
    "caltech": "4f9334c8ced489d5054de97a5fd51a61f017f3bcd1f38c9a85c6d78cb9d7bda5",
    "dslr": "44d673c68e1d07b837893aa74dba3b986e4a6cc3fd66f0dd357683bdef059216",
    "webcam": "a6a9c78b4b7181dfbb58bcfd351d4ebd737f171c31247b8884948aa156d3f700",
}
_IMAGES = {
    "amazon": "89a31e7c4ff79f737ecd5d533aae09ef52fd1edbd5c77af84628888786b704a6",
    "caltech": "ec9154242d5cc9cb238fb5f410473de1dfee6fc72bbac2cb5dbf2e748c4c8982",
    "dslr": "5c3c3275fed064a6bbd9769fa8738c9ce86bda313eed1bc6752a99f6586e7deb",
    "webcam": "73ce670ce9d4fcac0c81d54cbde3cd894fa7be7555139452eea080a61d0a8643",
}


def read_surf(path: Path, width: int = WORDS) -> tuple[Float16[Tensor, "n width"], Tensor]:
    """Counts `fts` and labels `labels` (1 … 10) of a .mat file.

    Raises:
        UserError: no such file, another width, a value that is no count, or another label.
    """
    expected = f"a .mat file with fts (n x {width}) and labels"
    counts, labels = matfiles.read(path, ("fts", "labels"), expected)
    labels = labels.ravel()
    if counts.ndim != 2 or counts.shape[1] != width:
        raise damaged(path, f"a matrix of shape {counts.shape}", f"{width} columns")
    if not len(counts):
        raise damaged(path, "an empty matrix", expected)
    if len(labels) != len(counts):
        raise damaged(path, f"{len(labels)} labels", f"one for each of {len(counts)} rows")
    sound = (counts >= 0) & (counts <= EXACT) & (counts % 1 == 0)
    if not sound.all():
        row, column = np.argwhere(~sound)[0]
        found = f"the value {counts[row, column]} in row {row}, column {column}"
        raise damaged(path, found, f"a count from 0 to {EXACT}")
    if not np.isin(labels, range(1, len(NAMES) + 1)).all():
        raise damaged(path, "a label outside 1 … 10", "labels from 1 to 10")
    return torch.from_numpy(counts.astype(np.float16)), torch.from_numpy(
        labels.astype(np.int64) - 1
    )


def read_images(path: Path, side: int = SIDE) -> tuple[UInt8[Tensor, "n 3 side side"], Tensor]:
    """Images and labels of a zip with members DOMAIN/CLASS/NAME.webp, sorted by name.

    The largest square in the middle of each, resized to side x side (Pillow, bilinear).

    Raises:
        UserError: no zip file, an empty one, another class, or a picture that cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if not name.endswith("/"))
            contents = [archive.read(name) for name in names]
    except UNREADABLE as error:
        raise damaged(path, f"unreadable data ({error})", "a zip of pictures") from error
    if not names:
        raise damaged(path, "an empty zip", "DOMAIN/CLASS/NAME.webp")
    classes = [name.split("/")[1] if name.count("/") == 2 else name for name in names]
    others = sorted(set(classes) - set(NAMES))
    if others:
        raise damaged(path, f"the class {others[0]!r}", f"one of {', '.join(NAMES)}")
    images = torch.empty(len(names), 3, side, side, dtype=torch.uint8)
    for place, (name, content) in enumerate(zip(names, contents, strict=True)):
        images[place] = _squared(path, name, content, side)
    return images, torch.tensor([NAMES.index(name) for name in classes])


def _squared(path: Path, name: str, content: bytes, side: int) -> UInt8[Tensor, "3 side side"]:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
            square = ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BILINEAR)
    except (*UNREADABLE, SyntaxError, Image.DecompressionBombError) as error:
        raise damaged(path, f"{name} is unreadable ({error})", "a WebP picture") from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def _read(name: str, root: Path | None) -> Domain:
    """Features or images: what the entry's file holds."""
    entry = ENTRIES[name]
    (path,) = paths(name, entry.files, root, _OBTAIN)
    inputs, labels = read_surf(path) if entry.counts else read_images(path)
    verify([path], entry.files)
    return Domain(
        name, Labelled(inputs.view(-1, *entry.shape), labels), None, NAMES, entry.fingerprint
    )


def _entry(name: str, domain: str, file: File, images: bool) -> Entry:
    return Entry(
        title=f"Office-Caltech-10, {domain}, {'photographs' if images else 'SURF features'}",
        read=partial(_read, name),
        shape=(3, SIDE, SIDE) if images else (WORDS, 1, 1),
        class_names=NAMES,
        sizes=(SIZES[domain], 0),
        licence="research use",
        files=(file,),
        recipe=f"office 1: square of {SIDE}" if images else "",
        counts=None if images else "zscore",
    )


def _file(domain: str, images: bool) -> File:
    folder = _FOLDERS[domain]
    if images:
        return File(f"office_caltech10/images_{folder}.zip", _IMAGES[domain])
    return File(f"office_caltech10/features/surf/{folder}.mat", _SURF[domain])


ENTRIES = {
    name: _entry(name, domain, _file(domain, images), images)
    for images, pattern in ((False, "office_surf_{}"), (True, "office_{}"))
    for domain in SIZES
    for name in [pattern.format(domain)]
}
