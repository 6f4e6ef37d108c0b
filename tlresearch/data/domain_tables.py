"""The domains by name: one line each, from a name to the function that reads it.

A name that is not here is looked up in the catalogue of images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from tlresearch.data import catalogue
from tlresearch.data.class_sets import recolour, resize
from tlresearch.data.domains import Domain, Labelled
from tlresearch.errors import UserError


@dataclass(frozen=True)
class Entry:
    """What is known of a domain before it is read."""

    read: Callable[[Path | None], Domain]
    """(data root) → the domain, as it is on disk or in a package."""
    shape: tuple[int, int, int]
    """(channels, rows, columns) of an input."""
    classes: int
    fingerprint: str
    """Of its content, or of the recipe that makes it."""


DOMAINS: dict[str, Entry] = {}


def read(name: str, root: Path | None) -> Domain:
    """The domain of that name.

    Raises:
        UserError: there is none, or it is missing or damaged.
    """
    if name in DOMAINS:
        return DOMAINS[name].read(root)
    return _images(name, root)


def check(name: str) -> None:
    """Refuses an unknown name.

    Raises:
        UserError: with the nearest names.
    """
    if name not in DOMAINS:
        catalogue.entry(name)


def facts(name: str) -> tuple[tuple[int, int, int], int]:
    """Shape of an input and number of classes."""
    known = DOMAINS.get(name)
    if known is not None:
        return known.shape, known.classes
    entry = catalogue.entry(name)
    return entry.shape, entry.classes


def fingerprint(name: str) -> str:
    """That of a domain's content, before it is read."""
    return DOMAINS[name].fingerprint if name in DOMAINS else catalogue.entry(name).fingerprint


def _images(name: str, root: Path | None) -> Domain:
    """A set of the catalogue whose classes are the same in training and test."""
    if catalogue.entry(name).test_classes:
        raise UserError(f"{name} has other classes in its test part, so it is no domain")
    data = catalogue.load(name, root)
    train, test = (Labelled(part.images, part.labels) for part in (data.train, data.test))
    return Domain(name, train, test, data.class_names, data.fingerprint)


@lru_cache(maxsize=4)
def prepared(name: str, size: int | None, channels: int | None, root: Path | None) -> Domain:
    """A domain with its images resized and in grey or colour.

    Raises:
        UserError: as `read`; or features, which cannot be resized.
    """
    domain = read(name, root)
    if size is None and channels is None:
        return domain
    if domain.train.images.is_floating_point():
        raise UserError(
            f"{name} is features, not images; remove benchmark.size and benchmark.channels"
        )
    make = partial(_made, size=size, channels=channels)
    return Domain(
        domain.name,
        make(domain.train),
        domain.test and make(domain.test),
        domain.class_names,
        domain.fingerprint,
    )


def _made(part: Labelled, size: int | None, channels: int | None) -> Labelled:
    return Labelled(resize(recolour(part.images, channels), size), part.labels)
