"""Residual networks of 6n + 2 layers for small images: ResNet-20, -32 and -56.

He et al., "Deep residual learning for image recognition", CVPR 2016, arXiv:1512.03385,
section 4.2: n blocks each of 16, 32 and 64 filters, shortcuts without parameters (option A),
initialisation of He et al., arXiv:1502.01852.

Module names are those of the published PyTorch checkpoints that `load_checkpoint` reads.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.backbones.classifier import Backbone, Classifier
from tlresearch.backbones.layers import BatchNorm2d
from tlresearch.errors import UserError

CHECKPOINT_MEAN = (0.485, 0.456, 0.406)
"""Mean per channel that the checkpoints' inputs were normalised with, of pixels in [0, 1]."""

CHECKPOINT_STD = (0.229, 0.224, 0.225)
"""Standard deviation per channel that goes with `CHECKPOINT_MEAN`."""

_COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class ResNet20:
    """n = 3: 20 layers, 0.27 million parameters; 64 features."""

    def build(self, input_shape: tuple[int, int, int]) -> "CifarResNetBackbone":
        """The network for images of shape (channels, rows, columns), of any size."""
        return CifarResNetBackbone(input_shape[0], blocks=3)


@dataclass(frozen=True)
class ResNet32:
    """n = 5: 32 layers, 0.46 million parameters; 64 features."""

    def build(self, input_shape: tuple[int, int, int]) -> "CifarResNetBackbone":
        """The network for images of shape (channels, rows, columns), of any size."""
        return CifarResNetBackbone(input_shape[0], blocks=5)


@dataclass(frozen=True)
class ResNet56:
    """n = 9: 56 layers, 0.85 million parameters; 64 features."""

    def build(self, input_shape: tuple[int, int, int]) -> "CifarResNetBackbone":
        """The network for images of shape (channels, rows, columns), of any size."""
        return CifarResNetBackbone(input_shape[0], blocks=9)


def _conv3x3(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return conv


class Block(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)), eq. (1) of the paper.

    Args:
        inputs: channels of x.
        outputs: channels of the result.
        stride: of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.bn1 = BatchNorm2d(outputs)
        self.conv2 = _conv3x3(outputs, outputs, 1)
        self.bn2 = BatchNorm2d(outputs)
        self.stride = stride
        self.padding = (outputs - inputs) // 2

    def shortcut(self, x: Tensor) -> Tensor:
        """Option A: every second pixel, and zeros for half of the new channels on each side."""
        if self.stride == 1 and self.padding == 0:
            return x
        kept = x[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, self.padding, self.padding))

    def forward(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch outputs out_rows out_columns"]:
        z = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(z)) + self.shortcut(x))


def _layer(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    first = Block(inputs, outputs, stride)
    return nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))


class CifarResNetBackbone(Backbone):
    """The module of `ResNet20`, `ResNet32` and `ResNet56`.

    Args:
        channels: channels of the images.
        blocks: n, blocks of each width.
    """

    width = 64

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels, 16, 1)
        self.bn1 = BatchNorm2d(16)
        self.layer1 = _layer(16, 16, 1, blocks)
        self.layer2 = _layer(16, 32, 2, blocks)
        self.layer3 = _layer(32, 64, 2, blocks)

    def stages(self, x: Float[Tensor, "batch channels rows columns"]) -> list[Tensor]:
        """The maps after each width: 16, 32, 64 channels, sides 1, ½, ¼ (rounded up)."""
        first = self.layer1(F.relu(self.bn1(self.conv1(x))))
        second = self.layer2(first)
        return [first, second, self.layer3(second)]

    def features(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch width"]:
        return self.stages(x)[-1].mean((-2, -1))

    def initialise_linear(self, linear: nn.Linear) -> None:
        """Weights as the convolutions': N(0, 2 / inputs)."""
        nn.init.kaiming_normal_(linear.weight)


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file under our names."""
    if not path.is_file():
        raise UserError(
            f"The checkpoint {path} is not there; give the path of an existing file, or fetch the "
            "published ResNet of that depth for CIFAR-10."
        )
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        names = {name: name.removeprefix("module.") for name in tensors}
        if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
            raise TypeError("state_dict holds more than tensors")
    except Exception as error:  # torch.load has no one class for what a broken file can raise.
        raise UserError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}); expected a file of "
            "torch.save with the weights under state_dict, so fetch it again."
        ) from error
    return {
        f"head.{short.removeprefix('linear.')}"
        if short.startswith("linear.")
        else f"backbone.{short}": tensors[name]
        for name, short in names.items()
    }


def _misfits(expected: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """A phrase for each tensor that is missing, unknown or of another shape."""
    missing = [f"{k} is missing" for k in expected if k not in found and not k.endswith(_COUNTER)]
    unknown = [f"{k} is not part of it" for k in found if k not in expected]
    shapes = [
        f"{k} has shape {tuple(found[k].shape)} where {tuple(expected[k].shape)} is expected"
        for k in expected
        if k in found and found[k].shape != expected[k].shape
    ]
    return missing + unknown + shapes


def load_checkpoint(classifier: Classifier, path: str | Path) -> None:
    """Overwrites a classifier's weights and running statistics with a published checkpoint's.

    Nothing is changed unless every tensor fits. Inputs are pixels in [0, 1] normalised with
    `CHECKPOINT_MEAN` and `CHECKPOINT_STD`.

    Args:
        classifier: a ResNet of the same depth with a head of as many classes.
        path: file of `torch.save` whose `state_dict` has the names `module.conv1.weight`,
            `module.layer1.0.conv1.weight`, …, `module.linear.bias`.

    Raises:
        UserError: the file is missing, unreadable or made for another network.
    """
    found, expected = _read(Path(path)), classifier.state_dict()
    misfits = _misfits(expected, found)
    if misfits:
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise UserError(
            f"The checkpoint {path} does not fit this classifier: {'; '.join(misfits[:3])}{more}; "
            "choose the backbone and the number of classes that it was made with."
        )
    # The published files are older than the counters of batch norm, which nothing here uses.
    counters = {k: v for k, v in expected.items() if k.endswith(_COUNTER)}
    classifier.load_state_dict({**counters, **found})
