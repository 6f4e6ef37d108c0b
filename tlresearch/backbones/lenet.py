"""LeNet with 20, 50 and 500 units, the digit network of domain adaptation.

The widths are those of Caffe's LeNet, after LeCun et al., "Gradient-based learning applied to
document recognition", Proceedings of the IEEE 86(11), 1998. Long et al. (CDAN,
arXiv:1705.10667) train it on digits with a ReLU after each pooling layer, which Caffe's does not
have, and with dropout.

Differs from CDAN: dropout stands behind the 500 units only, none between the convolutions.
"""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.backbones.classifier import Backbone, require_size
from tlresearch.backbones.layers import Dropout
from tlresearch.settings import Bounds

_LEAST_SIDE = 16


def _pooled(side: int) -> int:
    """Pixels left of a side after both 5x5 convolutions and 2x2 pools."""
    return ((side - 4) // 2 - 4) // 2


@dataclass(frozen=True)
class LeNet:
    """Two 5x5 convolutions (20, 50) with 2x2 max pools, then 500 units; 500 features."""

    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Probability to drop one of the 500 activations, in [0, 1); CDAN uses ½."""

    def build(self, input_shape: tuple[int, int, int]) -> "LeNetBackbone":
        """The network for images of shape (channels, rows, columns), at least 16 x 16.

        Raises:
            UserError: the images are smaller.
        """
        require_size("lenet", input_shape, _LEAST_SIDE)
        return LeNetBackbone(input_shape, self.dropout)


class LeNetBackbone(Backbone):
    """The module of `LeNet`."""

    width = 500

    def __init__(self, input_shape: tuple[int, int, int], dropout: float) -> None:
        super().__init__()
        channels, rows, columns = input_shape
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc = nn.Linear(50 * _pooled(rows) * _pooled(columns), self.width)
        self.dropout = Dropout(dropout) if dropout else nn.Identity()

    def features(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch width"]:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return self.dropout(F.relu(self.fc(x.flatten(1))))
