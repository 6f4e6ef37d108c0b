"""The domains by name: one line each, from a name to the function that reads it.

A name that is not here is looked up in the catalogue of images.
"""

import dataclasses
import difflib
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tlresearch.data import amazon, catalogue, mnistm, moons, office, office_features
from tlresearch.data.class_sets import recolour, resize
from tlresearch.data.counts import Counts, transformed
from tlresearch.data.domain_files import Entry, digest
from tlresearch.data.domains import Domain, Labelled
from tlresearch.data.sources import data_root
from tlresearch.errors import UserError

DOMAINS: dict[str, Entry] = {
    "moons": moons.ENTRY,
    **amazon.ENTRIES,
    **mnistm.ENTRIES,
    **office.ENTRIES,
    **office_features.ENTRIES,
}


def read(name: str, root: Path | None) -> Domain:
    """The domain of that name.

    Raises:
        UserError: there is none, or it is missing or damaged.
    """
    if name in DOMAINS:
        return DOMAINS[name].read(root)
    return _images(name, root)


def check(name: str) -> None:
    """Refuses a name that is neither in the table nor in the catalogue.

    Raises:
        UserError: with the nearest names; or a set that is no domain.
    """
    known = (*DOMAINS, *(key for key, entry in catalogue.DATASETS.items() if _is_domain(entry)))
    if name in known:
        return
    if name in catalogue.DATASETS:
        raise _no_domain(name)
    near = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UserError(f"unknown domain {name!r}; {hint}known are {', '.join(known)}")


def _is_domain(entry: catalogue.Dataset) -> bool:
    return not entry.test_classes


def _no_domain(name: str) -> UserError:
    return UserError(f"{name} has other classes in its test part, so it is no domain")


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
    if not _is_domain(catalogue.entry(name)):
        raise _no_domain(name)
    data = catalogue.load(name, root)
    train, test = (Labelled(part.images, part.labels) for part in (data.train, data.test))
    return Domain(name, train, test, data.class_names, data.fingerprint)


def prepared(
    name: str,
    size: int | None,
    channels: int | None,
    counts: Counts | None,
    root: Path | None,
) -> Domain:
    """A domain with its images resized and in grey or colour, or its counts transformed.

    Kept in memory for the next call.

    Args:
        name: of the domain.
        size: rows and columns of images; None: as they are.
        channels: 1 or 3; None: as they are.
        counts: what is made of counts; None: what is usual for the domain.
        root: data root; None: where the environment says.

    Raises:
        UserError: as `read`; or features, which cannot be resized; or no counts.
    """
    return _prepared(name, size, channels, counts, data_root(root))


@lru_cache(maxsize=4)
def _prepared(
    name: str,
    size: int | None,
    channels: int | None,
    counts: Counts | None,
    root: Path | None,
) -> Domain:
    usual = DOMAINS[name].counts if name in DOMAINS else None
    if counts and not usual:
        raise UserError(
            f"benchmark.counts: {name} is no domain of counts, as Amazon reviews and SURF features "
            "are; remove benchmark.counts"
        )
    domain = read(name, root)
    if domain.train.images.is_floating_point():
        if size or channels:
            raise UserError(
                f"{name} is features, not images; remove benchmark.size and benchmark.channels"
            )
        return _of_counts(domain, counts or usual)
    train, test = (
        part and Labelled(resize(recolour(part.images, channels), size), part.labels)
        for part in (domain.train, domain.test)
    )
    assert train is not None
    return dataclasses.replace(domain, train=train, test=test)


def _of_counts(domain: Domain, kind: Counts | None) -> Domain:
    """Both parts transformed; other features stay as they are."""
    if kind is None:
        return domain
    shape = domain.train.images.shape[1:]
    train, test = domain.train.images.flatten(1), None
    rows = train[:0] if domain.test is None else domain.test.images.flatten(1)
    train, rows = transformed(kind, train, rows)
    if domain.test is not None:
        test = Labelled(rows.view(-1, *shape), domain.test.labels)
    made = Labelled(train.view(-1, *shape), domain.train.labels)
    return dataclasses.replace(domain, train=made, test=test)


def listing(root: Path | None = None) -> list[dict[str, Any]]:
    """One row a domain of the table, with the keys of `catalogue.listing`."""
    return [
        {
            "name": name,
            "title": entry.title,
            "found": _found(entry, root),
            "train": entry.sizes[0],
            "test": entry.sizes[1],
            "shape": entry.shape,
            "classes": entry.classes,
            "licence": entry.licence,
        }
        for name, entry in DOMAINS.items()
    ]


def locate(name: str, root: Path | None = None) -> str | None:
    """Where what a domain is made of lies, without a download; None where some of it is missing."""
    return _found(DOMAINS[name], root) if name in DOMAINS else catalogue.locate(name, root)


def _found(entry: Entry, root: Path | None) -> str | None:
    """Where what it is made of lies; None where some of it is missing."""
    places = [catalogue.locate(name, root) for name in entry.made_of]
    chosen = data_root(root)
    for file in entry.files:
        path = None if chosen is None else chosen / file.path
        places.append(str(path.parent) if path is not None and path.is_file() else None)
    for name in dict.fromkeys(file.partition("/")[0] for file, _ in entry.packages):
        places.append(name if find_spec(name) else None)
    if None in places:
        return None
    return " and ".join(dict.fromkeys(map(str, places))) or "made when asked for"


def verify(root: Path | None = None) -> list[dict[str, str]]:
    """One row a file under the data root, with the keys of `catalogue.verify`."""
    return [row for name, entry in DOMAINS.items() for row in _verify(name, entry, data_root(root))]


def _verify(name: str, entry: Entry, root: Path | None) -> Iterator[dict[str, str]]:
    for file in entry.files:
        path = (root or Path("ROOT")) / file.path
        status, detail = "missing", "put it there"
        if path.is_file():
            actual = digest(path)
            status = "ok" if actual == file.sha256 else "differs"
            wrong = "" if status == "ok" else f" where {file.sha256} was expected"
            detail = f"sha256 {actual}{wrong}"
        yield {"dataset": name, "file": str(path), "status": status, "detail": detail}
