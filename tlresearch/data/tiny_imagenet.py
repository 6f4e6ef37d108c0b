"""Tiny-ImageNet-32: the data root's part of Tiny-ImageNet-200, shrunk to 32 × 32.

The first 100 classes of Tiny-ImageNet's list, 200 training and all 50 validation images of each, as
WebP pictures end to end in one npz: `train_bytes` from `train_offsets[i]` to `train_offsets[i + 1]`
is image i, of the class `train_labels[i]`; so for `val`.
"""

import io
import itertools
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from tlresearch.data.checksums import tensor_digest
from tlresearch.data.formats import UNREADABLE, Split, damaged, label_tensor

FILE, SIDE, CLASSES = "tiny_imagenet32.npz", 32, 100
NAMES = tuple(
    name.strip()
    for name in """
Egyptian cat, reel, volleyball, rocking chair, lemon, bullfrog, basketball, cliff, espresso,
plunger, parking meter, German shepherd, dining table, monarch, brown bear, school bus, pizza,
guinea pig, umbrella, organ, oboe, maypole, goldfish, potpie, hourglass, seashore, computer
keyboard, Arabian camel, ice cream, nail, space heater, cardigan, baboon, snail, coral reef,
albatross, spider web, sea cucumber, backpack, Labrador retriever, pretzel, king penguin, sulphur
butterfly, tarantula, lesser panda, pop bottle, banana, sock, cockroach, projectile, beer bottle,
mantis, freight car, guacamole, remote control, European fire salamander, lakeside, chimpanzee,
pay-phone, fur coat, alp, lampshade, torch, abacus, moving van, barrel, tabby, goose, koala,
bullet train, CD player, teapot, birdhouse, gazelle, academic gown, tractor, ladybug, miniskirt,
golden retriever, triumphal arch, cannon, neck brace, sombrero, gasmask, candle, desk, frying pan,
bee, dam, spiny lobster, police van, iPod, punching bag, beacon, jellyfish, wok, potter's wheel,
sandal, pill bottle, butcher shop
""".replace("\n", " ").split(",")
)


def read_npz(path: Path) -> tuple[Split, Split]:
    """Training and validation images of the file.

    Raises:
        UserError: not such a file, or a picture in it that is no WebP of 32 × 32.
    """
    expected = "an npz with bytes, offsets and labels of train and val"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {
                f"{part}_{kind}": arrays[f"{part}_{kind}"]
                for part in ("train", "val")
                for kind in ("bytes", "offsets", "labels")
            }
    except UNREADABLE as error:
        raise damaged(path, f"unreadable data ({error})", expected) from error
    return _split(path, found, "train"), _split(path, found, "val")


def _split(path: Path, arrays: dict[str, np.ndarray], part: str) -> Split:
    offsets = arrays[f"{part}_offsets"].tolist()
    labels = label_tensor(path, arrays[f"{part}_labels"], CLASSES)
    if len(labels) != len(offsets) - 1:
        raise damaged(path, f"{len(labels)} labels", f"one for each of {len(offsets) - 1} images")
    content = arrays[f"{part}_bytes"].tobytes()
    pieces = [content[a:b] for a, b in itertools.pairwise(offsets)]
    return Split(_decode(path, part, pieces), labels)


def _decode(path: Path, part: str, pieces: list[bytes]) -> UInt8[Tensor, "n 3 side side"]:
    from PIL import Image

    pixels = np.empty((len(pieces), SIDE, SIDE, 3), np.uint8)
    for place, piece in enumerate(pieces):
        try:
            with Image.open(io.BytesIO(piece), formats=["WEBP"]) as image:
                size = image.size
                if size == (SIDE, SIDE):
                    pixels[place] = np.asarray(image.convert("RGB"))
        except (*UNREADABLE, SyntaxError, Image.DecompressionBombError) as error:
            found = f"{part} image {place} is unreadable ({error})"
            raise damaged(path, found, f"a WebP picture of {SIDE} × {SIDE}") from error
        if size != (SIDE, SIDE):
            found = f"{part} image {place} of {size[0]} × {size[1]}"
            raise damaged(path, found, f"a WebP picture of {SIDE} × {SIDE}")
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())


def read_folder(folder: Path) -> tuple[Split, Split]:
    """Training and validation images of the folder's `tiny_imagenet32.npz`."""
    return read_npz(folder / FILE)


def digest(path: Path) -> str:
    """SHA-256 of the decoded images and labels."""
    train, validation = read_npz(path)
    return tensor_digest(train.images, train.labels, validation.images, validation.labels)
