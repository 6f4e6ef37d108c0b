"""Arrays of MATLAB's .mat files."""

import struct
import zlib
from pathlib import Path

import numpy as np

from tlresearch.data.attributes import damaged

_UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, NotImplementedError),
    *(OverflowError, zlib.error, struct.error),
)
"""What scipy raises on files that are no .mat files, cut short, or of version 7.3 (HDF5)."""


def read(path: Path, names: tuple[str, ...], expected: str) -> list[np.ndarray]:
    """The arrays of these names.

    Args:
        path: of the file.
        names: of its variables.
        expected: what the file should be, for the error.

    Raises:
        UserError: it cannot be read or lacks one of them.
    """
    import scipy.io

    try:
        with path.open("rb") as file:
            arrays = scipy.io.loadmat(file, variable_names=names)
        return [np.asarray(arrays[name]) for name in names]
    except (*_UNREADABLE, scipy.io.matlab.MatReadError) as error:
        raise damaged(path, f"unreadable data ({error})", expected) from error
