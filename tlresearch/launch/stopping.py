"""Ctrl-C, and the signal by which clusters stop a job: how a command ends that was stopped."""

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within the block, SIGTERM raises `Terminated`; outside the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def command_line(arguments: Sequence[str] | None) -> str:
    """The command as one would type it again.

    Args:
        arguments: what stands behind the command's name; None: this process's own.
    """
    module = Path(sys.argv[0]).name == "__main__.py"
    program = [Path(sys.executable).name, "-m", "tlresearch"] if module else ["tlresearch"]
    return shlex.join([*program, *(sys.argv[1:] if arguments is None else arguments)])


def ending(stop: BaseException) -> tuple[str, int]:
    """What a stopped command says, and its exit code: 130 after Ctrl-C, 143 after SIGTERM."""
    said = "; ".join(["stopped", *getattr(stop, "__notes__", [])])
    return said, 143 if isinstance(stop, Terminated) else 130
