"""The convolutions of the digit network of domain-adversarial training.

Ganin et al., "Domain-adversarial training of neural networks", JMLR 17(59), 2016, figure 4a: 5x5
convolution (32), 2x2 max pool, 5x5 convolution (48), 2x2 max pool, ReLU after each. The label
predictor of the paper, 100-100-10, is the head (`head: [100, 100]` of a method), its domain
classifier, 100-1, the discriminator (`discriminator: [100]` of DANN).
"""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.backbones.classifier import Backbone, require_size

_LEAST_SIDE = 16
_MAPS = 48


def _pooled(side: int) -> int:
    """Pixels left of a side after both 5x5 convolutions and 2x2 pools."""
    return ((side - 4) // 2 - 4) // 2


@dataclass(frozen=True)
class DANNCNN:
    """Two 5x5 convolutions (32, 48) with 2x2 max pools, flattened; 768 features at 28 x 28."""

    def build(self, input_shape: tuple[int, int, int]) -> "DANNCNNBackbone":
        """The network for images of shape (channels, rows, columns), at least 16 x 16.

        Raises:
            UserError: the images are smaller.
        """
        require_size("dann_cnn", input_shape, _LEAST_SIDE)
        return DANNCNNBackbone(input_shape)


class DANNCNNBackbone(Backbone):
    """The module of `DANNCNN`."""

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, rows, columns = input_shape
        self.conv1 = nn.Conv2d(channels, 32, 5)
        self.conv2 = nn.Conv2d(32, _MAPS, 5)
        self.width = _MAPS * _pooled(rows) * _pooled(columns)

    def features(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch width"]:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return x.flatten(1)
