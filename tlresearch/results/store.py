"""Records: one JSON file per cell, written whole or not at all, read back with its digest checked.

    ROOT/records/TABLE/METHOD[/SETTING]/seed0-1a2b3c4d.json   one finished or failed cell
    ROOT/records/TABLE.jsonl                                  a finished table, one record a line
    ROOT/records/TABLE.plan.json                              the plan it was made by

A record is a dict of plain values; `FIELDS` are those that every record has. Each file carries
the SHA-256 of its record, so a number that was edited by hand is noticed.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from tlresearch import files
from tlresearch.errors import UserError
from tlresearch.files import write_text_atomic

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

    @property
    def lock_path(self) -> Path:
        """What a process claims that changes the plan or the table as a whole."""
        return self.root / "records" / f"{self.table}.lock"

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
        for path in self._files():
            record = self._read_file(path)
            if record is not None:
                records[_identity(record)] = record
        return [records[identity] for identity in sorted(records)]

    def repair(self) -> list[str]:
        """Sets aside what cannot be read, so that its runs are made again; loses nothing.

        A record in a file of its own is renamed to `NAME.unreadable`; of the packed table a copy
        of that name is kept, and the lines that can be read stay.

        Returns:
            One sentence for each file and line set aside.

        Raises:
            UserError: the folder cannot be written.
        """
        if not self._damaged_files() and self._damaged_lines() is None:
            return []
        with files.claim(self.lock_path, files.silently):
            # Looked at again: another process may have done so, and made a run again.
            told = [
                f"{problem}; it was renamed to {files.set_aside(path).name}, "
                "and its run is made again"
                for path, problem in self._damaged_files()
            ]
            damaged = self._damaged_lines()
            if damaged is not None:
                told += self._repair_pack(*damaged)
        return told

    def _damaged_files(self) -> list[tuple[Path, str]]:
        """The record files that cannot be used, and why."""
        damaged = []
        for path in self._files():
            try:
                self._read_file(path)
            except UserError as error:
                damaged.append((path, _without_advice(error)))
        return damaged

    def _damaged_lines(self) -> tuple[list[str], list[str]] | None:
        """The good lines of a damaged pack, and what is wrong with the others; None: all good."""
        try:
            lines = _read_text(self.packed_path, errors="replace").splitlines()
        except FileNotFoundError:
            return None
        except UserError as error:
            return [], [_without_advice(error)]
        good, problems, seen = [], [], set()
        for number, line in enumerate(lines, 1):
            try:
                identity = _identity(self._parse_line(line, number))
                if identity in seen:
                    _refuse(f"{self.packed_path}, line {number}", "it holds a cell twice")
                seen.add(identity)
                good.append(line)
            except UserError as error:
                problems.append(_without_advice(error))
        return (good, problems) if problems else None

    def _repair_pack(self, good: list[str], problems: list[str]) -> list[str]:
        """Keeps a copy of the damaged pack, and of the pack the good lines."""
        try:
            content = self.packed_path.read_bytes()
        except OSError:  # then it cannot be copied either
            aside = files.set_aside(self.packed_path)
        else:
            aside = files.free_name(self.packed_path)
            files.write_atomic(aside, lambda file: file.write(content))
        files.write_text_atomic(self.packed_path, "".join(line + "\n" for line in good))
        return [
            f"{problem}; {aside.name} keeps it, and its run is made again" for problem in problems
        ]

    def pack(self, keys: Iterable[str], others: bool = False) -> Path:
        """Writes the records of these keys as the packed table; deletes no file of its own.

        The table is claimed meanwhile, so whoever calls this must not have claimed `lock_path`.

        Args:
            keys: those of the records.
            others: whether the records that are packed already stay, too.

        Raises:
            UserError: some of the keys have no record, or the folder cannot be written.
        """
        with files.claim(self.lock_path, files.silently):
            packed = {record["key"] for record in self.packed()} if others else set()
            return self._write_pack(packed.union(keys))

    def _write_pack(self, wanted: set[str]) -> Path:
        """Writes the records of these keys, and no others, as the packed table."""
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
        try:
            lines = _read_text(self.packed_path).splitlines()
        except FileNotFoundError:
            return []
        records = [self._parse_line(line, i) for i, line in enumerate(lines, 1)]
        if len({_identity(record) for record in records}) < len(records):
            _refuse(str(self.packed_path), "it holds a cell twice")
        return records

    def current(self, record: Record) -> Record | None:
        """What the file of this record's cell holds now; None if there is no such file.

        Args:
            record: `method`, `setting`, `seed` and `key` are enough.

        Raises:
            UserError: it cannot be used.
        """
        return self._read_file(self.path(record))

    def _files(self) -> list[Path]:
        """The files of single records."""
        folder = self.root / "records" / self.table
        return sorted([*folder.glob("*/seed*.json"), *folder.glob("*/*/seed*.json")])

    def _read_file(self, path: Path) -> Record | None:
        """The record in a file of its own; None if there is none, or one of another table.

        That is one whose name continues ours, and whose folder so lies in ours.
        """
        try:
            record = _parse(_read_text(path), str(path))
        except FileNotFoundError:  # another process has set it aside
            return None
        if record["experiment"].startswith(self.table + "/"):
            return None
        if self._stranger(record):
            _refuse(str(path), str(self._stranger(record)))
        if self.path(record) != path:
            _refuse(str(path), f"it holds the cell of {self.path(record)}")
        return record

    def _parse_line(self, line: str, number: int) -> Record:
        """The record in a line of the packed table."""
        where = f"{self.packed_path}, line {number}"
        record = _parse(line, where)
        if self._stranger(record):
            _refuse(where, str(self._stranger(record)))
        return record

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


def _read_text(path: Path, errors: str = "strict") -> str:
    """The text of a file, or a `UserError` that names it; a file that is not there is no damage."""
    try:
        return path.read_text(encoding="utf-8", errors=errors)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except (OSError, UnicodeDecodeError) as error:
        _refuse(str(path), f"it cannot be read ({error})")


_ADVICE = "; `tlresearch run` sets it aside and makes its run again"


def _refuse(where: str, problem: str) -> NoReturn:
    """Raises the `UserError` for a damaged record."""
    raise UserError(f"the record {where} cannot be used: {problem}{_ADVICE}")


def _without_advice(error: UserError) -> str:
    """What is wrong, for the one who sets it right."""
    return str(error).removesuffix(_ADVICE)
