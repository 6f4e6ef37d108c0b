"""The command `tlresearch`: run, table, list, describe, data.

torch and the rest are imported when a command needs them, so that `--help` answers at once and
OpenMP's settings are in place before torch reads them.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlresearch import __version__
from tlresearch.errors import UserError, notice
from tlresearch.files import FULL, claim, silently, unwritable
from tlresearch.launch import stopping


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code.

    Returns:
        0, or 1 (a seed failed), 2 (bad input, a full disk), 130 (Ctrl-C), 143 (SIGTERM).
    """
    options = _parse(arguments)
    options.line = stopping.command_line(arguments)
    _pin_threads()
    try:
        code = options.command(options)
        sys.stdout.flush()  # here, where a reader that has gone is no error
        return code
    except UserError as error:
        print(f"tlresearch: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        said, code = stopping.ending(stop)
        print(f"\ntlresearch: {said}", file=sys.stderr)
        return code
    except BrokenPipeError:
        _drop_output()  # the reader (head, less) has gone
        return 0
    except OSError as error:
        if error.errno not in FULL:
            raise
        _drop_output()
        print(f"tlresearch: {unwritable(error.filename or 'the output', error)}", file=sys.stderr)
        return 2


def _drop_output() -> None:
    """Nobody takes what is still buffered; a second error at exit would only confuse."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """argparse takes overrides only before the options; people also write them behind."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(options, "overrides") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def _pin_threads() -> None:
    """Before torch is imported. Unbound threads were seen at the speed of one."""
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_PROC_BIND", "true")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tlresearch",
        description="Transfer techniques, reproduced: from an experiment file to a table.",
    )
    parser.add_argument("--version", action="version", version=f"tlresearch {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="run what an experiment file still lacks, print its table"
    )
    _add_experiment(run)
    run.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    run.add_argument("--threads", type=_positive, help="CPU threads (default: torch's choice)")
    run.add_argument("--dry-run", action="store_true", help="show the plan and stop")
    run.add_argument(
        "--rerun",
        choices=["stale", "failed", "all"],
        help="make finished runs again: those of older code, those that failed, or all",
    )
    run.set_defaults(command=_run)
    table = commands.add_parser("table", help="print the table of an experiment from its records")
    _add_experiment(table)
    table.add_argument("--format", choices=["md", "csv", "latex"], default="md")
    table.set_defaults(command=_table)
    listing = commands.add_parser("list", help="methods, datasets, backbones or experiments")
    listing.add_argument(
        "what", nargs="?", choices=["methods", "datasets", "backbones", "experiments"]
    )
    listing.set_defaults(command=_list)
    describe = commands.add_parser(
        "describe", help="settings of a method, backbone, family or train"
    )
    describe.add_argument("name", help="e.g. ewc, mlp, continual, train")
    describe.set_defaults(command=_describe)
    data = commands.add_parser(
        "data", help="every data set, where it was found; or check its files"
    )
    data.add_argument("action", nargs="?", choices=["list", "verify"], default="list")
    _add_data(data)
    data.set_defaults(command=_data)
    return parser


def _add_experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="experiment file (YAML)")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="dotted.key=value",
        help="e.g. train.steps=500; key=1,2,3 sweeps",
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="results folder (default: results)"
    )
    _add_data(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="data root (default: $TLRESEARCH_DATA)")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected a whole number of at least 1")
    return value


def _run(options: argparse.Namespace) -> int:
    with stopping.terminable():
        try:
            return _run_table(options)
        except KeyboardInterrupt as stop:
            stop.add_note(f"go on with: {options.line}")
            raise


