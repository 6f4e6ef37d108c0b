"""Records: one JSON file per cell, written whole or not at all, read back with its digest checked.

    ROOT/records/TABLE/METHOD[/SETTING]/seed0-1a2b3c4d.json   one finished or failed cell
    ROOT/records/TABLE.jsonl                                  a finished table, one record a line
    ROOT/records/TABLE.plan.json                              the plan it was made by

A record is a dict of plain values; `FIELDS` are those that every record has. Each file carries
the SHA-256 of its record, so a number that was edited by hand is noticed.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from tlresearch.errors import UserError

Record = dict[str, Any]

FIELDS: dict[str, Callable[[Any], bool]] = {
    "experiment": lambda v: isinstance(v, str),
    "family": lambda v: isinstance(v, str),
    "method": lambda v: isinstance(v, str) and v != "",
    "setting": lambda v: isinstance(v, str),
    "seed": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "key": lambda v: isinstance(v, str) and re.fullmatch(r"[0-9a-f]{8,}", v) is not None,
    "source": lambda v: isinstance(v, str),
    "status": lambda v: v in ("finished", "failed"),
    "reason": lambda v: v is None or isinstance(v, str),
    "checkpoint": lambda v: v in ("last", "selected"),
    "metrics": lambda v: (
        isinstance(v, dict)
        and all(
            x is None or (isinstance(x, int | float) and not isinstance(x, bool))
            for x in v.values()
        )
    ),
    "arrays": lambda v: isinstance(v, dict),
}
"""The fields that every record has, and the test that each value passes."""


def plain(value: Any) -> Any:
    """`value` in JSON's own types: NaN and ±∞ become null, arrays and tuples lists, keys text.

    Raises:
        TypeError: something in it is no number, text, list, mapping, array or None.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy and torch, scalars too
        return plain(value.tolist())
    raise TypeError(f"a record cannot hold {value!r}, a {type(value).__name__}")


def digest(record: Record) -> str:
    """SHA-256 of the canonical JSON (sorted keys, no spaces) of a plain record."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_text_atomic(path: Path, text: str) -> None:
    """Writes UTF-8 text as `write_bytes_atomic` writes bytes."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; makes missing folders.

    The bytes go to a temporary name in the same folder, are flushed to the disk, then renamed.

    Raises:
        UserError: the place cannot be written (permission, full disk, a file in the way).
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; give a folder that you may write to."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # gone after a rename, and nothing to clean otherwise
            temporary.unlink()
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Makes a rename survive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json_atomic(path: Path, value: Any) -> None:
    """Writes a value as indented JSON with sorted keys, whole or not at all; see `plain`."""
    text = json.dumps(plain(value), indent=1, sort_keys=True, allow_nan=False)
    write_text_atomic(path, text + "\n")


def safe_name(label: str) -> str:
    """A label as one file name: other characters than A-Z a-z 0-9 _ . ~ = + , - become %XX.

    Different labels have different names; long ones end in a hash.
    """
    name = quote(label, safe="=+,")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > 100:
        name = f"{name[:80]}%{hashlib.sha256(label.encode()).hexdigest()[:16]}"
    return name


