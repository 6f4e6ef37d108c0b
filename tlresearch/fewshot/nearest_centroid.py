"""The nearest centroid on frozen features of any backbone, with no training at all.

Mensink et al., "Distance-based image classification: generalizing to new classes at near-zero
cost", TPAMI 35 (2013): the nearest class mean, here in the backbone's own space and without their
learned metric. The backbone may be one of ours, a model of timm or own code that loads its weights.

Differs from the paper: squared Euclidean distance and no metric learning, its baseline.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.fewshot.method import MetricMethod
from tlresearch.functional.distances import squared_euclidean
from tlresearch.training.tree import Tree


class Frozen(nn.Module):
    """A backbone that nothing can change: no gradients, and always in evaluation mode.

    So norms use their running statistics and dropout drops nothing, whatever mode is asked for.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)

    def forward(self, x: Tensor) -> Float[Tensor, "batch width"]:
        return self.backbone(x)


@dataclass(frozen=True)
class NearestCentroid(MetricMethod):
    """A query belongs to the class whose mean feature is nearest."""

    trains_on: ClassVar[Literal["episodes", "classes", "nothing"]] = "nothing"

    def networks(
        self, backbone: Any, shape: tuple[int, int, int], classes: int, seed: int
    ) -> Frozen:
        return Frozen(super().networks(backbone, shape, classes, seed))

    def embed(self, networks: nn.Module, x: Tensor) -> Float[Tensor, "batch dim"]:
        return networks(x)

    def compare(
        self,
        networks: nn.Module,
        state: Tree,
        support: Float[Tensor, "ways shots dim"],
        query: Float[Tensor, "queries dim"],
    ) -> Float[Tensor, "queries ways"]:
        """−‖f(x̂) − mean of the class's f(x)‖²."""
        return -squared_euclidean(query, support.mean(1))
