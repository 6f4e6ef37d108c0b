"""Glyphs: letters of five scripts in the fonts that matplotlib carries; needs no download.

493 classes of 20 images, 28 × 28, ink 255 on 0: the digits and the Latin, Greek, Cyrillic, Armenian
and Georgian letters that all twelve DejaVu faces have. Of letters that look alike (A, Alpha, and
Cyrillic A) only the first by code point is a class: see `twins`. Image i shows face i modulo
the number of faces (the twelve, and the four of STIX where they have the letter), each under a
small affine map of its own: entries of the linear part up to 3/32 away from the identity, shifts
of up to 1.5 pixels.

The classes are in the order of `permutation(make_key(0, "glyphs split", 0))`: the first `TRAIN` are
to train on, the next `VALIDATION` to choose by, the others to test on.

The fingerprint depends on the font files alone, which have not changed since matplotlib 2.0, as the
letters are filled by our own code from the fonts' integers (`outlines`).
"""

import functools
import unicodedata

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from tlresearch.data import outlines
from tlresearch.data.formats import Split
from tlresearch.functional.random import integers, make_key, permutation

IMAGES = 20
TRAIN, VALIDATION = 300, 72
REGULAR = "DejaVuSans"
FACES = (
    *(f"DejaVu{sans}{style}" for sans in ("Sans", "SansMono") for style in ("", "-Oblique")),
    *(f"DejaVu{sans}-Bold{style}" for sans in ("Sans", "SansMono") for style in ("", "Oblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Italic", "-Bold", "-BoldItalic")),
)
"""Faces that have every class."""
SPARE_FACES = tuple(f"STIXGeneral{style}" for style in ("", "Italic", "Bol", "BolIta"))
"""Faces that have the Latin, Greek and Cyrillic ones among them."""
RANGES = ((0x30, 0x39), (0x41, 0x17F), (0x370, 0x45F), (0x531, 0x587), (0x10D0, 0x10FA))
"""First and last code points of the blocks that the classes are taken from."""
TWIN = 0.05
"""Two letters look alike if their pictures differ by less than this fraction of the ink."""
_LINEAR, _SHIFT = 6, 24  # largest changes, in 64ths and in 16ths of a pixel
_CODES = """
    30-39 41-5A 61-7A C0-D6 D8-F6 F8-109 10B-10F 111-115 117-119 11B-142 144-153 155 157-17A
    17C-17F 386 388-38A 38C 38E-390 393-394 398 39B 39E 3A0 3A3 3A6 3A8-3A9 3AC-3BE 3C0-3CB
    3CD-3CE 3D0-3DB 3DD-3E1 3F0-3F1 3F5 3FA-3FF 402-404 409-40F 411 414 416-417 419 41B 423-424
    426-428 42A-42F 431-434 436-439 43B-43D 442 444 446-448 44A-450 452-453 459-45F 531-54C
    54E-554 556 561-56F 571-577 579-57C 57E-580 582-584 586-587 10D0-10FA
"""


def _expand(runs: str) -> tuple[str, ...]:
    """The characters of hexadecimal runs `30-39 41 …`."""
    ends = [run.partition("-") for run in runs.split()]
    return tuple(
        chr(code)
        for first, _, last in ends
        for code in range(int(first, 16), int(last or first, 16) + 1)
    )


def _ordered() -> tuple[str, ...]:
    found = _expand(_CODES)
    return tuple(found[i] for i in permutation(make_key(0, "glyphs split", 0), len(found)).tolist())


CHARACTERS = _ordered()
"""The class's character, by class."""
NAMES = tuple(unicodedata.name(character) for character in CHARACTERS)
SCRIPTS = ("DIGIT", "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN")
TEST = len(CHARACTERS) - TRAIN - VALIDATION


def script(character: str) -> str:
    """The first word of the character's name in Unicode: one of `SCRIPTS`."""
    return unicodedata.name(character).split()[0]


def candidates() -> list[str]:
    """The letters and digits of `RANGES` that every one of `FACES` has."""
    maps = [outlines.font(face).get_charmap() for face in FACES]
    codes = [code for first, last in RANGES for code in range(first, last + 1)]
    return [
        chr(code)
        for code in codes
        if all(code in table for table in maps)
        and unicodedata.category(chr(code)) in ("Lu", "Ll", "Lo", "Nd")
        and script(chr(code)) in SCRIPTS
    ]


def twins(characters: list[str]) -> list[str]:
    """Those whose picture is nearly that of an earlier one that is none, in DejaVu Sans or Serif.

    Nearly: Σ|a − b| < `TWIN` · max(Σa, Σb) over the pixels.
    """
    faces = (REGULAR, "DejaVuSerif")
    pictures = [outlines.draw([outlines.outline(f, c) for c in characters]) for f in faces]
    sets = [p.flatten(1).long() for p in pictures]
    kept: list[int] = []
    for place in range(len(characters)):
        alike = False
        for pixels in sets:
            gap = (pixels[kept] - pixels[place]).abs().sum(1)
            ink = pixels[kept].sum(1).clamp(min=int(pixels[place].sum()))
            alike |= bool((gap < TWIN * ink).any())
        if not alike:
            kept.append(place)
    keep = set(kept)
    return [c for place, c in enumerate(characters) if place not in keep]


def _faces(character: str) -> list[str]:
    spare = [face for face in SPARE_FACES if ord(character) in outlines.font(face).get_charmap()]
    return [*FACES, *spare]


def distortions(count: int) -> np.ndarray:
    """The affine map of each of `count` images: (count, 2, 3), exact binary fractions."""
    linear = integers(make_key(0, "glyphs linear", 0), 2 * _LINEAR + 1, (count, 2, 2)) - _LINEAR
    shift = integers(make_key(0, "glyphs shift", 0), 2 * _SHIFT + 1, (count, 2, 1)) - _SHIFT
    maps = torch.cat([torch.eye(2) + linear.double() / 64, shift.double() / 16], 2)
    return maps.numpy()


@functools.lru_cache(maxsize=1)
def images() -> UInt8[Tensor, "images 1 side side"]:
    """The images of all classes, `IMAGES` of each, class after class."""
    drawn = []
    for character in CHARACTERS:
        shapes = [outlines.outline(face, character) for face in _faces(character)]
        drawn += [shapes[i % len(shapes)] for i in range(IMAGES)]
    return outlines.draw(drawn, distortions(len(drawn)))


def read() -> tuple[Split, Split]:
    """The classes to train on and to choose by as one set, those to test on as the other.

    Returns:
        Labels of the first are 0 … TRAIN + VALIDATION − 1; those of the second count from 0 again.
    """
    known = TRAIN + VALIDATION
    every = images()
    first, second = every[: known * IMAGES], every[known * IMAGES :]
    labels = torch.arange(len(CHARACTERS)).repeat_interleave(IMAGES)
    return Split(first, labels[: len(first)]), Split(second, labels[: len(second)])
