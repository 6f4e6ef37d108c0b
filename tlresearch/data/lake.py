"""Lake's one-shot challenge: classification within an alphabet, of which nothing was learned from.

Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program
induction", Science 350(6266), 2015, and their progress report, Current Opinion in Behavioral
Sciences 29, 2019 (arXiv:1902.03477). Twenty published runs: in each, 20 characters of one alphabet
of the evaluation set, drawn once by one person (`training/classNN.png`); which of them is each of
20 drawings by another person (`test/itemNN.png`)? `class_labels.txt` pairs a test item with its
class, in this order. Beside them as many episodes within an alphabet as one likes, where each
drawing has a drawer of its own.

Episodes are given as indices into the images of a pool of classes, as `episodes.Pool.draw` does.
"""

import functools
import hashlib
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from tlresearch.data import catalogue, omniglot
from tlresearch.data.class_sets import ClassSet
from tlresearch.data.episodes import Pool
from tlresearch.data.formats import UNREADABLE
from tlresearch.data.sources import DATA_VARIABLE, data_root
from tlresearch.errors import UserError
from tlresearch.functional import random

RUNS, WAYS = 20, 20
FILE = "all_runs.zip"
SOURCE = "https://github.com/brendenlake/omniglot/tree/master/python/one-shot-classification"
_LARGEST = 2**16
"""Bytes of the largest member that is read; the published ones have at most 980."""


class Runs(NamedTuple):
    """The drawings of the published runs, 255 for ink; those of a class are at the same place."""

    support: UInt8[Tensor, "runs ways 1 side side"]
    query: UInt8[Tensor, "runs ways 1 side side"]


def published_runs(
    classes: ClassSet, root: Path | None = None
) -> Int64[Tensor, "runs ways samples"]:
    """The 20 runs as episodes: of each class its one shot, then its one query.

    Every drawing is found bit for bit in the evaluation set, so that a run shows the images of
    `classes` themselves, whatever size they have.

    Args:
        classes: a pool that has the characters of Omniglot's evaluation set, such as the test
            part of its split `lake`; turned ones may be among them.
        root: the data root, as for `catalogue.load`.

    Returns:
        Indices into `classes.images`, of shape (20, 20, 2).

    Raises:
        UserError: `all_runs.zip` or Omniglot are not there or damaged, or `classes` lacks a
            character of the runs.
    """
    characters, drawers = _places(data_root(root))
    names = omniglot.class_names("evaluation")
    known = {name.removesuffix("/rot000"): c for c, name in enumerate(classes.names)}
    absent = {names[c] for c in characters.unique().tolist()} - known.keys()
    if absent:
        raise UserError(
            f"Lake's runs show {len(absent)} characters that are not among the test classes, such "
            f"as {min(absent)}; choose a split of omniglot that is tested on the whole evaluation "
            "set, such as lake, background or minimal1"
        )
    place = torch.tensor([known.get(name, -1) for name in names])
    return classes.first[place[characters]] + drawers


@functools.lru_cache(maxsize=2)
def _places(
    root: Path | None,
) -> tuple[Int64[Tensor, "runs ways samples"], Int64[Tensor, "runs ways samples"]]:
    """Character (from 0, in the evaluation set) and drawer (from 0) of every drawing."""
    path = find_runs(root)
    runs = read_runs(path)
    drawings = catalogue.load("omniglot", root, keep=False).test.images
    places = find_drawings(torch.stack(runs, 2), drawings, path)
    characters = places // omniglot.DRAWERS
    check_runs(characters, path)
    return characters, places % omniglot.DRAWERS


def find_runs(root: Path | None) -> Path:
    """The file with the published runs.

    Raises:
        UserError: it is nowhere; says how to get it.
    """
    root = data_root(root)
    places = [root / folder / FILE for folder in ("omniglot", "omniglot-py")] if root else []
    for path in places:
        if path.is_file():
            return path
    tried = f"looked at {', '.join(map(str, places))}" if places else f"{DATA_VARIABLE} is not set"
    raise UserError(
        f"Lake's one-shot runs are not here ({tried}); get {FILE} from {SOURCE} and put it into "
        "the folder omniglot of the data root"
    )