def _run_table(options: argparse.Namespace) -> int:
    from tlresearch.launch import local, progress
    from tlresearch.launch.outputs import records_of, table_of, write_outputs
    from tlresearch.launch.waiting import missing_stacks, outdated
    from tlresearch.results.tables import to_markdown
    from tlresearch.training.device import choose_device, prepare_process

    device = choose_device(options.device)
    prepare_process(options.threads)
    experiment, plan, store, plan_store = _prepare(options, device, repair=not options.dry_run)
    again = outdated(plan, store, options.rerun) if options.rerun else {}
    waiting = missing_stacks(plan, store, again)
    print(progress.plan_text(experiment, plan, waiting, len(again), options.rerun), flush=True)
    if options.dry_run:
        return 0
    _check_threads(options, plan, plan_store)
    if waiting:
        _check_data(experiment, options.data)
    _check_writable(options.results)
    if waiting:
        plan = _begin(experiment, plan_store, device)
        _check_threads(options, plan, plan_store)
    local.tidy(plan, store, again)
    if waiting:
        with progress.reporter(missing_stacks(plan, store, again)) as reporter:
            local.run(experiment, plan, store, device, options.data, reporter, again)
    with claim(plan_store.lock_path, silently):
        paths = write_outputs(experiment, plan, store)
    records = records_of(plan, store)
    print(to_markdown(table_of(experiment, records)))
    print("Written: " + ", ".join(str(path) for path in paths))
    failed = sum(record["status"] == "failed" for record in records)
    return 1 if failed else 0


def _begin(experiment: Any, plan_store: Any, device: Any) -> Any:
    """The plan on disk; of two processes that begin a table the second takes the first one's."""
    from tlresearch.launch import plan as plans

    with claim(plan_store.lock_path, silently):
        for sentence in plans.repair(plan_store):
            notice(sentence)
        plan = plans.make_plan(experiment, plan_store, device)
        plans.write_plan(plan, plan_store)
    return plan


def _check_threads(options: argparse.Namespace, plan: Any, plan_store: Any) -> None:
    if options.threads not in (None, plan.threads):
        raise UserError(
            f"--threads: {plan_store.plan_path} was made for {plan.threads} threads, and its "
            "runs would differ in their last digits; leave --threads out, or name another "
            "--results folder"
        )


def _prepare(
    options: argparse.Namespace, device: Any, repair: bool = False
) -> tuple[Any, Any, Any, Any]:
    """Experiment, plan, and the stores of its records and of its plan.

    With `repair`, records that cannot be read are named and set aside; without it they are errors.
    """
    from tlresearch import experiment as experiments
    from tlresearch.launch.outputs import output_name
    from tlresearch.launch.plan import make_plan
    from tlresearch.results.store import Store

    _check_root(options.data)
    experiment = experiments.load(options.file, options.overrides)
    store = Store(options.results, experiment.name)
    plan_store = Store(options.results, output_name(experiment))
    for sentence in store.repair() if repair else []:
        notice(sentence)
    return experiment, make_plan(experiment, plan_store, device), store, plan_store


def _check_data(experiment: Any, root: Path | None) -> None:
    """Refuses before any work data that are missing or damaged."""
    from tlresearch.data import catalogue

    for name in sorted({cell.config.benchmark.dataset for cell in experiment.cells}):
        catalogue.load(name, root)


def _check_root(root: Path | None) -> None:
    if root is not None and not root.is_dir():
        raise UserError(f"--data: {root} is no folder; expected the data root")


def _check_writable(folder: Path) -> None:
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


def _table(options: argparse.Namespace) -> int:
    import torch

    from tlresearch.launch.outputs import records_of, table_of
    from tlresearch.results import tables

    experiment, plan, store, _ = _prepare(options, torch.device("cpu"))
    writer = {"md": tables.to_markdown, "csv": tables.to_csv, "latex": tables.to_latex}
    print(writer[options.format](table_of(experiment, records_of(plan, store))), end="")
    return 0


def _list(options: argparse.Namespace) -> int:
    from tlresearch import inspection

    print(inspection.listing(options.what))
    return 0


def _describe(options: argparse.Namespace) -> int:
    from tlresearch import inspection

    print(inspection.describe(options.name))
    return 0


def _data(options: argparse.Namespace) -> int:
    from tlresearch import inspection

    _check_root(options.data)
    if options.action == "verify":
        text, sound = inspection.verified(options.data)
        print(text)
        return 0 if sound else 1
    print(inspection.datasets(options.data))
    return 0
