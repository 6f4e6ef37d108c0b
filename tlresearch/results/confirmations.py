"""Confirmations: that numbers which older code made still come out of newer code.

    ROOT/records/TABLE.confirmed.jsonl    one confirmation a line, with its SHA-256

A line says: of the row `row` the seeds `seeds` were made again by the code `source`, and what came
out was, bit for bit, what the records hold that the codes `sources` made. With it those sources
count as `source` in that row, and so do, in turn, sources that are confirmed to one of them.
There is no date in it: the same work gives the same file.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tlresearch import files
from tlresearch.errors import UserError
from tlresearch.results.comparison import Record, numbers_digest
from tlresearch.results.store import Store, digest

SUFFIX = ".confirmed.jsonl"
"""End of the name of a table's confirmations, which lie beside its records."""


@dataclass(frozen=True)
class Confirmation:
    """One line: that some seeds of a row came out the same again."""

    method: str
    """Label of the row when it was confirmed; for people, as a row may get another label."""
    setting: str
    """Likewise."""
    row: str
    """Key of the row's configuration and data, whatever the seed."""
    seeds: Mapping[str, str]
    """`numbers_digest` of what was stored, and came out again, by seed."""
    sources: tuple[str, ...]
    """Hashes of the older code that made the records of these seeds, sorted."""
    source: str
    """Hash of the code that made them again."""
    versions: Mapping[str, str]
    """Of torch and Python, when they were made again."""
    device: str
    """On which kind: `cpu` or `cuda`."""


_STRINGS = ("method", "setting", "row", "source", "device")
_MAPPINGS = ("seeds", "versions")


@dataclass(frozen=True)
class Confirmed:
    """How much of a row that is not stale was made by older code, and was made again."""

    again: int
    """Seeds that were made again, of those that older code made."""
    old: int
    """Seeds that older code made."""
    seeds: int
    """All seeds of the row with a record."""
    directly: bool
    """Whether the present code made them again; else also code that was confirmed since."""


def path_of(store: Store) -> Path:
    """Where the confirmations of a table lie."""
    return store.packed_path.with_name(store.packed_path.stem + SUFFIX)


def read(store: Store) -> list[Confirmation]:
    """The confirmations of a table, in the order in which they were made; often none.

    Raises:
        UserError: the file cannot be read, or a line is cut short or was changed; names it.
    """
    path = path_of(store)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, UnicodeDecodeError) as error:
        _refuse(str(path), f"it cannot be read ({error})")
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def add(store: Store, confirmation: Confirmation) -> Path:
    """Adds a line, whole or not at all, in place of those that say no more than it.

    The table is claimed meanwhile, so whoever calls this must not have claimed `lock_path`.

    Raises:
        UserError: the lines that are there cannot be used, or the folder cannot be written.
    """
    path = path_of(store)
    with files.claim(store.lock_path, files.silently):
        kept = [line for line in read(store) if not _says_all_of(confirmation, line)]
        text = "".join(_line(one) + "\n" for one in [*kept, confirmation])
        files.write_text_atomic(path, text)
    return path


def _says_all_of(new: Confirmation, old: Confirmation) -> bool:
    """Whether an older line adds nothing to a new one."""
    if (new.row, new.source) != (old.row, old.source):
        return False
    return old.seeds.items() <= new.seeds.items() and set(old.sources) <= set(new.sources)


def of_row(
    confirmations: Iterable[Confirmation], row: str, records: Mapping[int, Record]
) -> list[Confirmation]:
    """The confirmations that hold for a row.

    One holds as long as the records that were compared still have the numbers they had then.

    Args:
        confirmations: of the table.
        row: key of the row.
        records: of the row, by seed.
    """
    return [
        one
        for one in confirmations
        if one.row == row
        and all(
            seed not in records or numbers_digest(records[seed]) == one.seeds[str(seed)]
            for seed in map(int, one.seeds)
        )
    ]


def accepted(confirmations: Sequence[Confirmation], current: str) -> frozenset[str]:
    """The sources that count as the current one: itself, and all that are confirmed up to it.

    Args:
        confirmations: of one row, those that hold.
        current: hash of the present code.
    """
    found, before = {current}, set()
    while found != before:
        before = set(found)
        for one in confirmations:
            found |= set(one.sources) if one.source in before else set()
    return frozenset(found)


def confirmed(
    confirmations: Sequence[Confirmation], current: str, records: Mapping[int, Record]
) -> Confirmed | None:
    """What a table says of a row that confirmations keep from being stale; None of any other.

    Args:
        confirmations: of one row, those that hold.
        current: hash of the present code.
        records: of the row, by seed.
    """
    old = {seed: r["source"] for seed, r in records.items() if r["source"] != current}
    sources = accepted(confirmations, current)
    if not old or not sources.issuperset(old.values()):
        return None
    direct = [one for one in confirmations if one.source == current]
    directly = {s for one in direct for s in one.sources}.issuperset(old.values())
    used = direct if directly else [one for one in confirmations if one.source in sources]
    again = {int(seed) for one in used for seed in one.seeds}
    return Confirmed(len(again & old.keys()), len(old), len(records), directly)


def _line(confirmation: Confirmation) -> str:
    """One confirmation as a line of JSON, with its digest."""
    plain = dataclasses.asdict(confirmation) | {"sources": list(confirmation.sources)}
    return json.dumps({**plain, "digest": digest(plain)}, sort_keys=True, allow_nan=False)


def _parse(text: str, where: str) -> Confirmation:
    """The confirmation in a line, or a `UserError` that says where."""
    try:
        plain = json.loads(text)
        expected = plain.pop("digest", None) if isinstance(plain, dict) else None
        actual = digest(plain)  # refuses NaN and Infinity, which are not JSON
    except (ValueError, RecursionError) as error:
        _refuse(where, f"it is not whole JSON ({error})")
    if expected != actual:
        _refuse(where, "its content does not match its digest")
    if not _is_confirmation(plain):
        _refuse(where, "it is no confirmation")
    plain["sources"] = tuple(plain["sources"])
    return Confirmation(**plain)


def _is_confirmation(plain: Any) -> bool:
    """Whether a plain value has the fields of a confirmation, of the right types."""
    if not isinstance(plain, dict) or set(plain) != {
        field.name for field in dataclasses.fields(Confirmation)
    }:
        return False
    texts = [plain[name] for name in _STRINGS]
    for name in _MAPPINGS:
        if not isinstance(plain[name], dict):
            return False
        texts += plain[name].values()
    texts += plain["sources"] if isinstance(plain["sources"], list) else [None]
    return all(isinstance(text, str) for text in texts) and all(map(_is_seed, plain["seeds"]))


def _is_seed(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _refuse(where: str, problem: str) -> NoReturn:
    """Raises the `UserError` for damaged confirmations."""
    raise UserError(
        f"the confirmations {where} cannot be used: {problem}; restore the file or delete it, and "
        "`tlresearch confirm` makes it anew"
    )