def read_runs(path: Path) -> Runs:
    """The drawings of `all_runs.zip`, which is not unpacked; each query beside its own class.

    Raises:
        UserError: not such an archive, or one of its files is missing or is not what it should be.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            runs = [_read_run(archive, path, f"run{run:02d}") for run in range(1, RUNS + 1)]
    except UNREADABLE as error:
        raise _damaged(path, f"unreadable data ({error})", "a zip archive") from error
    support, query = (torch.stack(part) for part in zip(*runs, strict=True))
    return Runs(support, query)


def _read_run(
    archive: zipfile.ZipFile, path: Path, run: str
) -> tuple[UInt8[Tensor, "ways 1 side side"], UInt8[Tensor, "ways 1 side side"]]:
    """The drawings of the classes, and of the test item of each."""
    classes = [f"{run}/training/class{n:02d}.png" for n in range(1, WAYS + 1)]
    items = [f"{run}/test/item{n:02d}.png" for n in range(1, WAYS + 1)]
    name = f"{run}/class_labels.txt"
    try:
        pairs = [line.split() for line in _member(archive, path, name).decode().splitlines()]
        item_of = {class_: item for item, class_ in pairs}
    except ValueError:  # other bytes than text, or other than two words in a line
        item_of = {}
    if sorted(item_of) != classes or sorted(item_of.values()) != items:
        raise _damaged(path / name, "other text", f"{WAYS} lines 'item class' with each file once")
    support = [_drawing(archive, path, name) for name in classes]
    query = [_drawing(archive, path, item_of[name]) for name in classes]
    return torch.stack(support), torch.stack(query)


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> bytes:
    """A file of the archive, if it is not far larger than any that was published."""
    try:
        size = archive.getinfo(name).file_size
        if size > _LARGEST:
            raise _damaged(path / name, f"a file of {size} bytes", f"one of at most {_LARGEST}")
        return archive.read(name)
    except KeyError:
        raise _damaged(path, f"no member {name}", "one for each drawing and run") from None
    except (*UNREADABLE, RuntimeError) as error:  # RuntimeError: encrypted, unknown compression
        raise _damaged(path / name, f"unreadable data ({error})", "a file") from error


def _drawing(archive: zipfile.ZipFile, path: Path, name: str) -> UInt8[Tensor, "1 side side"]:
    """A drawing as ink; its size is looked at before anything is unpacked."""
    from PIL import Image

    expected = f"a PNG of {omniglot.SIDE} × {omniglot.SIDE}"
    content = io.BytesIO(_member(archive, path, name))
    try:
        with Image.open(content, formats=["PNG"]) as image:
            if image.size != (omniglot.SIDE, omniglot.SIDE):
                found = f"a picture of {image.size[0]} × {image.size[1]}"
                raise _damaged(path / name, found, expected)
            paper = np.asarray(image.convert("L"))
    except (*UNREADABLE, SyntaxError, Image.DecompressionBombError) as error:
        raise _damaged(path / name, f"unreadable data ({error})", expected) from error
    return torch.from_numpy(255 - paper).unsqueeze(0)


def _damaged(path: Path, found: str, expected: str) -> UserError:
    return UserError(
        f"{path} is damaged: {found} where {expected} was expected; replace {FILE} by the "
        f"original from {SOURCE}"
    )


def find_drawings(
    drawings: UInt8[Tensor, "*some channels rows columns"],
    pool: UInt8[Tensor, "images channels rows columns"],
    path: Path,
) -> Int64[Tensor, "*some"]:
    """Where each drawing stands in the pool, bit for bit.

    Raises:
        UserError: one is not in it; `path` is the file it is from.
    """
    known = {_digest(image): place for place, image in enumerate(pool)}
    places = [known.get(_digest(image), -1) for image in drawings.flatten(0, -4)]
    if -1 in places:
        found = f"{places.count(-1)} drawings that Omniglot's evaluation set does not have"
        raise _damaged(path, found, "one of its own each")
    return torch.tensor(places).view(drawings.shape[:-3])


def _digest(image: Tensor) -> bytes:
    return hashlib.sha256(image.numpy().tobytes()).digest()


def check_runs(characters: Int64[Tensor, "runs ways samples"], path: Path) -> None:
    """Refuses runs whose pairs are of two characters, or that show a character twice.

    Raises:
        UserError: names the first such run.
    """
    for run, (support, query) in enumerate(characters.transpose(1, 2), 1):
        if not support.equal(query):
            found = f"a pair of two characters in run{run:02d}"
            raise _damaged(path, found, "a test item and its class of one character")
        if len(support.unique()) < len(support):
            raise _damaged(path, f"a character twice in run{run:02d}", "each once")


def within_groups(
    classes: ClassSet, keys: Int64[Tensor, "*episodes"], ways: int, samples: int
) -> Int64[Tensor, "*episodes ways samples"]:
    """Episodes whose classes are all of one group, such as an alphabet.

    The group is uniform over those of the pool, then come distinct classes of it, then distinct
    images of each; an episode is a pure function of its key.

    Args:
        classes: the pool.
        keys: one for each episode, of any shape.
        ways: N.
        samples: shots + queries of a class.

    Returns:
        Indices into `classes.images`.

    Raises:
        UserError: a group has fewer classes than ways, or a class fewer images than samples.
    """
    check_groups(classes, ways, samples)
    sizes = classes.groups.bincount()
    order, ends = classes.groups.argsort(stable=True), sizes.cumsum(0)
    present = sizes.nonzero().squeeze(1)
    group = present[random.integers(random.fold(keys, 2), len(present), ())]
    place = random.distinct(random.fold(keys, 0), sizes[group], ways)
    chosen = order[(ends - sizes)[group].unsqueeze(-1) + place]
    return Pool.of(classes).draw_images(keys, chosen, samples)


def check_groups(classes: ClassSet, ways: int, samples: int) -> None:
    """Refuses episodes that some group cannot give; `within_groups` says how."""
    sizes = classes.groups.bincount(minlength=len(classes.group_names)).tolist()
    size, smallest = min(
        (size, name) for size, name in zip(sizes, classes.group_names, strict=True) if size
    )
    if ways > size:
        raise UserError(
            f"{ways} ways within a group, but {smallest} has {size} "
            f"class{'es' * (size != 1)} here; ask for at most {size}, or choose another split"
        )
    images = int(classes.count.min())
    if samples > images:
        raise UserError(
            f"{samples} shots and queries of a class, but the smallest has {images} images; ask "
            f"for at most {images} together"
        )
