"""The benchmark of zero-shot learning: which data, which features, and what is measured on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch

from tlresearch import schema
from tlresearch.data import xian
from tlresearch.data.glyph_classes import GLYPHS, glyphs
from tlresearch.data.zero_shot import ZeroShotData, ZeroShotSplit, validation_split
from tlresearch.errors import UserError
from tlresearch.settings import Bounds


@dataclass(frozen=True)
class ZeroShotSettings:
    """Features of images from seen classes, and attributes of all classes."""

    dataset: str = "glyphs"
    """glyphs, whose attributes are synthetic; awa1, awa2, cub, sun or apy (Xian's files under
    ROOT/xlsa17/data), or xian:FOLDER."""
    features: Literal["inputs", "frozen", "trained"] = "inputs"
    """The inputs as they are (pixels, or Xian's features); of the backbone as it is initialised or
    pretrained; or of the backbone trained as a classifier of the seen classes, by `train`."""
    scale: Literal["none", "unit", "standard"] = "none"
    """Feature vectors as they are, at length 1, or standardised by the training images."""
    attributes: Literal["unit", "raw"] = "unit"
    """Attribute vectors at length 1, or as they are."""
    validation: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """With `evaluate: validation`, the fraction of each seen class's training images that is
    measured on; `select` sets both."""
    evaluate: Literal["test", "validation"] = "test"
    """The test split; or training images only, with the validation classes as the unseen ones."""


def check_dataset(name: str) -> None:
    """Refuses a name that leads to no data set.

    Raises:
        UserError: with the nearest names.
    """
    known = [GLYPHS, *xian.FOLDERS]
    if name not in known and not xian.is_xian(name):
        hint = schema.nearest(name, known)
        raise UserError(f"benchmark.dataset: unknown data set '{name}'; {hint}")
    if name == xian.PREFIX:
        raise UserError(f"benchmark.dataset: '{name}' names no folder; write {name}FOLDER")


def load(benchmark: ZeroShotSettings, root: Path | None = None) -> ZeroShotData:
    """The data set, whole and checked; kept in memory for the next call.

    Raises:
        UserError: it is missing or damaged.
    """
    check_dataset(benchmark.dataset)
    return glyphs() if benchmark.dataset == GLYPHS else xian.load(benchmark.dataset, root)


def split_of(benchmark: ZeroShotSettings, data: ZeroShotData) -> ZeroShotSplit:
    """Which images a run trains and is measured on."""
    if benchmark.evaluate == "test":
        return data.split
    return validation_split(data, benchmark.validation)


def class_attributes(benchmark: ZeroShotSettings, data: ZeroShotData) -> torch.Tensor:
    """The attributes of all classes as the settings want them, (classes, attributes), float64."""
    if benchmark.attributes == "raw":
        return data.attributes
    return torch.nn.functional.normalize(data.attributes, dim=1)
