"""The command `tlresearch`: run, table, confirm, export, list, describe, data.

torch and the rest are imported when a command needs them, so that `--help` answers at once and
OpenMP's settings are in place before torch reads them.
"""

import argparse
import os
import sys
from bdb import BdbQuit
from collections.abc import Sequence
from pathlib import Path

from tlresearch import __version__
from tlresearch.errors import UserError
from tlresearch.files import FULL, unwritable
from tlresearch.launch import stopping


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code.

    Returns:
        0, or 1 (a seed failed, a row differs), 2 (bad input, a full disk), 130 (Ctrl-C), 143
        (SIGTERM).
    """
    options = _parse(arguments)
    options.line = stopping.command_line(arguments)
    _pin_threads(options)
    try:
        code = options.command(options)
        sys.stdout.flush()  # here, where a reader that has gone is no error
        return code
    except UserError as error:
        print(f"tlresearch: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, BdbQuit) as stop:
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


def _pin_threads(options: argparse.Namespace) -> None:
    """Before torch is imported. Unbound threads were seen at the speed of one.

    Only where a command has all cores: threads are bound to the first ones, and commands beside
    each other, of a few threads each, would share those and leave the others idle.
    """
    few = getattr(options, "threads", None) or os.environ.get("OMP_NUM_THREADS")
    if "torch" not in sys.modules and not few:
        os.environ.setdefault("OMP_PROC_BIND", "true")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tlresearch",
        description="Transfer techniques, reproduced: from an experiment file to a table.",
    )
    parser.add_argument("--version", action="version", version=f"tlresearch {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    table = commands.add_parser("table", help="print the table of an experiment from its records")
    _add_experiment(table)
    _add_best(table)
    table.add_argument("--format", choices=["md", "csv", "latex"], default="md")
    table.set_defaults(command=_table)
    _add_confirm(commands)
    export = commands.add_parser("export", help="a run's weights for plain PyTorch or timm")
    export.add_argument(
        "run", help="TABLE/METHOD[/SETTING]/seedN, the start of a key, or a record's path"
    )
    export.add_argument("--to", type=Path, metavar="FILE", help="default: METHOD-seedN.safetensors")
    export.add_argument("--force", action="store_true", help="replace the file if it is there")
    _add_results(export)
    export.set_defaults(command=_export)
    listing = commands.add_parser("list", help="methods, datasets, backbones or experiments")
    listing.add_argument(
        "what", nargs="?", choices=["methods", "datasets", "backbones", "experiments"]
    )
    listing.set_defaults(command=_list)
    describe = commands.add_parser(
        "describe", help="settings of a method, backbone, family or train"
    )
    describe.add_argument("name", help="e.g. ewc, mlp, continual, train, ./mine.py:Mine")
    describe.set_defaults(command=_describe)
    data = commands.add_parser(
        "data", help="every data set, where it was found; or check its files"
    )
    data.add_argument("action", nargs="?", choices=["list", "verify"], default="list")
    _add_data(data)
    data.set_defaults(command=_data)
    return parser


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = commands.add_parser(
        "run", help="run what an experiment file still lacks, print its table"
    )
    _add_experiment(run)
    run.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    run.add_argument("--threads", type=_positive, help="CPU threads (default: torch's choice)")
    run.add_argument(
        "--stream",
        choices=["auto", "always", "never"],
        default="auto",
        help="keep images in host memory; auto: where they exceed half of the GPU's free memory",
    )
    run.add_argument("--dry-run", action="store_true", help="show the plan and stop")
    run.add_argument(
        "--rerun",
        choices=["stale", "failed", "all"],
        help="make finished runs again: those of older code, those that failed, or all",
    )
    _add_best(run)
    run.add_argument(
        "--track",
        action="append",
        default=[],
        choices=["wandb", "tensorboard"],
        help="also tell a tracker of each run (may be given twice); wandb is offline by default",
    )
    run.add_argument("--no-weights", action="store_true", help="do not keep final weights")
    run.set_defaults(command=_run)


def _add_confirm(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    confirm = commands.add_parser(
        "confirm",
        help="make a part of each stale row again, and see whether it is the same bit for bit",
    )
    _add_experiment(confirm)
    confirm.add_argument(
        "--seeds",
        choices=["first", "all"],
        default="first",
        help="of a row the first stack of seeds, or all (default: first)",
    )
    confirm.add_argument("--all", action="store_true", help="rows that are not stale, too")
    confirm.add_argument("--threads", type=_positive, help="CPU threads, which the plan must have")
    _add_best(confirm)
    confirm.set_defaults(command=_confirm)


def _add_experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="experiment file (YAML)")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="dotted.key=value",
        help="e.g. train.steps=500; key=1,2,3 sweeps",
    )
    _add_results(parser)
    _add_data(parser)


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="results folder (default: results)"
    )


def _add_best(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--best",
        action="store_true",
        help="with the values that the file's 'select' chose before, overrides or not",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="data root (default: $TLRESEARCH_DATA)")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected a whole number of at least 1")
    return value


def _run(options: argparse.Namespace) -> int:
    from tlresearch.launch import running

    return running.run(options)


def _table(options: argparse.Namespace) -> int:
    from tlresearch.launch import running

    return running.table(options)


def _confirm(options: argparse.Namespace) -> int:
    from tlresearch.launch import confirming

    return confirming.confirm(options)


def _export(options: argparse.Namespace) -> int:
    from tlresearch import exporting

    path, lines = exporting.export(options.run, options.results, options.to, options.force)
    print("\n".join([f"Written: {path}", *lines]))
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

    if options.data is not None and not options.data.is_dir():
        raise UserError(f"--data: {options.data} is no folder; expected the data root")
    if options.action == "verify":
        text, sound = inspection.verified(options.data)
        print(text)
        return 0 if sound else 1
    print(inspection.datasets(options.data))
    return 0
