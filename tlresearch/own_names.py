"""Names of own code inside the settings of a method: `teacher: {backbone: {name: ./net.py:make}}`.

Such settings stay plain values until they are used, long after the experiment file was read; their
names keep the folder of that file, and what they stood for when they were first used. In records
and keys they are the texts that they are.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tlresearch import own


class OwnName(str):
    """`FILE.py:NAME`, equal to the text, and the folder that the path is relative to."""

    folder: Path
    found: Any = None
    """What it stands for, once that was asked."""


def placed(value: Any, folder: Path) -> Any:
    """Raw settings in which each text of the form `FILE.py:NAME` is an `OwnName`.

    Args:
        value: dicts, lists and scalars, not changed.
        folder: that of the experiment file.
    """
    if isinstance(value, dict):
        return {key: placed(item, folder) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(placed(item, folder) for item in value)
    if not own.is_own(value):
        return value
    name = OwnName(value)
    name.folder = folder.absolute()
    return name


def once(name: str, find: Callable[[Path], Any]) -> Any:
    """What a name stands for, by `find(folder)`: the first answer, whatever becomes of the file.

    So a run is made by the code that was hashed when its experiment was read. A plain text, which
    no experiment file gave, is looked for from the current folder each time.
    """
    if not isinstance(name, OwnName):
        return find(Path())
    if name.found is None:
        name.found = find(name.folder)
    return name.found
