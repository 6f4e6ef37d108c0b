"""MobileNet v1 as a pure function of its weights, for features.

Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications",
arXiv:1704.04861, table 1: a 3x3 convolution, then thirteen times a 3x3 convolution of each channel
by itself and a 1x1 convolution, each with batch norm and ReLU; mean over space.

As the weights of TensorFlow and Keras were trained: ReLU6, batch norm with ε = 1e-3, and padding
`same`, which puts the odd pixel at the end. Names are timm's (`conv_stem`, `blocks.i.j.conv_dw`).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Weights = dict[str, Tensor]
BLOCKS = (1, 2, 2, 6, 2)
"""Pairs of convolutions of each stage; all stages but the first begin with stride 2."""
_EPS = 1e-3


def mobilenet_features(
    weights: Weights, x: Float[Tensor, "batch 3 rows columns"]
) -> Float[Tensor, "batch width"]:
    """Mean over space of the last feature map, batch norm on its running statistics.

    Args:
        weights: by timm's names; any width multiplier.
        x: pixels in [−1, 1].

    Raises:
        KeyError: a weight is missing.
    """
    x = F.relu6(_norm(weights, "bn1", _same(x, weights["conv_stem.weight"], 2)))
    for stage, pairs in enumerate(BLOCKS):
        for pair in range(pairs):
            stride = 2 if stage and not pair else 1
            x = _pair(weights, f"blocks.{stage}.{pair}", x, stride)
    return x.mean((2, 3))


def _pair(weights: Weights, name: str, x: Tensor, stride: int) -> Tensor:
    """Each channel by itself, then all together."""
    kernel = weights[f"{name}.conv_dw.weight"]
    x = F.relu6(_norm(weights, f"{name}.bn1", _same(x, kernel, stride, len(kernel))))
    return F.relu6(_norm(weights, f"{name}.bn2", F.conv2d(x, weights[f"{name}.conv_pw.weight"])))


def _same(x: Tensor, kernel: Tensor, stride: int, groups: int = 1) -> Tensor:
    """⌈side / stride⌉ pixels a side, half of the padding before and the larger half behind."""
    pads = []
    for side in (-1, -2):
        size, width = x.shape[side], kernel.shape[side]
        total = max((-(-size // stride) - 1) * stride + width - size, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), kernel, stride=stride, groups=groups)


def _norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    scale = weights[f"{name}.weight"] * torch.rsqrt(weights[f"{name}.running_var"] + _EPS)
    shift = weights[f"{name}.bias"] - weights[f"{name}.running_mean"] * scale
    return x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
