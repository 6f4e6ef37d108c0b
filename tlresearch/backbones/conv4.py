"""Conv-4, the network of few-shot learning.

Vinyals et al., "Matching networks for one shot learning", NeurIPS 2016, arXiv:1606.04080,
section 4.1; also that of prototypical networks and MAML.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.backbones.classifier import Backbone, require_size
from tlresearch.backbones.layers import BatchNorm2d
from tlresearch.settings import Bounds

_BLOCKS = 4


@dataclass(frozen=True)
class Conv4:
    """Four times: 3x3 convolution, batch norm, ReLU, 2x2 max pool; then flattened."""

    channels: Annotated[int, Bounds(ge=1)] = 64
    """Filters of each convolution, at least 1; MAML takes 32 on mini-ImageNet."""

    statistics: Literal["running", "batch"] = "running"
    """What batch norm uses in evaluation: running statistics, or always those of the batch as in
    MAML, which keeps no buffers and so can be differentiated in an inner loop under `vmap`."""

    pools: Annotated[int, Bounds(ge=0, le=_BLOCKS)] = _BLOCKS
    """Blocks, from the first, that pool; relation networks take 2, for feature maps of 7 x 7."""

    def build(self, input_shape: tuple[int, int, int]) -> "Conv4Backbone":
        """The network for images of shape (channels, rows, columns), at least 2^pools a side.

        Raises:
            UserError: the images are smaller.
        """
        require_size("conv4", input_shape, 2**self.pools)
        return Conv4Backbone(input_shape, self)


class Conv4Backbone(Backbone):
    """The module of `Conv4`; width = channels · ⌊rows / 2^pools⌋ · ⌊columns / 2^pools⌋."""

    map_shape: tuple[int, int, int]
    """Channels, rows and columns of the feature map that `features` flattens."""

    def __init__(self, input_shape: tuple[int, int, int], settings: Conv4) -> None:
        super().__init__()
        inputs, rows, columns = input_shape
        channels = settings.channels
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(channels if block else inputs, channels, 3, padding=1),
                    BatchNorm2d(channels, track_running_stats=settings.statistics == "running"),
                    # Before ReLU, with which it commutes: a quarter of the work.
                    nn.MaxPool2d(2) if block < settings.pools else nn.Identity(),
                    nn.ReLU(),
                )
                for block in range(_BLOCKS)
            )
        )
        self.map_shape = (channels, rows // 2**settings.pools, columns // 2**settings.pools)
        self.width = math.prod(self.map_shape)

    def features(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch width"]:
        return self.layers(x).flatten(1)
