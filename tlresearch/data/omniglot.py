"""Omniglot: its alphabets, and readers of the layouts in which it is published.

Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program
induction", Science 350(6266), 2015. 1,623 characters of 50 alphabets, each drawn once by 20
people: 964 characters of 30 "background" alphabets to learn from, 659 of the other 20 to evaluate.

Lake numbers the characters 1 … 1623, alphabet after alphabet in the order of `ALPHABETS` (nearly,
but not quite, that of their names), and a file is named by the number and the drawer: character
709 drawn by person 3 is `images_background/Alphabet_of_the_Magi/character01/0709_03.png`. Here a
character's class is its number minus that of the first character of its set, and its twenty images
follow one another in the order of the drawers.
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from tlresearch.data.checksums import file_digest, tensor_digest
from tlresearch.data.formats import UNREADABLE, Split, damaged
from tlresearch.errors import UserError

DRAWERS, SIDE = 20, 105
ALPHABETS: dict[str, dict[str, int]] = {
    "background": {
        **{"Arcadian": 26, "Armenian": 41, "Asomtavruli_(Georgian)": 40, "Balinese": 24},
        **{"Bengali": 46, "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14, "Braille": 26},
        **{"Cyrillic": 33, "Early_Aramaic": 22, "Syriac_(Estrangelo)": 23},
        **{"Anglo-Saxon_Futhorc": 29, "Futurama": 26, "Grantha": 43, "Greek": 24},
        **{"Gujarati": 48, "Hebrew": 22, "Japanese_(hiragana)": 52},
        **{"Inuktitut_(Canadian_Aboriginal_Syllabics)": 16, "Malay_(Jawi_-_Arabic)": 40},
        **{"Japanese_(katakana)": 47, "Korean": 40, "Latin": 26, "Alphabet_of_the_Magi": 20},
        **{"Mkhedruli_(Georgian)": 41, "Burmese_(Myanmar)": 34, "N_Ko": 33},
        **{"Ojibwe_(Canadian_Aboriginal_Syllabics)": 14, "Sanskrit": 42, "Tagalog": 17},
        **{"Tifinagh": 55},
    },
    "evaluation": {
        **{"Angelic": 20, "Atemayar_Qelisayer": 26, "Atlantean": 26, "Aurek-Besh": 26},
        **{"Avesta": 26, "Ge_ez": 26, "Glagolitic": 45, "Gurmukhi": 45, "Kannada": 41},
        **{"Keble": 26, "Malayalam": 47, "Manipuri": 40, "Mongolian": 30},
        **{"Old_Church_Slavonic_(Cyrillic)": 45, "Oriya": 46, "Syriac_(Serto)": 23},
        **{"Sylheti": 28, "Tengwar": 25, "Tibetan": 42, "ULOG": 26},
    },
}
"""Characters of each alphabet, by set, in Lake's order."""
SETS = tuple(f"images_{name}" for name in ALPHABETS)
CHARACTERS = tuple(sum(sizes.values()) for sizes in ALPHABETS.values())
"""964 and 659."""


def class_names(which: str) -> tuple[str, ...]:
    """`Alphabet/characterNN` of each character of the set `background` or `evaluation`."""
    return tuple(
        f"{alphabet}/character{place:02d}"
        for alphabet, size in ALPHABETS[which].items()
        for place in range(1, size + 1)
    )


