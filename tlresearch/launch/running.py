"""What `tlresearch run` and `table` do: plan, what is missing, table; the selection before it."""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from tlresearch import experiment as experiments
from tlresearch import families
from tlresearch.errors import AgreedError, UserError, notice
from tlresearch.experiment import Experiment
from tlresearch.files import claim, silently
from tlresearch.launch import local, progress, stopping, trackers, tuning, tuning_notes
from tlresearch.launch import plan as plans
from tlresearch.launch.local import Reporter
from tlresearch.launch.outputs import output_name, records_of, table_of, write_outputs
from tlresearch.launch.plan import Plan, Stack, make_plan, write_plan
from tlresearch.launch.waiting import (
    Outdated,
    left_of_rerun,
    missing_stacks,
    outdated,
    rerun_path,
    write_rerun,
)
from tlresearch.results import confirmations, tables
from tlresearch.results.store import Store
from tlresearch.training import device as devices
from tlresearch.training import distributed
from tlresearch.training.distributed import Processes


@dataclass(frozen=True)
class Desk:
    """What the command line says, and on what it is done."""

    options: argparse.Namespace
    device: torch.device
    processes: Processes

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes."""
        return self.processes.is_main

    def stores(self, experiment: Experiment) -> tuple[Store, Store]:
        """Where an experiment's records lie, and its plan."""
        root = self.options.results
        return Store(root, experiment.name), Store(root, output_name(experiment))

    def plan(self, experiment: Experiment) -> Plan:
        """The plan of an experiment: what is on disk, continued."""
        _, store = self.stores(experiment)
        return make_plan(experiment, store, self.device, True, self.processes.size)


def run(options: argparse.Namespace) -> int:
    """Runs what an experiment lacks, prints and writes its table.

    Returns:
        1 if a seed of the table failed, else 0; of several processes 2 if they refused together.

    Raises:
        UserError: the file, the data or the folders cannot be used.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, with notes on what is kept.
    """
    with stopping.terminable():
        try:
            return _join(options)
        except KeyboardInterrupt as stop:
            stop.add_note(f"go on with: {options.line}")
            raise


def _join(options: argparse.Namespace) -> int:
    device = devices.choose_device(options.device)
    devices.prepare_process(options.threads)
    processes = distributed.join(device)
    try:
        return _run(Desk(options, processes.device(device), processes))
    except AgreedError as error:
        if processes.is_main:
            print(f"tlresearch: {error}", file=sys.stderr, flush=True)
        processes.barrier()  # torchrun ends the others as soon as one has failed
        return 2


def _run(desk: Desk) -> int:
    """What each process does; the main one prints and writes."""
    options = desk.options
    with desk.processes.alike():
        trackers.check(options.track)
        experiment = load(options, desk.device)
    if experiment.header.select and experiment.choice is None:
        tuned = _tuned(desk, experiment)
        if tuned is None:
            return 0
        experiment = tuned
    made = _work(desk, experiment)
    failed = 0
    if desk.is_main and not options.dry_run:
        failed = _finish(desk, experiment, made)
    desk.processes.barrier()
    return 1 if failed else 0


def _finish(desk: Desk, experiment: Experiment, made: Plan) -> int:
    """Writes and prints the table; how many runs failed."""
    store, _ = desk.stores(experiment)
    paths = write_outputs(experiment, made, store)
    records = records_of(made, store)
    print(tables.to_markdown(table_of(experiment, records, confirmations.read(store))))
    print("Written: " + ", ".join(str(path) for path in paths))
    return sum(record["status"] == "failed" for record in records)


def _tuned(desk: Desk, experiment: Experiment) -> Experiment | None:
    """The experiment with the values that its selection chooses, after what it lacks is run.

    None in a dry run of a selection that lacks runs.
    """
    with desk.processes.alike():
        selection = tuning.selection_of(experiment)
    made = _work(desk, selection)
    store, _ = desk.stores(selection)
    if desk.options.dry_run and missing_stacks(made, store):
        if desk.is_main:
            runs = len(experiment.cells)
            print(f"{experiment.name}: {runs} runs, once these have chosen its values")
            print(progress.details(experiment, desk.options.data))
        return None
    desk.processes.barrier()  # all records are written before anybody reads them
    with desk.processes.alike():
        choice = tuning.choose(selection, made, records_of(made, store))
        if desk.is_main and not desk.options.dry_run:
            paths = write_outputs(selection, made, store)
            paths.append(tuning.write_choice(selection, choice, store))
            print("Written: " + ", ".join(str(path) for path in paths))
        tuned = tuning.with_choice(experiment, choice)
    if desk.is_main:
        for line in tuning_notes.warnings(choice):
            print(line)
    return tuned


def _work(desk: Desk, experiment: Experiment) -> Plan:
    """Shows the plan and, unless it is a dry run, runs what has no record."""
    options, processes = desk.options, desk.processes
    store, plan_store = desk.stores(experiment)
    with processes.alike():
        for sentence in store.repair() if desk.is_main and not options.dry_run else []:
            notice(sentence)
    with processes.alike():
        made = desk.plan(experiment)
        confirmations.read(store)  # what would refuse the table is to refuse the work before it
        again = _again(desk, experiment, made)
        waiting = missing_stacks(made, store, again)
        if desk.is_main:
            for note in made.notes:
                notice(note)
            stale = 0 if options.rerun else len(outdated(made, store, "stale"))
            text = progress.plan_text(experiment, made, waiting, len(again), options.rerun, stale)
            print(text, flush=True)
            if options.dry_run and not experiment.outputs:  # a selection's are its table's
                print(progress.details(experiment, options.data))
        if options.dry_run:
            return made
        if waiting:
            check_threads(options, made, plan_store)
    with processes.alike():
        if desk.is_main:  # loading may download
            if waiting:
                check_data(experiment, options.data)
            check_writable(options.results)
            made = _begin(desk, experiment, again) if waiting else made
            local.tidy(made, store, again)
            _forget_rerun(desk, experiment, made, again)
    if not waiting:
        return made
    with processes.alike():
        made = made if desk.is_main else desk.plan(experiment)
    with _reporting(desk, experiment, made, missing_stacks(made, store, again)) as reporter:
        streamed = {"auto": None, "always": True, "never": False}[options.stream]
        keep, root = not options.no_weights, options.data
        local.run(
            local.Work(
                experiment, made, store, desk.device, root, reporter, keep, processes, streamed
            ),
            again,
        )
    if desk.is_main:
        _forget_rerun(desk, experiment, made, again)
    return made


