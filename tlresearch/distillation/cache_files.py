"""Tables of rows with the facts that they depend on: a folder, written whole or not at all.

    ROOT/3f2a…/facts.json     the facts; each file's rows, size and SHA-256; what it was made with
    ROOT/3f2a…/logits.npy     and further arrays, read as memory maps, never as pickles

The folder's name is the digest of the facts, so that other facts have another folder.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlresearch.data.checksums import file_digest
from tlresearch.errors import UserError
from tlresearch.files import claim, silently, unwritable, write_text_atomic

FACTS = "facts.json"
FORMAT = 1
"""Of these folders; another one is another name."""

Facts = Mapping[str, Any]
"""By name, in JSON values."""
Rows = Mapping[str, Tensor]
"""Equally many rows of each table, by the table's name."""


def folder_of(root: Path, facts: Facts) -> Path:
    """Where tables with these facts lie."""
    text = json.dumps({"format": FORMAT, "facts": dict(facts)}, sort_keys=True)
    return root / hashlib.sha256(text.encode()).hexdigest()[:32]


def make(root: Path, facts: Facts, parts: Iterable[Rows], made_with: Facts) -> Path:
    """Writes tables unless they are there; of several processes one writes, and the others wait.

    Args:
        root: made if it is missing.
        facts: what the tables depend on, `samples` among them, the number of rows.
        parts: the rows in order; not asked for if the folder is there.
        made_with: what else a reader may want to know; not compared.

    Returns:
        The folder.

    Raises:
        UserError: the place cannot be written.
    """
    folder = folder_of(root, facts)
    if not folder.exists():
        with claim(root / f".{folder.name}.claim", wait=silently):
            for left in root.glob(f".{folder.name}.*.tmp"):  # its writer was killed
                shutil.rmtree(left, ignore_errors=True)
            if not folder.exists():
                _write(folder, facts, parts, made_with)
    return folder


def _write(folder: Path, facts: Facts, parts: Iterable[Rows], made_with: Facts) -> None:
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir()
        files = _write_tables(temporary, facts["samples"], parts)
        content = {"format": FORMAT, "facts": dict(facts), "files": files, "made_with": made_with}
        write_text_atomic(temporary / FACTS, json.dumps(content, indent=1) + "\n")
        os.rename(temporary, folder)
    except OSError as error:
        # Where there are no claims, another process may have been faster.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not folder.exists():
            raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_tables(folder: Path, rows: int, parts: Iterable[Rows]) -> dict[str, Any]:
    """One file a table; what `facts.json` says of them, by the table's name."""
    tables: dict[str, _Table] = {}
    with contextlib.ExitStack() as stack:
        for part in parts:
            for name, tensor in part.items():
                if name not in tables:
                    path = folder / f"{'logits' if not tables else f'feature-{len(tables)}'}.npy"
                    tables[name] = _Table(path, (rows, *tensor.shape[1:]), tensor.dtype, stack)
                tables[name].add(tensor)
        return {name: table.finish() for name, table in tables.items()}


class _Table:
    """An array that is written row by row, through `write`: a full disk is an error, no crash."""

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: torch.dtype, stack: contextlib.ExitStack
    ) -> None:
        self.path, self.shape, self.left = path, shape, shape[0]
        self.file = stack.enter_context(path.open("xb"))
        self.sha, self.size = hashlib.sha256(), 0
        self.dtype = np.dtype(str(dtype).removeprefix("torch.")).newbyteorder("<")
        about = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self, about)  # type: ignore[arg-type]

    def write(self, content: Any) -> None:
        self.file.write(content)
        self.sha.update(content)
        self.size += len(content)

    def add(self, rows: Tensor) -> None:
        self.left -= len(rows)
        self.write(np.ascontiguousarray(rows.detach().cpu().numpy().astype(self.dtype)).tobytes())

    def finish(self) -> dict[str, Any]:
        assert self.left == 0, f"{self.left} rows of {self.path} were never given"
        self.file.flush()
        os.fsync(self.file.fileno())
        about = {"file": self.path.name, "shape": list(self.shape), "dtype": self.dtype.name}
        return about | {"bytes": self.size, "sha256": self.sha.hexdigest()}


def read(folder: Path, facts: Facts) -> dict[str, Tensor]:
    """The tables of a folder as memory maps; writing to one of them never reaches its file.

    Every byte is checked, once per process.

    Args:
        folder: as `make` returned it, or another one.
        facts: that the tables must have been made with.

    Raises:
        UserError: a file is missing, truncated or damaged, or a fact is another one: which.
    """
    about = _about(folder)
    try:
        found, files = about["facts"], about["files"]
        _compare(folder, {"format": FORMAT, **facts}, {"format": about["format"], **found})
        return {name: _table(folder, **entry) for name, entry in files.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder / FACTS, "it is not as it was written") from error


def _about(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, "it cannot be read") from error


def _compare(folder: Path, expected: Facts, found: Facts) -> None:
    """Refuses the first fact that differs."""
    for name in [*expected, *(name for name in found if name not in expected)]:
        there, wanted = found.get(name), expected.get(name)
        if there != wanted:
            raise UserError(
                f"{folder} was made for another {_WORDS.get(name, name)}: {_short(there)}, and "
                f"{_short(wanted)} is expected; name another folder, or delete it to have it made "
                "again."
            )


_WORDS = {"data": "data set", "samples": "number of samples", "taps": "list of taps"}


def _short(value: Any) -> str:
    """A digest's beginning, anything else whole."""
    if isinstance(value, str) and len(value) == 64 and " " not in value:
        return f"{value[:12]}…"
    return repr(value)


def _table(
    folder: Path, file: str, shape: list[int], dtype: str, bytes: int, sha256: str
) -> Tensor:
    path = folder / file
    try:
        status = path.stat()
        if status.st_size != bytes:
            raise _damaged(path, f"it has {status.st_size} bytes of {bytes}")
        if _digest(path, status.st_mtime_ns, bytes) != sha256:
            raise _damaged(path, "its content is not what was written")
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _damaged(path, "it cannot be read") from error
    if list(array.shape) != shape or array.dtype.name != dtype:
        raise _damaged(path, f"it holds {array.dtype} {array.shape}")
    return torch.from_numpy(array)


@cache
def _digest(path: Path, changed: int, size: int) -> str:
    """Of a file as it was at that time."""
    return file_digest(path, "sha256")


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} is damaged: {what}; delete the folder {path.parent}, and the next run makes it "
        "again."
    )
