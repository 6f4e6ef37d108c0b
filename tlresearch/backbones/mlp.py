"""Multilayer perceptron on the flattened image."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.backbones.classifier import Backbone
from tlresearch.backbones.layers import BatchNorm1d, Dropout
from tlresearch.settings import Bounds


@dataclass(frozen=True)
class MLP:
    """Per hidden layer: linear, normalisation, activation, dropout."""

    hidden: tuple[Annotated[int, Bounds(ge=1)], ...] = (400, 400)
    """Units of each hidden layer, each at least 1; none makes the classifier linear in x."""

    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Probability to drop a hidden activation, in [0, 1)."""

    norm: Literal["none", "batch"] = "none"
    """`batch` puts batch norm in front of each activation."""

    activation: Literal["relu", "sigmoid"] = "relu"
    """Of the hidden units; early papers have sigmoids."""

    def build(self, input_shape: tuple[int, int, int]) -> "MLPBackbone":
        """The perceptron for images of shape (channels, rows, columns), of any size."""
        return MLPBackbone(math.prod(input_shape), self)


class MLPBackbone(Backbone):
    """The module of `MLP`; a layer that is switched off keeps its place, so names do not move."""

    def __init__(self, inputs: int, settings: MLP) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        batch_norm = settings.norm == "batch"
        for units in settings.hidden:
            layers += [
                # Batch norm cancels a bias in front of it. Its gradient would be rounding noise,
                # which Adam scales up to whole steps, and runs would stop being comparable.
                nn.Linear(inputs, units, bias=not batch_norm),
                BatchNorm1d(units) if batch_norm else nn.Identity(),
                nn.ReLU() if settings.activation == "relu" else nn.Sigmoid(),
                Dropout(settings.dropout) if settings.dropout else nn.Identity(),
            ]
            inputs = units
        self.layers = nn.Sequential(*layers)
        self.width = inputs

    def features(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch width"]:
        return self.layers(x.flatten(1))
