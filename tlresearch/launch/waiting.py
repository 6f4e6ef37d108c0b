"""Which stacks are to be run: those that lack a record, and those whose records are made again."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tlresearch import families, own
from tlresearch.experiment import Cell, Config
from tlresearch.launch.plan import Plan, Stack
from tlresearch.results import confirmations
from tlresearch.results.confirmations import Confirmation
from tlresearch.results.provenance import source_hash
from tlresearch.results.store import Record, Store, digest, write_json_atomic

RERUNS = {
    "stale": "(stale: made by other code)",
    "failed": "(failed: their loss was not finite)",
    "all": "(all of them)",
}
"""What `--rerun` takes, and which runs that makes again, in words."""

Outdated = Mapping[str, str]
"""Digest, by key, of the records that are to be made again; they stay until they are replaced."""


def sources_of(config: Config) -> str:
    """Hash of the code that the runs of a configuration use, own files and teachers' included."""
    parts = config.method, config.backbone, *families.parts(config)
    modules = [families.FAMILIES[config.family], *(type(part).__module__ for part in parts)]
    return source_hash(modules, own_files(config))


def own_files(config: Config) -> list[bytes]:
    """The own files that the runs of a configuration use, as they were run; each once."""
    return own.sources([config, *families.parts(config)])


def row_key(config: Config) -> str:
    """What a row of a table is known by whatever its label: the key of its cell of seed 0."""
    fingerprint = families.protocol(config.family).fingerprint(config.benchmark)
    return Cell("", "", 0, config).key(fingerprint)


def confirmations_of(
    config: Config, lines: Sequence[Confirmation], records: Mapping[int, Record]
) -> list[Confirmation]:
    """The confirmations that hold for the row of a configuration.

    Args:
        config: the row's.
        lines: the confirmations of its table.
        records: of the row, by seed.
    """
    return confirmations.of_row(lines, row_key(config), records) if lines else []


def records_by_key(plan: Plan, store: Store) -> dict[str, Record]:
    """The records of a store by key.

    Equal runs may have records under several labels, e.g. a former one: that of the plan's own
    label counts, as a rerun writes it.
    """
    own = {key: cell for stack in plan.stacks for key, cell in _cells(stack)}
    records: dict[str, Record] = {}
    for record in store.read():
        key = record["key"]
        if key not in records or (key in own and _name(record) == _label(own[key])):
            records[key] = record
    return records


def outdated(plan: Plan, store: Store, which: str) -> dict[str, str]:
    """The finished cells that are to be run again.

    Args:
        plan: its cells.
        store: their records.
        which: one of `RERUNS`; what is confirmed is not stale.

    Raises:
        UserError: the confirmations cannot be used.
    """
    records = records_by_key(plan, store)
    if which == "stale":
        return _stale(plan, records, confirmations.read(store))
    planned = [key for stack in plan.stacks for key in stack.keys if key in records]
    failed = which == "failed"
    return {k: digest(records[k]) for k in planned if not failed or _has_failed(records[k])}


def _stale(
    plan: Plan, records: Mapping[str, Record], lines: Sequence[Confirmation]
) -> dict[str, str]:
    """The cells whose source neither is nor counts as the current one, as `outdated`."""
    rows: dict[tuple[str, str], list[tuple[Cell, Record]]] = {}
    for key, cell in (pair for stack in plan.stacks for pair in _cells(stack)):
        if key in records:
            rows.setdefault(_label(cell), []).append((cell, records[key]))
    found = {}
    for row in rows.values():
        config = row[0][0].config
        holding = confirmations_of(config, lines, {cell.seed: record for cell, record in row})
        fresh = confirmations.accepted(holding, sources_of(config))
        found |= {r["key"]: digest(r) for _, r in row if r["source"] not in fresh}
    return found


def _has_failed(record: Record) -> bool:
    return record["status"] == "failed"


def rerun_path(plan_store: Store) -> Path:
    """Where a rerun that is under way keeps what it was to make again; beside the plan."""
    return plan_store.root / "records" / f"{plan_store.table}.rerun.json"


def write_rerun(plan_store: Store, which: str, again: Outdated) -> None:
    """Keeps what a rerun is to make again, so that the same command goes on if it is stopped.

    Those that are stale need no file: what was made again is stale no more.
    """
    if which == "stale":
        return
    write_json_atomic(rerun_path(plan_store), {"which": which, "digests": dict(again)})


def left_of_rerun(plan: Plan, store: Store, plan_store: Store, which: str) -> dict[str, str] | None:
    """What a rerun of this kind that was stopped has not made again yet, as `outdated`.

    None if none was stopped, or its file cannot be used.

    Args:
        plan: its cells.
        store: their records.
        plan_store: where the plan lies.
        which: one of `RERUNS`.
    """
    if plan.debug:
        return None
    try:
        kept = json.loads(rerun_path(plan_store).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    digests = kept.get("digests") if isinstance(kept, dict) else None
    if not isinstance(digests, dict) or kept.get("which") != which:
        return None
    now = outdated(plan, store, "all")
    return {key: value for key, value in now.items() if digests.get(key) == value}


def missing_stacks(plan: Plan, store: Store, again: Outdated | None = None) -> list[Stack]:
    """The stacks with a cell that has no record yet, or only an outdated one.

    Of a debug run: all.
    """
    if plan.debug:
        return list(plan.stacks)
    again = again or {}
    records = records_by_key(plan, store)
    done = {key for key, r in records.items() if key not in again or again[key] != digest(r)}
    return [stack for stack in plan.stacks if not done.issuperset(stack.keys)]


def is_missing(stack: Stack, store: Store, again: Outdated) -> bool:
    """Whether a stack of `missing_stacks` still is one: another process may have run it."""
    for key, cell in _cells(stack):
        record = store.current(
            {"method": cell.method, "setting": cell.setting, "seed": cell.seed, "key": key}
        )
        if record is None or digest(record) == again.get(key):
            return True
    return False


def _cells(stack: Stack) -> list[tuple[str, Cell]]:
    return list(zip(stack.keys, stack.cells, strict=True))


def _name(record: Record) -> tuple[str, str]:
    return record["method"], record["setting"]


def _label(cell: Cell) -> tuple[str, str]:
    return cell.method, cell.setting
