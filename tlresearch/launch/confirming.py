"""What `tlresearch confirm` does: whether stored numbers still come out of the present code.

Of each row that other code made, one stack is made again under the table's plan, in a folder of
its own that is then deleted, and held to the records bit for bit. No training is taken from the
results folder; rows that share one train it once. Records are read and never written.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tlresearch.errors import UserError, notice
from tlresearch.experiment import Cell, Config, Experiment
from tlresearch.launch import local, outputs, progress, running, stopping, tuning
from tlresearch.launch.plan import Plan, Stack, make_plan, planned_device, versions
from tlresearch.launch.waiting import confirmations_of, records_by_key, row_key, sources_of
from tlresearch.results import confirmations, tables
from tlresearch.results.comparison import first_difference, numbers_digest
from tlresearch.results.confirmations import Confirmation
from tlresearch.results.rows import cell_name
from tlresearch.results.store import Record, Store
from tlresearch.training import device as devices


@dataclass(frozen=True)
class Row:
    """One method in one setting, and what is made again of it."""

    method: str
    setting: str
    config: Config
    records: Mapping[int, Record]
    """What is stored, by seed."""
    source: str
    """Hash of the present code."""
    stacks: tuple[Stack, ...]
    """Made again; none where no number is in doubt."""

    @property
    def name(self) -> str:
        """For people."""
        return cell_name(self.method, self.setting)

    @property
    def doubted(self) -> dict[int, Record]:
        """The records that are compared, by seed."""
        keys = {key for stack in self.stacks for key in stack.keys}
        return {seed: record for seed, record in self.records.items() if record["key"] in keys}

    def obstacle(self, device: torch.device) -> str | None:
        """Why a row cannot be made again here, if it cannot."""
        for record in self.doubted.values():
            if record.get("device", device.type) != device.type:
                return f"its records were made on {record['device']}, this is {device.type}"
            if record.get("processes", 1) > 1:
                return f"its records were made by {record['processes']} processes"
        return None


@dataclass(frozen=True)
class Desk:
    """One table, and where its rows are made again."""

    options: argparse.Namespace
    experiment: Experiment
    plan: Plan
    store: Store
    device: torch.device
    scratch: Store
    """Where what is made again lies until the command ends."""


def confirm(options: argparse.Namespace) -> int:
    """Makes rows again, says which are the same, keeps that, prints and writes the table.

    Returns:
        0 if no row differs; 1 if one does, or cannot be made again on this machine.

    Raises:
        UserError: the file, the data, the records or their confirmations cannot be used.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; rows that were confirmed stay so.
    """
    with stopping.terminable():
        try:
            return _confirm(options)
        except KeyboardInterrupt as stop:
            stop.add_note(f"go on with: {options.line}")
            raise


def _confirm(options: argparse.Namespace) -> int:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("confirm works in one process; start it without torchrun")
    devices.prepare_process(options.threads)
    experiment = running.load(options, torch.device("cpu"))
    if experiment.header.debug:
        raise UserError("debug: a debug run is made anew each time; there is nothing to confirm")
    sound = True
    with tempfile.TemporaryDirectory(prefix="tlresearch-confirm-") as folder:
        if experiment.header.select and experiment.choice is None:
            selection = _desk(options, tuning.selection_of(experiment), Path(folder))
            records = outputs.records_of(selection.plan, selection.store)
            choice = tuning.choose(selection.experiment, selection.plan, records)
            experiment = tuning.with_choice(experiment, choice)
            sound = _confirm_table(selection)
            _write(selection)
        desk = _desk(options, experiment, Path(folder))
        sound = _confirm_table(desk) and sound
    records = outputs.records_of(desk.plan, desk.store)
    lines = confirmations.read(desk.store)
    print(tables.to_markdown(outputs.table_of(desk.experiment, records, lines)))
    _write(desk)
    return 0 if sound else 1


def _desk(options: argparse.Namespace, experiment: Experiment, folder: Path) -> Desk:
    """A table under the plan that it was made by, on that plan's kind of device if it is here."""
    plan_store = Store(options.results, outputs.output_name(experiment))
    cpu = planned_device(plan_store) == "cpu"
    device = torch.device("cpu") if cpu else devices.choose_device("auto")
    plan = make_plan(experiment, plan_store, device)
    running.check_threads(options, plan, plan_store)
    name = experiment.name
    return Desk(
        options, experiment, plan, Store(options.results, name), device, Store(folder, name)
    )


def _confirm_table(desk: Desk) -> bool:
    """Confirms row by row, each told and kept as it is done; whether no row is left in doubt."""
    rows = _rows(desk)
    stacks = {stack.keys for row in rows for stack in row.stacks}
    runs, total = sum(map(len, stacks)), sum(len(stack.keys) for stack in desk.plan.stacks)
    print(f"{desk.experiment.name}: {len(rows)} rows; {runs} of {total} runs are made again, "
          f"on {desk.device.type}", flush=True)  # fmt: skip
    if stacks:
        running.check_data(desk.experiment, desk.options.data)
        running.check_writable(desk.options.results)
    sound = True
    for done, row in enumerate(rows):
        try:
            said, fine = _verdict(desk, row)
        except KeyboardInterrupt as stop:
            stop.__notes__ = [f"what was found of {done} of {len(rows)} rows is kept"]
            raise
        print(f"  {row.name}: {said}", flush=True)
        sound = sound and fine
    return sound


