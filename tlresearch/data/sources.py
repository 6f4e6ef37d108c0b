"""What an entry of the catalogue is, where its files may lie, and the last resort: a download."""

import http.client
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlresearch.data import formats
from tlresearch.data.formats import Split

Reader = Callable[[Path], tuple[Split, Split]]
"""From a folder to the train and the test set."""
Digest = Callable[[Path], str]
"""The hash of one file's content."""
DATA_VARIABLE = "TLRESEARCH_DATA"


@dataclass(frozen=True)
class Layout:
    """A way in which a data set lies in a folder."""

    folder: str
    """Relative to the data root; an absolute one is a place where a package installs it."""
    files: tuple[tuple[str, str], ...]
    """Each file's name and the digest of its content. A file may also have `.gz` added; a name that
    ends in `/` is a folder's."""
    read: Reader
    digest: Digest


@dataclass(frozen=True)
class Package:
    """An installed Python package that carries a data set."""

    name: str
    module: str
    read: Callable[[], tuple[Split, Split]]


@dataclass(frozen=True)
class Dataset:
    """An entry of the catalogue."""

    name: str
    title: str
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    """Channels, height, width."""
    train_size: int
    test_size: int
    licence: str
    source: str
    obtain: str
    """How to get it by hand: the end of the sentence "it is not here; …"."""
    fingerprint: str
    layouts: tuple[Layout, ...] = ()
    package: Package | None = None
    torchvision: str = ""
    """The class of `torchvision.datasets` that downloads it into one of the layouts; "": none."""
    torchvision_argument: str = "train"
    """The argument of that class that says which set, and, below, what it is for train and test."""
    torchvision_values: tuple[Any, Any] = (True, False)
    by_files: bool = False
    """Whether `fingerprint` is the SHA-256 of the files' digests, one a line, not of the content:
    where nobody here has seen the content. It is that of the first layout then, and what is read
    from another one has that one's."""
    test_classes: int = 0
    """How many of the classes, the last ones, are of the test set alone, whose labels then count
    from the first of them; 0: train and test have the same classes."""

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def embedded(self) -> bool:
        """Whether an installed Python package carries it, so that it is always at hand."""
        return self.package is not None


@dataclass(frozen=True)
class Place:
    """A folder in which a data set may lie in a layout."""

    folder: Path
    layout: Layout

    def missing(self) -> list[str]:
        """The names of the files that are not there."""
        names = (name for name, _ in self.layout.files)
        return [name for name in names if formats.present(self.folder, name) is None]

    def digests(self) -> Iterator[tuple[str, str]]:
        """Each file's name and the digest of its content, as they are."""
        for name, _ in self.layout.files:
            yield name, self.layout.digest(formats.present(self.folder, name) or self.folder / name)


def data_root(root: Path | None) -> Path | None:
    """The folder of the user's data: the argument, else TLRESEARCH_DATA, else None."""
    chosen = root or os.environ.get(DATA_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else None


def cache_folder() -> Path:
    """Of this user: downloads, and what was computed once."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "tlresearch"


def places(dataset: Dataset, root: Path | None) -> Iterator[Place]:
    """Where the set may lie, in the order of the search: root, installed packages, cache."""
    relative = [layout for layout in dataset.layouts if not Path(layout.folder).is_absolute()]
    installed = [layout for layout in dataset.layouts if layout not in relative]
    chosen = data_root(root)
    if chosen is not None:
        yield from (Place(chosen / layout.folder, layout) for layout in relative)
    yield from (Place(Path(layout.folder), layout) for layout in installed)
    yield from (Place(cache_folder() / layout.folder, layout) for layout in relative)


def find(dataset: Dataset, root: Path | None) -> Place | None:
    """The first place that holds every file of its layout."""
    return next((place for place in places(dataset, root) if not place.missing()), None)


def _download_folder(root: Path | None) -> Path:
    """The data root if it may be written, else the cache of this user."""
    chosen = data_root(root)
    # The mode is asked too: to the superuser `access` calls a read-only folder writable.
    if chosen and chosen.is_dir() and os.access(chosen, os.W_OK) and chosen.stat().st_mode & 0o222:
        return chosen
    return cache_folder()


def _move(dataset: Dataset, folder: Path, goal: Path) -> Place:
    """Moves a fresh download: an interrupted one leaves no half file where `find` looks."""
    for layout in dataset.layouts:
        if not Place(folder / layout.folder, layout).missing():
            place = Place(goal / layout.folder, layout)
            place.folder.mkdir(parents=True, exist_ok=True)
            for name, _ in layout.files:
                os.replace(folder / layout.folder / name, place.folder / name)
            return place
    raise OSError(f"torchvision did not store {dataset.title} under the names it is known by")


def fetch(dataset: Dataset, root: Path | None) -> Place:
    """Lets torchvision download and check the set, then moves the whole files to their place.

    Returns:
        The place, under the data root if that may be written, else in the cache.

    Raises:
        OSError: no connection, no room, or other bytes than torchvision's checksums promise.
    """
    timeout = socket.getdefaulttimeout()
    try:
        from torchvision import datasets

        goal = _download_folder(root)
        goal.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(30.0)  # torchvision sets none: a silent firewall would hang it
        with tempfile.TemporaryDirectory(prefix=".download-", dir=goal) as folder:
            for value in dataset.torchvision_values:
                which = {dataset.torchvision_argument: value}
                getattr(datasets, dataset.torchvision)(folder, download=True, **which)
            place = _move(dataset, Path(folder), goal)
        return place
    except (OSError, RuntimeError, ImportError, http.client.HTTPException) as error:
        raise OSError(" ".join(str(error).split())) from error
    finally:
        socket.setdefaulttimeout(timeout)
