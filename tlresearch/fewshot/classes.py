"""Methods whose features come from ordinary classification of all training classes.

The opposite of training by episodes: one classifier over every training class and cross-entropy;
in the test its head is thrown away and its features stay as they are.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.backbones import build
from tlresearch.fewshot.method import MetricMethod
from tlresearch.training.method import Labelled, Loss, Method
from tlresearch.training.tree import Tree


@dataclass(frozen=True)
class ClassifierMethod(MetricMethod):
    """Trains a classifier of all training classes, and compares by its features."""

    Batch: ClassVar[type] = Labelled
    trains_on: ClassVar[Literal["episodes", "classes", "nothing"]] = "classes"
    training_kind: ClassVar[str] = "ClassifierMethod"

    def networks(
        self, backbone: Any, shape: tuple[int, int, int], classes: int, seed: int
    ) -> nn.Module:
        return build(backbone, shape, classes, seed)

    def loss(self, networks: nn.Module, state: Tree, batch: Labelled) -> Loss:
        """Mean cross-entropy over the training classes, in nats."""
        return Method.loss(self, networks, state, batch)

    def embed(self, networks: Any, x: Tensor) -> Float[Tensor, "batch dim"]:
        return networks.features(x)
