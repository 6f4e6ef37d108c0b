"""The command `tlresearch`: run, table, list, describe, data.

torch and the rest are imported when a command needs them, so that `--help` answers at once and
OpenMP's settings are in place before torch reads them.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlresearch import __version__
from tlresearch.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, or 1 (a seed failed), 2 (bad input), 130 (Ctrl-C)."""
    options = _parse(arguments)
    _pin_threads()
    try:
        code = options.command(options)
        sys.stdout.flush()  # here, where a reader that has gone is no error
        return code
    except UserError as error:
        print(f"tlresearch: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ntlresearch: stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; a second error at exit would only confuse.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


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
    _add_best(run)
    run.add_argument("--dry-run", action="store_true", help="show the plan and stop")
    run.set_defaults(command=_run)
    table = commands.add_parser("table", help="print the table of an experiment from its records")
    _add_experiment(table)
    _add_best(table)
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


def _add_best(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--best", action="store_true",
        help="with the values that the file's 'select' chose before, overrides or not",
    )  # fmt: skip


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="data root (default: $TLRESEARCH_DATA)")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected a whole number of at least 1")
    return value


def _run(options: argparse.Namespace) -> int:
    from tlresearch.launch.outputs import records_of, table_of, write_outputs
    from tlresearch.results.tables import to_markdown
    from tlresearch.training.device import choose_device, prepare_process

    device = choose_device(options.device)
    prepare_process(options.threads)
    experiment = _load(options, device)
    if experiment.header.select and experiment.choice is None:
        experiment = _tuned(experiment, options, device)
    if experiment is None:  # a dry run, and the values are still to be chosen
        return 0
    plan, store = _work(experiment, options, device)
    if options.dry_run:
        return 0
    paths = write_outputs(experiment, plan, store)
    records = records_of(plan, store)
    print(to_markdown(table_of(experiment, records)))
    print("Written: " + ", ".join(str(path) for path in paths))
    failed = sum(record["status"] == "failed" for record in records)
    return 1 if failed else 0


def _tuned(experiment: Any, options: argparse.Namespace, device: Any) -> Any:
    """The experiment with values in place that its selection chooses, after what it lacks is run.

    None in a dry run of a selection that lacks runs.
    """
    from tlresearch.launch import tuning, tuning_notes
    from tlresearch.launch.local import missing_stacks
    from tlresearch.launch.outputs import records_of, write_outputs

    selection = tuning.selection_of(experiment)
    plan, store = _work(selection, options, device)
    if options.dry_run and missing_stacks(plan, store):
        print(f"{experiment.name}: {len(experiment.cells)} runs, once these have chosen its values")
        return None
    choice = tuning.choose(selection, plan, records_of(plan, store))
    if not options.dry_run:
        paths = [*write_outputs(selection, plan, store)]
        paths.append(tuning.write_choice(selection, choice, store))
        print("Written: " + ", ".join(str(path) for path in paths))
    for line in tuning_notes.warnings(choice):
        print(line)
    return tuning.with_choice(experiment, choice)


def _work(experiment: Any, options: argparse.Namespace, device: Any) -> tuple[Any, Any]:
    """Shows the plan and, unless it is a dry run, runs what has no record; plan and store."""
    from tlresearch.launch import local, progress
    from tlresearch.launch.plan import write_plan

    plan, store, plan_store = _planned(experiment, options, device)
    waiting = local.missing_stacks(plan, store)
    print(progress.plan_text(experiment, plan, waiting))
    if options.dry_run:
        return plan, store
    if options.threads not in (None, plan.threads):
        raise UserError(
            f"--threads: {plan_store.plan_path} was made for {plan.threads} threads, and its "
            "runs would differ in their last digits; leave --threads out, or name another "
            "--results folder"
        )
    if waiting:
        _check_data(experiment, options.data)
    _check_writable(options.results)
    if waiting:
        write_plan(plan, plan_store)
        with progress.reporter(waiting) as reporter:
            local.run(experiment, plan, store, device, options.data, reporter)
    return plan, store


def _load(options: argparse.Namespace, device: Any) -> Any:
    """The experiment; with --best the values that its file chose before are in place."""
    import dataclasses

    from tlresearch import experiment as experiments
    from tlresearch.launch import tuning

    _check_root(options.data)
    experiment = experiments.load(options.file, options.overrides)
    if not options.best:
        return experiment
    selection = tuning.selection_of(experiments.load(options.file))
    plan, store, _ = _planned(selection, options, device)
    if experiment.overrides:
        words = (*experiment.overrides, "--best")
        experiment = dataclasses.replace(experiment, overrides=words)
    return tuning.with_choice(experiment, tuning.read_choice(selection, plan, store))


def _planned(experiment: Any, options: argparse.Namespace, device: Any) -> tuple[Any, Any, Any]:
    """The plan of an experiment, and the stores of its records and of its plan."""
    from tlresearch.launch.outputs import output_name
    from tlresearch.launch.plan import make_plan
    from tlresearch.results.store import Store

    store = Store(options.results, experiment.name)
    plan_store = Store(options.results, output_name(experiment))
    return make_plan(experiment, plan_store, device), store, plan_store


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
        probe = folder / f".write-test-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"--results: {folder} cannot be written ({error.strerror}); "
            "choose another folder or change its permissions"
        ) from None


def _table(options: argparse.Namespace) -> int:
    import torch

    from tlresearch.launch import tuning
    from tlresearch.launch.outputs import records_of, table_of
    from tlresearch.results import tables

    device = torch.device("cpu")
    experiment = _load(options, device)
    if experiment.header.select and experiment.choice is None:
        selection = tuning.selection_of(experiment)
        plan, store, _ = _planned(selection, options, device)
        choice = tuning.choose(selection, plan, records_of(plan, store))
        experiment = tuning.with_choice(experiment, choice)
    plan, store, _ = _planned(experiment, options, device)
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
