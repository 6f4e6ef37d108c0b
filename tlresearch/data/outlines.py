"""Letters as outlines, read from matplotlib's fonts, and outlines filled as grey pictures.

The filling is ours, in exact integers after one rounding, and not a library's: FreeType and Pillow
change a few grey levels from version to version, and with them would change a data set. What is
taken from matplotlib are the points of the outlines in the font's own units, which are integers in
the font file.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

Outline = np.ndarray
"""Directed segments x0, y0, x1, y1 of closed contours, one after the other; y grows upwards."""
SIDE, EM, BASELINE = 28, 20.0, 20.0
"""Pixels: the picture's side, the height of the font's em, and the baseline's row from the top."""
_PIECES = 4  # a curve is drawn as that many segments
_LINES = 4  # scan lines a row of pixels
_UNITS = 256  # a pixel's width in the integers in which coverage is counted
_CHUNK = 2048  # pictures filled at a time
_MOVE, _LINE, _CURVE = 1, 2, 3  # matplotlib's codes of a path
_T = np.arange(1, _PIECES + 1)[:, None] / _PIECES
_BERNSTEIN = np.hstack([(1 - _T) ** 2, 2 * _T * (1 - _T), _T**2])


@functools.cache
def font(name: str):
    """A font file of matplotlib, `DejaVuSans` for example, as its `FT2Font`."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    return FT2Font(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"))


class Contours(NamedTuple):
    """The closed contours of a letter, one after the other."""

    points: np.ndarray
    """(n, 2) in ems, curves cut into `_PIECES`; the first point of a contour is not repeated."""
    curved: np.ndarray
    """Whether the segment that ends in the point is a piece of a curve, (n,)."""
    contour: np.ndarray
    """The number of its contour, 0, 1, …, (n,)."""

    def following(self) -> np.ndarray:
        """The place of each point's successor on its contour."""
        sizes = np.bincount(self.contour)
        ends = sizes.cumsum() - 1
        place = np.arange(len(self.contour)) + 1
        place[ends] = ends + 1 - sizes
        return place


def contours(face: str, character: str) -> Contours:
    """The contours of a character, quadratic curves evaluated at t = 1/4, 2/4, 3/4 and 1.

    Args:
        face: the name of a font file of matplotlib, without `.ttf`.
        character: one that the font has.
    """
    from matplotlib.ft2font import LoadFlags

    file = font(face)
    file.load_char(ord(character), flags=LoadFlags.NO_SCALE)
    vertices, codes = file.get_path()
    vertices = vertices * (64 / file.units_per_EM)  # the path is given in 64ths of the font's unit
    curve = np.flatnonzero(codes == _CURVE)[::2]  # they come in pairs: control point, end point
    count = np.isin(codes, (_MOVE, _LINE)).astype(np.int64)
    count[curve] = _PIECES
    source = np.repeat(np.arange(len(codes)), count)
    points, curved = vertices[source], count[source] == _PIECES
    triple = np.stack([vertices[curve - 1], vertices[curve], vertices[curve + 1]], axis=1)
    points[curved] = (_BERNSTEIN @ triple).reshape(-1, 2)
    return Contours(points, curved, (codes == _MOVE).cumsum()[source] - 1)


def outline(face: str, character: str) -> Outline:
    """The segments of a character in ems, (n, 4)."""
    found = contours(face, character)
    return np.hstack([found.points, found.points[found.following()]])


def draw(
    outlines: Sequence[Outline], transforms: np.ndarray | None = None
) -> UInt8[Tensor, "images 1 side side"]:
    """Each outline as ink of 255 on 0: the fraction of a pixel that lies inside, on scan lines.

    Args:
        outlines: in ems, none of them empty; each is centred across by its extent and stands on
            the baseline.
        transforms: (images, 2, 3): a linear map about the picture's middle, then a shift to the
            right and upwards in pixels. None: as they are.
    """
    size = len(outlines)
    if transforms is None:
        transforms = np.tile(np.eye(2, 3), (size, 1, 1))
    parts = [
        _fill(outlines[first : first + _CHUNK], transforms[first : first + _CHUNK])
        for first in range(0, size, _CHUNK)
    ]
    return torch.from_numpy(np.concatenate(parts))[:, None]


def _fill(outlines: Sequence[Outline], transforms: np.ndarray) -> np.ndarray:
    """Even scan lines: the winding number left of each pixel edge, from signed crossings."""
    lengths = np.array([len(lines) for lines in outlines])
    picture = np.repeat(np.arange(len(outlines)), lengths)
    segments = _placed(np.concatenate(outlines), picture, lengths, transforms)
    x0, y0, x1, y1 = segments.T
    # Line k is at y = (k + ½) / _LINES; a segment crosses those in [min y, max y).
    low, high = np.minimum(y0, y1) * _LINES - 0.5, np.maximum(y0, y1) * _LINES - 0.5
    first = np.clip(np.ceil(low), 0, SIDE * _LINES).astype(np.int64)
    count = np.clip(np.ceil(high), 0, SIDE * _LINES).astype(np.int64) - first
    segment = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(segment)) - np.repeat(count.cumsum() - count, count)
    line = first[segment] + within
    slope = (x1 - x0)[segment] / (y1 - y0)[segment]
    x = x0[segment] + ((line + 0.5) / _LINES - y0[segment]) * slope
    crossing = np.clip(np.rint(x * _UNITS), 0, SIDE * _UNITS).astype(np.int64)
    sign = np.where(y1 > y0, 1, -1)[segment]
    column, part = crossing // _UNITS, crossing % _UNITS
    row = (picture[segment] * SIDE * _LINES + line) * (SIDE + 2) + column
    shape = (len(outlines), SIDE, _LINES, SIDE + 2)
    weights = np.concatenate([sign * (_UNITS - part), sign * part]).astype(np.float64)
    change = np.bincount(np.concatenate([row, row + 1]), weights, minlength=int(np.prod(shape)))
    covered = change.astype(np.int32).reshape(shape).cumsum(-1)[..., :SIDE]
    total = np.clip(np.abs(covered), 0, _UNITS).sum(2)
    whole = _LINES * _UNITS
    return ((total * 255 + whole // 2) // whole).astype(np.uint8)


def _placed(
    segments: np.ndarray, picture: np.ndarray, lengths: np.ndarray, transforms: np.ndarray
) -> np.ndarray:
    """From ems to pixels, y downwards: scaled, centred, then mapped about the middle."""
    starts = lengths.cumsum() - lengths
    left = np.minimum.reduceat(segments[:, 0], starts)
    right = np.maximum.reduceat(segments[:, 0], starts)
    middle = ((left + right) / 2)[picture]
    a, half = transforms[picture], SIDE / 2
    placed = []
    for end in (0, 2):
        u = (segments[:, end] - middle) * EM
        v = segments[:, end + 1] * EM - (BASELINE - half)
        x = a[:, 0, 0] * u + a[:, 0, 1] * v + a[:, 0, 2]
        y = a[:, 1, 0] * u + a[:, 1, 1] * v + a[:, 1, 2]
        placed += [half + x, half - y]
    return np.stack(placed, axis=1)
