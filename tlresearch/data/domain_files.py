"""What is known of a domain before it is read, and the files that it is read from.

A domain's files lie under the data root and are pinned by SHA-256; a recipe, such as that of
MNIST-M, is pinned by its text, which changes whenever what it makes does.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlresearch.data import catalogue
from tlresearch.data.attributes import damaged
from tlresearch.data.checksums import file_digest
from tlresearch.data.counts import Counts
from tlresearch.data.domains import Domain
from tlresearch.data.sources import DATA_VARIABLE, data_root
from tlresearch.errors import UserError


@dataclass(frozen=True)
class File:
    """A file under the data root."""

    path: str
    """Relative to the root."""
    sha256: str


@dataclass(frozen=True)
class Entry:
    """What is known of a domain before it is read."""

    title: str
    read: Callable[[Path | None], Domain]
    """(data root) → the domain, as it is on disk, in packages, or made by its recipe."""
    shape: tuple[int, int, int]
    """(channels, rows, columns) of an input; features are (dim, 1, 1), points (1, 1, 2)."""
    class_names: tuple[str, ...]
    sizes: tuple[int, int]
    """Samples of the training and of the test part; without a test part, 0."""
    licence: str
    files: tuple[File, ...] = ()
    """Under the data root."""
    recipe: str = ""
    """How the domain is made of its files, in words that change when the result does."""
    counts: Counts | None = None
    """Of a domain of counts: what is made of them where the settings do not say."""
    made_of: tuple[str, ...] = ()
    """Names of the catalogue whose images it is made of."""
    packages: tuple[tuple[str, str], ...] = ()
    """(file in a Python package, SHA-256) of what it is made of."""

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the recipe and of the digests of all that goes into it."""
        parts = [self.recipe, str(self.counts), *(file.sha256 for file in self.files)]
        parts += [catalogue.entry(name).fingerprint for name in self.made_of]
        parts += [digest for _, digest in self.packages]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def paths(name: str, files: Sequence[File], root: Path | None, obtain: str) -> list[Path]:
    """Where the files lie, all of which are there.

    Args:
        name: of the domain, for the error.
        files: under the root.
        root: the data root; None: where the environment says.
        obtain: what to do where one is missing: the end of a sentence.

    Raises:
        UserError: no data root, or a file is not there.
    """
    chosen = data_root(root)
    if chosen is None:
        raise UserError(
            f"{name} is read from {files[0].path} under the data root, but neither --data nor "
            f"{DATA_VARIABLE} names one; {obtain}"
        )
    found = [chosen / file.path for file in files]
    lacking = [file.path for file, path in zip(files, found, strict=True) if not path.is_file()]
    if lacking:
        raise UserError(f"{name}: {chosen} lacks {' and '.join(lacking)}; {obtain}")
    return found


def verify(found: Sequence[Path], files: Sequence[File]) -> None:
    """Refuses files that are not the pinned ones.

    Called after reading, so that a file that cannot be read is told by what is wrong with it.

    Raises:
        UserError: the first that differs.
    """
    for path, file in zip(found, files, strict=True):
        actual = digest(path)
        if actual != file.sha256:
            raise damaged(path, f"the SHA-256 {actual[:12]}…", f"{file.sha256[:12]}…")


def digest(path: Path) -> str:
    """SHA-256 of a file as it is now; read once."""
    about = path.stat()
    return _digest(path, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest(path: Path, size: int, time: int) -> str:
    return file_digest(path, "sha256")
