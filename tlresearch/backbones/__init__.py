"""Backbones: networks that turn images into features.

A name in an experiment file is a key of `BACKBONES`; its value is the frozen dataclass of the
backbone's settings. A new backbone is its module, its line here, its test.
"""

import difflib

import torch

from tlresearch.backbones.cifar_resnet import ResNet20, ResNet32, ResNet56
from tlresearch.backbones.classifier import Backbone, Classifier, Settings
from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.dann_cnn import DANNCNN
from tlresearch.backbones.lenet import LeNet
from tlresearch.backbones.mlp import MLP
from tlresearch.errors import UserError

__all__ = ["BACKBONES", "Backbone", "Classifier", "Settings", "build", "lookup"]

BACKBONES: dict[str, type[Settings]] = {
    "mlp": MLP,
    "lenet": LeNet,
    "conv4": Conv4,
    "dann_cnn": DANNCNN,
    "resnet20": ResNet20,
    "resnet32": ResNet32,
    "resnet56": ResNet56,
}


def lookup(name: str) -> type[Settings]:
    """The settings class of a backbone.

    Raises:
        UserError: no backbone has that name; the nearest names are in its text.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    near = difflib.get_close_matches(name.lower(), BACKBONES)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(BACKBONES)}."
    raise UserError(f"There is no backbone named {name!r}; {hint}")


def build(
    settings: Settings, input_shape: tuple[int, int, int], classes: int, seed: int
) -> Classifier:
    """A classifier with freshly initialised weights, on the CPU; the same for the same seed.

    Args:
        settings: an instance of a class of `BACKBONES`.
        input_shape: channels, rows and columns of the images.
        classes: number of logits.
        seed: of torch's CPU generator, which is left as it was found.

    Raises:
        UserError: the images are too small for the backbone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(settings.build(input_shape), classes)
