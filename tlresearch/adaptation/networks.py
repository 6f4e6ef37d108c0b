"""Networks of domain adaptation: backbone, head, and discriminators on the features."""

from itertools import pairwise
from typing import Annotated

from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.backbones.classifier import Backbone
from tlresearch.backbones.layers import Dropout
from tlresearch.settings import Bounds

Dropped = Annotated[float, Bounds(ge=0, lt=1), "read where networks are made"]
"""A probability of dropout: unlike other numbers it cannot differ within a stack of seeds."""


def perceptron(
    inputs: int, hidden: tuple[int, ...], outputs: int, dropout: float = 0.0
) -> nn.Sequential:
    """Linear layers with ReLU, and dropout if any, after each hidden one."""
    layers: list[nn.Module] = []
    for a, b in pairwise((inputs, *hidden)):
        layers += [nn.Linear(a, b), nn.ReLU(), *([Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear((inputs, *hidden)[-1], outputs))


class AdaptedClassifier(nn.Module):
    """z = bottleneck(backbone(x)), logits = head(z); methods add further modules."""

    discriminator: nn.Module
    """Of the methods that have one: features to the logit of "this is source"."""
    maps: nn.Module
    """Of CDAN, where its discriminator sees random products."""
    second: nn.Module
    """Of MCD: the second head."""

    def __init__(self, backbone: Backbone, classes: int, hidden: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.backbone = backbone
        self.bottleneck: nn.Module = nn.Identity()
        """Of the methods that have one, between backbone and features."""
        self.head: nn.Module = perceptron(backbone.width, hidden, classes)
        if not hidden:
            backbone.initialise_linear(self.head[0])  # type: ignore[index]

    def features(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch width"]:
        """z of each input."""
        return self.bottleneck(self.backbone(x))

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch classes"]:
        return self.head(self.features(x))
