"""Which classes a split of a data set trains on, chooses by and tests on: known without any files.

Omniglot, whose characters Lake numbers 1 … 1623 (a class is the number − 1):
- `vinyals`: the first 1,200 characters and the other 423, as in Vinyals et al., "Matching networks
  for one shot learning", NeurIPS 2016; of the 1,200, five alphabets (172) are for validation, as
  in Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017, whose
  lists of names this reproduces. Four characters of Gurmukhi are test classes, its other 41 are
  trained on.
- `lake`: background against evaluation, so that no alphabet is in two parts; the validation
  alphabets are the same five, all of which lie in the background set.
- `background`: all 964 background characters to train on, none to choose by.
- `minimal1`: instead of those 964 the five alphabets of Lake's `images_background_small1`
  (Balinese, Early Aramaic, Greek, Korean, Latin; 136 characters); again none to choose by.
- `minimal2`: the five of `images_background_small2` (156 characters); their names are read from
  that file, as nothing that we could read without it lists them.
- `maml`: 1,100, 100 and 423 characters drawn at random, the sizes of Finn, Abbeel and Levine,
  "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017. Theirs depend on
  the order in which a file system lists folders; ours are those of
  `permutation(make_key(0, "omniglot maml split", 0), 1623)`, one part after the other.

Tiny-ImageNet-32 and the glyphs have one split each, `standard`. Every set has `all`, which has all
its classes in the test part: the target of a transfer from another set.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tlresearch.data import catalogue, glyphs, omniglot
from tlresearch.data.sources import data_root
from tlresearch.errors import UserError
from tlresearch.functional.random import make_key, permutation

Parts = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""The classes to train on, to choose by and to test on."""

_ALPHABETS = {**omniglot.ALPHABETS["background"], **omniglot.ALPHABETS["evaluation"]}
_BACKGROUND, _CHARACTERS = omniglot.CHARACTERS[0], sum(omniglot.CHARACTERS)
_VINYALS_FIRST = 1200
_VALIDATION = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
_MINIMAL1 = ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin")
_MAML = (1100, 100)
_SIZES = {"tiny_imagenet32": (64, 16), "glyphs": (glyphs.TRAIN, glyphs.VALIDATION)}

_SPLITS = {
    "omniglot": ("vinyals", "lake", "background", "minimal1", "minimal2", "maml", "all"),
    "tiny_imagenet32": ("standard", "all"),
    "glyphs": ("standard", "all"),
}
SMALLEST_CLASS = {
    "mnist": 6313,
    "fashion_mnist": 7000,
    "usps": 708,
    "cifar10": 6000,
    "cifar100": 600,
    "svhn": 6254,
    "omniglot": omniglot.DRAWERS,
    "tiny_imagenet32": 250,
    "glyphs": 20,
    "optdigits": 174,
    "mnist5k": 500,
}
"""Images of the smallest class, training and test set together."""


class Facts(NamedTuple):
    """What a run needs to know of its pools before it loads them."""

    shape: tuple[int, int, int]
    """Channels, rows, columns."""
    train: int
    """Classes to train on; so for the two below."""
    validation: int
    test: int
    images: int
    """Of the smallest class."""


def split_names(dataset: str) -> tuple[str, ...]:
    """The splits of a data set, the usual one first.

    Raises:
        UserError: no such data set.
    """
    return _SPLITS.get(catalogue.entry(dataset).name, ("all",))


def check(dataset: str, split: str | None) -> str:
    """The split's name; the usual one for None.

    Raises:
        UserError: no such data set, or no such split of it; names the nearest one.
    """
    known = split_names(dataset)
    if split is None or split in known:
        return split or known[0]
    near = difflib.get_close_matches(split.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"{dataset} has no split {split!r}; {hint}it has {', '.join(known)}")


def _of(alphabets: Sequence[str]) -> list[int]:
    """The characters of some alphabets, by class."""
    first = dict(zip(_ALPHABETS, _starts(list(_ALPHABETS.values())), strict=True))
    return [c for name in alphabets for c in range(first[name], first[name] + _ALPHABETS[name])]


