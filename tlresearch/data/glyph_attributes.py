"""Attributes of the glyphs for zero-shot learning. SYNTHETIC: computed, not judged by people.

Half of them come from Unicode (script, case, vowel, the marks of the canonical decomposition), half
from the letter's outline in DejaVu Sans. Unlike the attributes of AwA or CUB nobody looked at the
pictures, so they are free of noise, and a result on them says nothing of one on those.
"""

import functools
import unicodedata
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.data import glyphs, outlines

VOWELS = {
    "LATIN": "AEIOUY",
    "GREEK": "\u0391\u0395\u0397\u0399\u039f\u03a5\u03a9",
    "CYRILLIC": "\u0410\u0415\u0418\u041e\u0423\u042b\u042d\u042e\u042f",
    "ARMENIAN": "\u0531\u0535\u0537\u0538\u053b\u0548\u0555",
    "GEORGIAN": "\u10d0\u10d4\u10d8\u10dd\u10e3",
    "DIGIT": "",
}
"""Base letters, capitals where there are any."""
_FEWEST = 4  # a mark that fewer classes carry is no attribute of its own
_ABOVE, _BELOW = 230, 200  # canonical combining classes; below: less than 230, at least 200
_X_HEIGHT, _SLACK = 0.547, 0.03  # of DejaVu Sans, in ems


@dataclass(frozen=True, eq=False)
class GlyphAttributes:
    """What is known of each class of the glyphs, in their class order."""

    names: tuple[str, ...]
    values: Float[Tensor, "classes attributes"]
    """0 or 1, but for the counts and fractions that are named so."""


def _marks(character: str) -> list[str]:
    """The combining marks of the full canonical decomposition."""
    return list(unicodedata.normalize("NFD", character)[1:])


def _common_marks() -> list[str]:
    counts = Counter(mark for character in glyphs.CHARACTERS for mark in _marks(character))
    return sorted(mark for mark, count in counts.items() if count >= _FEWEST)


def unicode_attributes(character: str) -> dict[str, float | int]:
    """Script, case, vowel and accents of a letter, from Unicode's tables."""
    found: dict[str, float | int] = {}
    own, marks = glyphs.script(character), _marks(character)
    for script in glyphs.SCRIPTS:
        found[f"script {script.lower()}"] = own == script
    base = unicodedata.normalize("NFD", character)[0]
    found["upper case"] = unicodedata.category(character) == "Lu"
    found["lower case"] = unicodedata.category(character) == "Ll"
    found["vowel"] = base.upper() in VOWELS[own] or base in VOWELS[own]
    classes = [unicodedata.combining(mark) for mark in marks]
    found["accent above"] = _ABOVE in classes
    found["accent below"] = any(_BELOW <= number < _ABOVE for number in classes)
    found["accents (count)"] = len(marks)
    for mark in _common_marks():
        found[f"accent {unicodedata.name(mark).removeprefix('COMBINING ').lower()}"] = mark in marks
    return found


def outline_attributes(character: str) -> dict[str, float | int]:
    """Loops, parts, extent, curvature and symmetry of a letter's outline in DejaVu Sans.

    An outline runs clockwise around ink and counter-clockwise around a hole, so the sign of its
    area tells the closed loops from the separate parts.
    """
    found = outlines.contours(glyphs.REGULAR, character)
    x, y = found.points.T
    after = found.following()
    areas = np.bincount(found.contour, x * y[after] - x[after] * y)
    holes, parts = int((areas > 0).sum()), int((areas < 0).sum())
    length = np.hypot(x[after] - x, y[after] - y)
    corners = int((~found.curved).sum())
    width, height = np.ptp(x), np.ptp(y)
    picture = outlines.draw([outlines.outline(glyphs.REGULAR, character)])[0, 0].double()
    return {
        "loops (count)": holes,
        "a loop": holes > 0,
        "two loops": holes > 1,
        "parts (count)": parts,
        "one part": parts == 1,
        "three parts": parts > 2,
        "corners (tens)": corners / 10,
        "curved (fraction)": float(length[found.curved[after]].sum() / length.sum()),
        "ink (tenths of the picture)": float(picture.mean() / 25.5),
        "wide": bool(width > 1.1 * height),
        "narrow": bool(width < 0.5 * height),
        "above the x-height": bool(y.max() > _X_HEIGHT + _SLACK),
        "below the baseline": bool(y.min() < -_SLACK),
        "symmetry left and right (fraction)": _overlap(picture, picture.flip(1)),
        "symmetry up and down (fraction)": _overlap(_cut(picture), _cut(picture).flip(0)),
    }


def _cut(picture: Tensor) -> Tensor:
    """The rows that hold ink."""
    rows = picture.sum(1).nonzero().flatten()
    return picture[int(rows[0]) : int(rows[-1]) + 1]


def _overlap(one: Tensor, other: Tensor) -> float:
    """Σ min(a, b) / Σ max(a, b), 1 for equal pictures."""
    return float(torch.minimum(one, other).sum() / torch.maximum(one, other).sum())


@functools.lru_cache(maxsize=1)
def glyph_attributes() -> GlyphAttributes:
    """The attributes of all classes in the order of `glyphs.CHARACTERS`; kept in memory."""
    rows = [{**unicode_attributes(c), **outline_attributes(c)} for c in glyphs.CHARACTERS]
    names = tuple(rows[0])
    values = torch.tensor([[float(row[name]) for name in names] for row in rows])
    return GlyphAttributes(names, values)