def _split(ink: UInt8[Tensor, "n 1 side side"]) -> Split:
    return Split(ink, torch.arange(len(ink) // DRAWERS).repeat_interleave(DRAWERS))


def _both(read: Callable[[str], UInt8[Tensor, "n 1 side side"]]) -> tuple[Split, Split]:
    background, evaluation = (_split(read(name)) for name in SETS)
    return background, evaluation


def read_npz(path: Path) -> UInt8[Tensor, "n 1 side side"]:
    """The drawings of one `images_*.npz`: 255 where its boolean array, True for paper, is False.

    Raises:
        UserError: not an npz with a boolean array `images` of characters × 20 × 105 × 105.
    """
    expected = f"an npz with booleans 'images' of characters × {DRAWERS} × {SIDE} × {SIDE}"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            paper = arrays["images"]
    except UNREADABLE as error:
        raise damaged(path, f"unreadable data ({error})", expected) from error
    if paper.dtype != np.bool_ or paper.shape[1:] != (DRAWERS, SIDE, SIDE):
        raise damaged(path, f"an array {paper.dtype}{paper.shape}", expected)
    # Not by the bytes: the published files store True as 255, which numpy reads as True all right.
    ink = np.logical_not(paper).view(np.uint8)
    np.multiply(ink, 255, out=ink)
    return torch.from_numpy(ink).view(-1, 1, SIDE, SIDE)


def read_npz_folder(folder: Path) -> tuple[Split, Split]:
    """Background and evaluation of `images_background.npz` and `images_evaluation.npz`."""
    return _both(lambda name: read_npz(folder / f"{name}.npz"))


def npz_digest(path: Path) -> str:
    """SHA-256 of the drawings (character, drawer, row, column), 255 for ink and 0 for paper."""
    return tensor_digest(read_npz(path))


def _members(name: str) -> list[str]:
    """The official name of every drawing of `images_background` or `images_evaluation`."""
    first = 1 + CHARACTERS[0] * SETS.index(name)
    characters = class_names(name.removeprefix("images_"))
    return [
        f"{character}/{number:04d}_{drawer:02d}.png"
        for number, character in enumerate(characters, first)
        for drawer in range(1, DRAWERS + 1)
    ]


def _read_pngs(
    where: Path, members: list[str], content: Callable[[str], bytes]
) -> UInt8[Tensor, "n 1 side side"]:
    """Decodes the drawings one after the other; white is paper, so each pixel is inverted."""
    from PIL import Image

    ink = np.empty((len(members), 1, SIDE, SIDE), np.uint8)
    for place, member in enumerate(members):
        path, expected = where / member, f"a PNG of {SIDE} × {SIDE}"
        try:
            with Image.open(io.BytesIO(content(member)), formats=["PNG"]) as image:
                size, pixels = image.size, np.asarray(image.convert("L"))
        except FileNotFoundError as error:
            raise damaged(
                where, f"no file {member}", f"one for each of {len(members):,}"
            ) from error
        except (*UNREADABLE, SyntaxError, Image.DecompressionBombError) as error:
            raise damaged(path, f"unreadable data ({error})", expected) from error
        if size != (SIDE, SIDE):
            raise damaged(path, f"a picture of {size[0]} × {size[1]}", expected)
        np.subtract(255, pixels, out=ink[place, 0])
    return torch.from_numpy(ink)


def read_tree(folder: Path) -> UInt8[Tensor, "n 1 side side"]:
    """The drawings of the unpacked folder `images_background` or `images_evaluation`.

    Raises:
        UserError: a drawing is missing or is not a PNG of 105 × 105.
    """
    return _read_pngs(folder, _members(folder.name), lambda m: (folder / m).read_bytes())


def read_tree_folder(folder: Path) -> tuple[Split, Split]:
    """Background and evaluation of torchvision's `omniglot-py`, unpacked."""
    return _both(lambda name: read_tree(folder / name))


def tree_digest(path: Path) -> str:
    """SHA-256 of the drawings of an unpacked folder, equal to `npz_digest` of the same set."""
    return tensor_digest(read_tree(path))


def read_zip(path: Path) -> UInt8[Tensor, "n 1 side side"]:
    """The drawings of Lake's `images_background.zip` or `images_evaluation.zip`, not unpacked.

    Raises:
        UserError: not a zip archive, or a drawing is missing or is not a PNG of 105 × 105.
    """
    members = [f"{path.stem}/{member}" for member in _members(path.stem)]
    try:
        with zipfile.ZipFile(path) as archive:
            absent = set(members).difference(archive.namelist())
            if absent:
                expected = f"one for each of {len(members):,} drawings"
                raise damaged(path, f"no member {min(absent)}", expected)
            return _read_pngs(path, members, archive.read)
    except UNREADABLE as error:
        raise damaged(path, f"unreadable data ({error})", "a zip archive") from error


def read_zip_folder(folder: Path) -> tuple[Split, Split]:
    """Background and evaluation of torchvision's `omniglot-py`, still packed."""
    return _both(lambda name: read_zip(folder / f"{name}.zip"))


def zip_digest(path: Path) -> str:
    """MD5 of a zip archive: the hash under which torchvision knows it."""
    return file_digest(path, "md5")


MINIMAL_2, MINIMAL_2_SIZE = "images_background_small2.zip", 156


def minimal2_alphabets(root: Path | None) -> list[str]:
    """The five alphabets in Lake's `images_background_small2.zip`, which is looked for in `root`.

    Raises:
        UserError: the file is neither in `omniglot-py` nor in `omniglot`, or holds other folders.
    """
    folders = [] if root is None else [root / "omniglot-py", root / "omniglot"]
    path = next((f / MINIMAL_2 for f in folders if (f / MINIMAL_2).is_file()), None)
    if path is None:
        raise UserError(
            f"the split minimal2 of omniglot takes its alphabets from Lake's {MINIMAL_2}, which is "
            "not in the data root; put it into ROOT/omniglot-py, with ROOT given by --data or "
            "TLRESEARCH_DATA, or use minimal1"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {name.split("/")[1] for name in archive.namelist() if name.endswith(".png")}
    except (*UNREADABLE, IndexError) as error:
        raise damaged(path, f"unreadable data ({error})", "a zip archive") from error
    found = [name for name in ALPHABETS["background"] if name in inside]
    if (
        inside != set(found)
        or sum(ALPHABETS["background"][name] for name in found) != MINIMAL_2_SIZE
    ):
        raise damaged(path, f"the folders {sorted(inside)}", "five background alphabets")
    return found
