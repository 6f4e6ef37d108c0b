"""Files that are written whole or not at all, and claims that end with their process.

Claims and the locks on temporary files are `flock`s, which the kernel releases when a process
dies, however it dies. Where the system has none (Windows, some network file systems) every claim
is granted and leftovers stay: one process at a time is then the user's affair.
"""

import contextlib
import errno
import os
import platform
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

from tlresearch.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk, a full quota, a file beyond its limit."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def unwritable(path: Path | str, error: OSError) -> UserError:
    """The error for a place that cannot be written, with what to do about it."""
    if error.errno in FULL:
        advice = "make room, and the same command goes on where it was"
    else:
        advice = "give a folder that you may write to"
    return UserError(f"cannot write {path}: {error.strerror or error}; {advice}.")


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file whole or not at all; makes missing folders.

    The content goes to a temporary name in the same folder, is flushed to the disk, then renamed.

    Args:
        path: the file.
        write: given the open temporary file, writes the content.

    Raises:
        UserError: the place cannot be written (permission, full disk, a file in the way).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, file = _open_temporary(path)
        try:
            with file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # gone after a rename
                temporary.unlink()
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None:
            raise
        raise unwritable(path, cause) from error
    _flush_folder(path.parent)


def write_text_atomic(path: Path, text: str) -> None:
    """Writes UTF-8 text whole or not at all; as `write_atomic`."""
    write_atomic(path, lambda file: file.write(text.encode()))


def append_text(path: Path, text: str) -> None:
    """Adds UTF-8 text to a file, or leaves the file as it was; makes missing folders.

    Raises:
        UserError: the place cannot be written.
    """
    size = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as file:
            size, content = file.tell(), text.encode()
            try:
                while content:
                    content = content[file.write(content) :]
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise unwritable(path, error) from error


def set_aside(path: Path) -> Path:
    """Renames a file that cannot be used to `NAME.unreadable`, or `NAME.unreadable2`, … .

    Returns:
        The new name.

    Raises:
        UserError: the folder cannot be written.
    """
    aside = free_name(path)
    try:
        os.replace(path, aside)
    except OSError as error:
        raise unwritable(aside, error) from error
    return aside


def free_name(path: Path) -> Path:
    """The first name of `NAME.unreadable`, `NAME.unreadable2`, … that is not taken."""
    number = 1
    while True:
        free = path.with_name(f"{path.name}.unreadable{number if number > 1 else ''}")
        if not free.exists():
            return free
        number += 1


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Removes those of `paths` that are temporary files whose writer was killed.

    A file that is being written is locked by its writer, and stays.
    """
    for path in paths:
        if _TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError), open(path, "r+b") as file:
                if _lock(file):
                    path.unlink()


@contextlib.contextmanager
def claim(path: Path, wait: Callable[[str], None] | None = None) -> Iterator[bool]:
    """Claims what the file `path` stands for, until the block or the process ends.

    Args:
        path: the file, made by the claim and removed at its end.
        wait: told who holds the claim before it is waited for; None: nothing is waited for.

    Yields:
        Whether the claim is ours; always, if it is waited for.

    Raises:
        UserError: the file cannot be made.
    """
    file = _take(path, wait)
    if file is None:
        yield False
        return
    try:
        yield True
    finally:
        # Removed while it is still locked: whoever waits sees that the file has gone.
        with contextlib.suppress(OSError):
            path.unlink()
        file.close()


def silently(holder: str) -> None:
    """For claims that others hold for moments only: waits, and says nothing."""


def _take(path: Path, wait: Callable[[str], None] | None) -> IO[str] | None:
    """The open, locked file of a claim; None if another process has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115, closed by the claim's end
            if _lock(file) is False:
                if wait is None:
                    file.close()
                    return None
                file.seek(0)
                wait(file.read() or "another process")
                _lock(file, wait=True)
            if _is_named(file, path):
                break
            file.close()
    except OSError as error:
        raise unwritable(path, error) from error
    with contextlib.suppress(OSError):  # who holds it is a courtesy
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
    return file


def _lock(file: IO[str] | BinaryIO, wait: bool = False) -> bool | None:
    """Locks an open file: whether it worked, or None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _is_named(file: IO[str] | BinaryIO, path: Path) -> bool:
    """Whether the open file still is the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _open_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside `path`, locked so that nobody takes it for a leftover."""
    while True:
        temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
        file = open(temporary, "xb")  # noqa: SIM115, closed by the caller
        _lock(file)
        if _is_named(file, temporary):  # else it was taken for one before it was locked
            return temporary, file
        file.close()


def _os_error(error: BaseException | None) -> OSError | None:
    """The error of the system behind an error: torch's writer hides a full disk in its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _flush_folder(folder: Path) -> None:
    """Makes a rename survive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