def _again(desk: Desk, experiment: Experiment, made: Plan) -> Outdated:
    """What `--rerun` makes again; of one that was stopped, what it left."""
    which = desk.options.rerun
    if which is None:
        return {}
    store, plan_store = desk.stores(experiment)
    left = left_of_rerun(made, store, plan_store, which)
    if left is None:
        return outdated(made, store, which)
    if desk.is_main:
        notice(
            f"going on with the --rerun {which} that was stopped; to begin it anew, remove "
            f"{rerun_path(plan_store)}"
        )
    return left


def _forget_rerun(desk: Desk, experiment: Experiment, made: Plan, again: Outdated) -> None:
    """Once nothing is missing, a rerun is done; one that was not asked for again is given up."""
    store, plan_store = desk.stores(experiment)
    path = rerun_path(plan_store)
    if path.exists() and not missing_stacks(made, store, again):
        path.unlink(missing_ok=True)


@contextmanager
def _reporting(
    desk: Desk, experiment: Experiment, made: Plan, waiting: list[Stack]
) -> Iterator[Reporter]:
    """Progress bars and trackers; nothing but in the main process."""
    if not desk.is_main:
        yield Reporter()
        return
    options = desk.options
    with (
        progress.reporter(waiting, bars=not made.debug) as bars,
        trackers.following(options.track, experiment.name, options.results, bars) as reporter,
    ):
        yield reporter


def _begin(desk: Desk, experiment: Experiment, again: Outdated) -> Plan:
    """Writes the plan, and what is made again.

    Of two commands that begin a table the second takes the first one's plan.
    """
    _, plan_store = desk.stores(experiment)
    with claim(plan_store.lock_path, silently):
        for sentence in plans.repair(plan_store):
            notice(sentence)
        made = desk.plan(experiment)
        check_threads(desk.options, made, plan_store)
        write_plan(made, plan_store)
        if again and not made.debug:
            write_rerun(plan_store, desk.options.rerun, again)
    return made


def load(options: argparse.Namespace, device: torch.device) -> Experiment:
    """The experiment; with --best the values that its file chose before are in place."""
    check_root(options.data)
    experiment = experiments.load(options.file, options.overrides)
    if not options.best:
        return experiment
    for override in options.overrides:
        if override.strip().startswith("select"):
            raise UserError(
                f"argument '{override}': --best takes what {options.file} has chosen; leave --best "
                "out to choose anew"
            )
    selection = tuning.selection_of(experiments.load(options.file))
    if experiment.overrides:
        words = (*experiment.overrides, "--best")
        experiment = dataclasses.replace(experiment, overrides=words)
    choice = tuning.read_choice(selection, *plan_and_store(options, selection, device))
    return tuning.with_choice(experiment, choice)


def plan_and_store(
    options: argparse.Namespace, experiment: Experiment, device: torch.device
) -> tuple[Plan, Store]:
    """The plan of an experiment that is only read, and the store of its records."""
    plan_store = Store(options.results, output_name(experiment))
    return make_plan(experiment, plan_store, device), Store(options.results, experiment.name)


def table(options: argparse.Namespace) -> int:
    """Prints the table of an experiment from its records."""
    device = torch.device("cpu")
    experiment = load(options, device)
    if experiment.header.select and experiment.choice is None:
        selection = tuning.selection_of(experiment)
        made, store = plan_and_store(options, selection, device)
        choice = tuning.choose(selection, made, records_of(made, store))
        experiment = tuning.with_choice(experiment, choice)
    made, store = plan_and_store(options, experiment, device)
    writer = {"md": tables.to_markdown, "csv": tables.to_csv, "latex": tables.to_latex}
    lines = confirmations.read(store)
    print(writer[options.format](table_of(experiment, records_of(made, store), lines)), end="")
    return 0


def check_threads(options: argparse.Namespace, made: Plan, plan_store: Store) -> None:
    """Refuses another number of threads than the plan's."""
    if options.threads not in (None, made.threads):
        raise UserError(
            f"--threads: {plan_store.plan_path} was made for {made.threads} threads, and its "
            "runs would differ in their last digits; leave --threads out, or name another "
            "--results folder"
        )


def check_data(experiment: Experiment, root: Path | None) -> None:
    """Refuses before any work data and other files that are missing or damaged."""
    for cell in {id(cell.config): cell for cell in experiment.cells}.values():
        families.protocol(cell.config.family).load_data(cell.config.benchmark, root)
        families.check_files(cell.config, cell.method, root)


def check_root(root: Path | None) -> None:
    """Refuses a data root that is no folder.

    Raises:
        UserError: it is none.
    """
    if root is not None and not root.is_dir():
        raise UserError(f"--data: {root} is no folder; expected the data root")


def check_writable(folder: Path) -> None:
    """Refuses before any work what would fail after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"--results: {folder} cannot be written ({error.strerror}); "
            "choose another folder or change its permissions"
        ) from None