def _starts(sizes: list[int]) -> list[int]:
    return [sum(sizes[:place]) for place in range(len(sizes))]


def _omniglot(split: str, root: Path | None) -> Parts:
    validation, evaluation = _of(_VALIDATION), range(_BACKGROUND, _CHARACTERS)
    held = set(validation)
    match split:
        case "vinyals":
            train = [c for c in range(_VINYALS_FIRST) if c not in held]
            return train, validation, range(_VINYALS_FIRST, _CHARACTERS)
        case "lake":
            return [c for c in range(_BACKGROUND) if c not in held], validation, evaluation
        case "background":
            return range(_BACKGROUND), (), evaluation
        case "minimal1":
            return _of(_MINIMAL1), (), evaluation
        case "minimal2":
            return _of(omniglot.minimal2_alphabets(data_root(root))), (), evaluation
    order = permutation(make_key(0, "omniglot maml split", 0), _CHARACTERS).tolist()
    train, both = _MAML[0], sum(_MAML)
    return sorted(order[:train]), sorted(order[train:both]), sorted(order[both:])


def parts(dataset: str, split: str, root: Path | None = None) -> Parts:
    """The classes of the three parts, as indices into the data set's `class_names`.

    Args:
        dataset: a name of the catalogue.
        split: one of `split_names(dataset)`.
        root: the data root, where `minimal2` of Omniglot looks for its file.

    Raises:
        UserError: `minimal2`, and the file is not there.
    """
    total = catalogue.entry(dataset).classes
    if split == "all":
        return (), (), range(total)
    if dataset == "omniglot":
        return _omniglot(split, root)
    train, validation = _SIZES[dataset]
    return range(train), range(train, train + validation), range(train + validation, total)


def _sized(dataset: str, split: str) -> Parts:
    """`parts`, but of `minimal2` only the number of classes is right, which needs no file."""
    if (dataset, split) == ("omniglot", "minimal2"):
        return range(omniglot.MINIMAL_2_SIZE), (), range(_BACKGROUND, _CHARACTERS)
    return parts(dataset, split)


def groups(dataset: str) -> tuple[list[int], tuple[str, ...]]:
    """The group of each class and the groups' names: alphabets, scripts, or one for all."""
    if dataset == "glyphs":
        scripts = [glyphs.SCRIPTS.index(glyphs.script(c)) for c in glyphs.CHARACTERS]
        return scripts, tuple(name.lower() for name in glyphs.SCRIPTS)
    if dataset != "omniglot":
        return [0] * catalogue.entry(dataset).classes, ("all",)
    sizes = _ALPHABETS.values()
    return [group for group, size in enumerate(sizes) for _ in range(size)], tuple(_ALPHABETS)


def facts(
    dataset: str,
    split: str | None,
    size: int | None,
    rotations: bool,
    channels: int | None = None,
) -> Facts:
    """Shape, classes of each part and images of the smallest class, without reading any data.

    Args:
        dataset: a name of the catalogue.
        split: one of `split_names(dataset)`; None for the first of them.
        size: rows and columns; None for the data set's own.
        rotations: whether the turns by 90°, 180° and 270° are classes of their own.
        channels: 1 or 3; None for the data set's own.

    Raises:
        UserError: no such data set or split; a size below 1; channels other than 1 and 3; turns of
            images that are not square.
    """
    split = check(dataset, split)
    own, rows, columns = catalogue.entry(dataset).shape
    if size is not None and size < 1:
        raise UserError(f"images of {dataset} cannot be {size} pixels wide; give at least 1")
    if channels not in (None, 1, 3):
        raise UserError(f"images of {dataset} cannot have {channels} channels; give 1 or 3")
    if rotations and size is None and rows != columns:
        raise UserError(
            f"images of {dataset} are {rows} × {columns}, so those turned by 90° have another "
            "shape; give a size"
        )
    factor = 4 if rotations else 1
    train, validation, test = (factor * len(part) for part in _sized(dataset, split))
    shape = (channels or own, size or rows, size or columns)
    return Facts(shape, train, validation, test, SMALLEST_CLASS[dataset])
