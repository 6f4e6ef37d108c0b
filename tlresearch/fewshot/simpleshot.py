"""SimpleShot.

Wang et al., "SimpleShot: revisiting nearest-neighbor classification for few-shot learning",
arXiv:1911.04623, section 2: a classifier of all training classes, whose features are compared to
class centroids in Euclidean distance, unchanged (UN), normalised (L2N, x ← x / ‖x‖), or centred and
then normalised (CL2N, x ← x − x̄, x ← x / ‖x‖), x̄ the mean feature of the training images. With
several shots the centroid is the mean of the transformed features.

Differs from the paper: nothing here; its networks and training schedules are larger.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.fewshot.classes import ClassifierMethod
from tlresearch.functional.distances import squared_euclidean
from tlresearch.training.method import TaskData
from tlresearch.training.tree import Tree

Transform = Literal["UN", "L2N", "CL2N"]


def transformed(
    x: Float[Tensor, "*batch dim"], mean: Float[Tensor, "..."], transform: Transform
) -> Float[Tensor, "*batch dim"]:
    """x (UN), x / ‖x‖ (L2N) or (x − x̄) / ‖x − x̄‖ (CL2N); a vector of norm 0 stays 0.

    Args:
        x: features.
        mean: x̄, one feature vector or one number.
        transform: which.
    """
    if transform == "UN":
        return x
    return F.normalize(x - mean if transform == "CL2N" else x, dim=-1)


@dataclass(frozen=True)
class SimpleShot(ClassifierMethod):
    """The nearest centroid of centred and normalised features."""

    evaluation_fields: ClassVar[tuple[str, ...]] = ("transform",)

    transform: Transform = "CL2N"
    """What happens to a feature vector before it is compared."""

    def init(self, networks: nn.Module) -> Tree:
        """0 until training is over: what is measured before that is L2N instead of CL2N."""
        return {"mean": next(networks.parameters()).new_zeros(())}

    def after_task(self, networks: nn.Module, state: Tree, data: TaskData) -> Tree:
        """x̄ over all images of the training classes, in evaluation mode."""
        modes = [(module, module.training) for module in networks.modules()]
        networks.eval()
        try:
            return {"mean": self._mean_feature(networks, data)}
        finally:
            for module, mode in modes:
                module.training = mode

    def compare(
        self,
        networks: nn.Module,
        state: Tree,
        support: Float[Tensor, "ways shots dim"],
        query: Float[Tensor, "queries dim"],
    ) -> Float[Tensor, "queries ways"]:
        """−‖x̂ − centroid‖² of the transformed features; its order is that of the distance."""
        support, query = (transformed(x, state["mean"], self.transform) for x in (support, query))
        return -squared_euclidean(query, support.mean(1))

    @torch.no_grad()
    def _mean_feature(self, networks: Any, data: TaskData) -> Float[Tensor, " dim"]:
        """(1/N) Σₙ f(xₙ); of several processes each sums its part, which may be empty."""
        like = next(networks.parameters())
        total = like.new_zeros(networks.backbone.width, dtype=torch.float64)
        count = 0
        for x, _, _ in data.batches():
            total += self.embed(networks, x).sum(0, dtype=torch.float64)
            count += len(x)
        mean = (total / max(count, 1)).to(like.dtype)
        return data.average({"mean": mean}, float(count))["mean"]