def _verdict(desk: Desk, row: Row) -> tuple[str, bool]:
    """What is said of a row, and whether it is no reason for doubt; keeps that it is the same."""
    if not any(record["status"] == "finished" for record in row.records.values()):
        return "not run: it has no finished runs", True
    if not row.stacks:
        return "up to date", True
    obstacle = row.obstacle(desk.device)
    if obstacle:
        return f"not run: {obstacle}", False
    again = _made_again(desk, row)
    difference = first_difference(row.records, again, desk.experiment.metrics)
    if difference:
        return f"differs: {difference}{_conditions(row, again)}", False
    _keep(desk, row)
    return f"same ({len(again)} of {len(row.records)} seeds made again)", True


def _rows(desk: Desk) -> list[Row]:
    """The rows of a table in its order, with what is to be made again of each."""
    lines, records = confirmations.read(desk.store), records_by_key(desk.plan, desk.store)
    stacks = {key: stack for stack in desk.plan.stacks for key in stack.keys}
    cells: dict[tuple[str, str], list[tuple[str, Cell]]] = {}
    for key, cell in desk.plan.cells:
        cells.setdefault((cell.method, cell.setting), []).append((key, cell))
    rows = []
    for pair, members in cells.items():
        config = members[0][1].config
        stored = {cell.seed: records[key] for key, cell in members if key in records}
        source = sources_of(config)
        fresh = confirmations.accepted(confirmations_of(config, lines, stored), source)
        doubted = {record["source"] for record in stored.values()}
        doubted -= set() if desk.options.all else fresh
        chosen = _chosen(stored, doubted, stacks, desk.options.seeds == "all")
        rows.append(Row(*pair, config, stored, source, chosen))
    return rows


def _chosen(
    records: Mapping[int, Record], doubted: set[str], stacks: Mapping[str, Stack], every: bool
) -> tuple[Stack, ...]:
    """The first stack with a record of each source that is in doubt, or every stack of the row.

    A failed run stands for its source only where it has no finished one.
    """
    chosen: dict[tuple[str, ...], Stack] = {}
    left = set(doubted)
    for record in sorted(records.values(), key=lambda record: record["status"] != "finished"):
        if record["source"] in left or (every and doubted):
            stack = stacks[record["key"]]
            chosen[stack.keys] = stack
            left -= {one["source"] for one in records.values() if one["key"] in stack.keys}
    return tuple(chosen.values())


def _made_again(desk: Desk, row: Row) -> dict[int, Record]:
    """The row's records as they come out now, by seed; what another row had made is taken."""
    for stack in row.stacks:
        first = next(r for r in row.records.values() if r["key"] in stack.keys)
        plan = replace(desk.plan, stacks=(stack,), threads=first.get("threads", desk.plan.threads))
        with progress.reporter([stack]) as bars:
            local.run(
                local.Work(
                    desk.experiment, plan, desk.scratch, desk.device, desk.options.data, bars, False
                )
            )
    made = {record["key"]: record for record in desk.scratch.read()}
    return {seed: made[record["key"]] for seed, record in row.doubted.items()}


def _keep(desk: Desk, row: Row) -> None:
    """Keeps that the older code's numbers came out again; nothing where no code is older."""
    compared = row.doubted
    sources = {record["source"] for record in compared.values()} - {row.source}
    if not sources:
        return
    seeds = {str(seed): numbers_digest(compared[seed]) for seed in sorted(compared)}
    using = {name: versions()[name] for name in ("torch", "python")}
    line = Confirmation(
        row.method, row.setting, row_key(row.config), seeds, tuple(sorted(sources)), row.source,
        using, desk.device.type,
    )  # fmt: skip
    confirmations.add(desk.store, line)


def _conditions(row: Row, again: Mapping[int, Record]) -> str:
    """What else than the code has changed since the records were made; empty if nothing has."""
    changed = {
        f"{name} {old} then, {new} now"
        for seed, record in again.items()
        for (name, old), new in zip(
            _circumstances(row.records[seed]).items(),
            _circumstances(record).values(),
            strict=True,
        )
        if old is not None and old != new
    }
    return f" (not only the code: {'; '.join(sorted(changed))})" if changed else ""


def _circumstances(record: Record) -> dict[str, object]:
    """What besides the code the last digits may depend on."""
    used = record.get("versions", {})
    return {
        "torch": used.get("torch"),
        "python": used.get("python"),
        "seeds in a stack:": record.get("stack"),
        "threads:": record.get("threads"),
        "machine:": record.get("host"),
    }


def _write(desk: Desk) -> None:
    """Writes the table anew, with fewer stale rows perhaps; not one that lacks runs."""
    records = records_by_key(desk.plan, desk.store)
    if all(key in records for key, _ in desk.plan.cells):
        paths = outputs.write_table(desk.experiment, desk.plan, desk.store)
        print("Written: " + ", ".join(str(path) for path in paths))
    else:
        name = desk.experiment.outputs or desk.experiment.name
        notice(f"{name} is not written anew: it lacks runs, which `tlresearch run` makes")
