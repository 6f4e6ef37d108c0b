"""Attribute files as they are published: Animals with Attributes 2, and CUB-200-2011.

AwA2: Xian, Lampert, Schiele and Akata, arXiv:1707.00600; the folder `Animals_with_Attributes2`.
CUB: Wah, Branson, Welinder, Perona and Belongie, Caltech CNS-TR-2011-001, 2011; the folder
`CUB_200_2011`, whose archive has `attributes.txt` beside it.

They describe classes. Features of images, with the splits that are compared in papers, come from
`data.xian`, whose attributes are these with rows of length 1.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.errors import UserError


@dataclass(frozen=True, eq=False)
class AttributeTable:
    """What is known of each class."""

    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    values: Float[Tensor, "classes attributes"]
    """float64, as the file has them: percentages, of people who saw the attribute."""
    train_classes: tuple[int, ...] = ()
    """Rows; empty where the source has no split."""
    test_classes: tuple[int, ...] = ()
    """Rows, none of `train_classes`; empty where the source has no split."""


def damaged(path: Path, found: str, expected: str) -> UserError:
    """The error for a file that is there but is not what it should be, and is not downloaded."""
    return UserError(
        f"{path} is damaged: {found} where {expected} was expected; replace it by the original"
    )


def read_awa2(folder: Path) -> AttributeTable:
    """The continuous attributes of AwA2 and its split into training and test classes.

    Reads `classes.txt`, `predicates.txt`, `predicate-matrix-continuous.txt`, `trainclasses.txt` and
    `testclasses.txt`.

    Raises:
        UserError: a file is missing, damaged, or does not fit the others.
    """
    classes = _numbered(folder / "classes.txt")
    attributes = _numbered(folder / "predicates.txt")
    path = folder / "predicate-matrix-continuous.txt"
    values = _matrix(path, len(classes), len(attributes))
    train = _places(folder / "trainclasses.txt", classes)
    test = _places(folder / "testclasses.txt", classes)
    both = sorted(set(train) & set(test))
    if both:
        name = classes[both[0]]
        raise damaged(folder / "testclasses.txt", f"the training class {name!r}", "others")
    return AttributeTable(classes, attributes, values, train, test)


def read_cub(folder: Path) -> AttributeTable:
    """The continuous class attributes of CUB; it has no official split into classes.

    Reads `classes.txt`, `attributes/class_attribute_labels_continuous.txt`, and `attributes.txt` in
    the folder itself, in `attributes`, or beside the folder.

    Raises:
        UserError: a file is missing, damaged, or does not fit the others.
    """
    classes = _numbered(folder / "classes.txt")
    candidates = [folder / "attributes.txt", folder / "attributes" / "attributes.txt"]
    candidates.append(folder.parent / "attributes.txt")
    path = next((p for p in candidates if p.is_file()), candidates[0])
    attributes = _numbered(path)
    values = folder / "attributes" / "class_attribute_labels_continuous.txt"
    return AttributeTable(classes, attributes, _matrix(values, len(classes), len(attributes)))


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path.parent} lacks the file {path.name}; put it there") from None
    except (OSError, ValueError) as error:
        raise damaged(path, f"unreadable data ({error})", "lines of text") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _numbered(path: Path) -> tuple[str, ...]:
    """The names of lines `number name`, whose numbers count from 1."""
    names = []
    for i, line in enumerate(_lines(path), start=1):
        number, _, name = line.replace("\t", " ").partition(" ")
        if number != str(i) or not name.strip():
            raise damaged(path, f"the line {line[:40]!r}", f"'{i} NAME', counted from 1")
        names.append(name.strip())
    if len(set(names)) < len(names) or not names:
        raise damaged(path, f"{len(set(names))} names in {len(names)} lines", "one for each line")
    return tuple(names)


def _matrix(path: Path, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    """Numbers divided by spaces, one class a line."""
    lines = [line.split() for line in _lines(path)]
    widths = sorted({len(line) for line in lines})
    if len(lines) != rows or widths != [columns]:
        found = f"{len(lines)} lines of {' or '.join(map(str, widths))} numbers"
        raise damaged(path, found, f"{rows} classes of {columns} attributes")
    try:
        values = torch.tensor([[float(v) for v in line] for line in lines], dtype=torch.float64)
    except ValueError as error:
        raise damaged(path, f"a word ({error})", "numbers") from None
    if not values.isfinite().all():
        raise damaged(path, "NaN or infinity", "finite numbers")
    return values


def _places(path: Path, classes: tuple[str, ...]) -> tuple[int, ...]:
    """Rows of the classes that a file names, one a line, in its order."""
    names = _lines(path)
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise damaged(path, f"the class {unknown[0]!r}", "names of classes.txt")
    if len(set(names)) < len(names):
        raise damaged(path, "a class twice", "each once")
    return tuple(classes.index(name) for name in names)