class Store:
    """The records of one table under a results folder."""

    def __init__(self, root: Path, table: str) -> None:
        """Reads and writes nothing yet.

        Args:
            root: the results folder.
            table: name of the table, its parts divided by `/`, e.g. `continual/split_mnist_task`.

        Raises:
            UserError: the name would leave the folder or is not usable as a path.
        """
        if not all(re.fullmatch(r"[\w=+,-][\w.=+,-]*", part) for part in table.split("/")):
            raise UserError(
                f"the table name {table!r} cannot be a path: use letters, digits and _ . = + , - "
                "in parts divided by single slashes."
            )
        self.root = Path(root)
        self.table = table

    @property
    def packed_path(self) -> Path:
        """Where the packed table lies."""
        return self.root / "records" / f"{self.table}.jsonl"

    @property
    def plan_path(self) -> Path:
        """Where the plan of the table lies."""
        return self.root / "records" / f"{self.table}.plan.json"

    def path(self, record: Record) -> Path:
        """Where the file of a record lies: its method, its setting if any, seed and key."""
        folder = self.root / "records" / self.table / safe_name(record["method"])
        if record["setting"]:
            folder = folder / safe_name(record["setting"])
        return folder / f"seed{record['seed']}-{record['key'][:8]}.json"

    def write(self, record: Record) -> Path:
        """Writes a record whole or not at all, over an older one of the same key.

        Raises:
            ValueError: a field is missing or wrong, or the record is of another table.
            UserError: the folder cannot be written.
        """
        record = plain(record)
        problem = _problem(record) or self._stranger(record)
        if problem:
            raise ValueError(f"not a record of {self.table}: {problem}")
        path = self.path(record)
        write_json_atomic(path, {**record, "digest": digest(record)})
        return path

    def read(self) -> list[Record]:
        """All records of the table, by method, setting, seed and key.

        Of a cell that is both packed and in a file of its own, the file counts.

        Raises:
            UserError: a file cannot be read, is cut short or was changed; names it.
        """
        records = {_identity(record): record for record in self.packed()}
        records |= {_identity(record): record for record in self._read_files()}
        return [records[identity] for identity in sorted(records)]

    def pack(self, keys: Iterable[str]) -> Path:
        """Writes the records of these keys, and no others, as the packed table; deletes nothing.

        Raises:
            UserError: some of the keys have no record, or the folder cannot be written.
        """
        wanted = set(keys)
        records = [record for record in self.read() if record["key"] in wanted]
        absent = sorted(wanted - {record["key"] for record in records})
        if absent:
            raise UserError(
                f"cannot pack {self.table}: {len(absent)} of {len(wanted)} cells have no record "
                f"(first key {absent[0][:8]}); run the missing cells first."
            )
        lines = (
            json.dumps({**record, "digest": digest(record)}, sort_keys=True, allow_nan=False)
            for record in records
        )
        write_text_atomic(self.packed_path, "".join(line + "\n" for line in lines))
        return self.packed_path

    def packed(self) -> list[Record]:
        """The records of the packed file; none if there is no such file."""
        path = self.packed_path
        if not path.exists():
            return []
        lines = _read_text(path).splitlines()
        records = [_parse(line, f"{path}, line {i}") for i, line in enumerate(lines, 1)]
        for record in records:
            stranger = self._stranger(record)
            if stranger:
                _refuse(str(path), stranger)
        if len({_identity(record) for record in records}) < len(records):
            _refuse(str(path), "it holds a cell twice")
        return records

    def _read_files(self) -> list[Record]:
        """The records in files of their own."""
        folder = self.root / "records" / self.table
        records = []
        for pattern in ("*/seed*.json", "*/*/seed*.json"):
            for path in sorted(folder.glob(pattern)):
                record = _parse(_read_text(path), str(path))
                if record["experiment"].startswith(self.table + "/"):
                    continue  # a table whose name continues ours
                if self.path(record) != path:
                    _refuse(str(path), f"it holds the cell of {self.path(record)}")
                records.append(record)
        return records

    def _stranger(self, record: Record) -> str | None:
        """Says so if a record is of another table."""
        if record["experiment"] == self.table:
            return None
        return f"`experiment` is {record['experiment']!r}"


def _parse(text: str, where: str) -> Record:
    """The record in a text, without its digest, or a `UserError` that says where."""
    try:
        record = json.loads(text)
        expected = record.pop("digest", None) if isinstance(record, dict) else None
        actual = digest(record)  # refuses NaN and Infinity, which are not JSON
    except (ValueError, RecursionError) as error:
        _refuse(where, f"it is not whole JSON ({error})")
    if expected != actual:
        _refuse(where, "its content does not match its digest")
    problem = _problem(record)
    if problem:
        _refuse(where, problem)
    return record


def _problem(record: Record) -> str | None:
    """What keeps a plain dict from being a record, or None."""
    for field, is_right in FIELDS.items():
        if field not in record:
            return f"`{field}` is missing"
        if not is_right(record[field]):
            return f"`{field}` is {record[field]!r}"
    return None


def _identity(record: Record) -> tuple[str, str, int, str]:
    """What tells records of a table apart, and their order."""
    return record["method"], record["setting"], record["seed"], record["key"]


def _read_text(path: Path) -> str:
    """The text of a file, or a `UserError` that names it."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        _refuse(str(path), f"it cannot be read ({error})")


def _refuse(where: str, problem: str) -> NoReturn:
    """Raises the `UserError` for a damaged record."""
    raise UserError(
        f"the record {where} cannot be used: {problem}; "
        "move or delete the file so that the cell is run again."
    )
