"""Ridge regression differentiable discriminator (R2-D2).

Bertinetto, Henriques, Torr and Vedaldi, "Meta-learning with differentiable closed-form solvers",
ICLR 2019, arXiv:1805.08136: the ridge regression W = argmin ‖XW − Y‖² + λ‖W‖², in Woodbury's form
W = Xᵀ (XXᵀ + λI)⁻¹ Y, whose system has as many rows as the support set has images; the scores are
α X'W + β. The loss is their cross-entropy; λ, α and β are learned with the network.

Differs from the paper: the features are those of any backbone and not the paper's two concatenated
last blocks. In λ = λ₀ eʳ, which stays above 0, and α = α₀ a the learned numbers are r and a, at
first 0 and 1. λ₀ = 50 and α₀ = 10 are from the authors' code for Omniglot; but that code adds a
column of ones to X and divides X and Y by the root of their rows, so that its λ is worth `rows`
times as much, and it learns λ only if asked to.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.fewshot.method import MetricMethod
from tlresearch.training.settings import Positive
from tlresearch.training.tree import Tree


def ridge_weights(
    x: Float[Tensor, "rows dim"], y: Float[Tensor, "rows outputs"], ridge: Tensor | float
) -> Float[Tensor, "dim outputs"]:
    """W = Xᵀ (XXᵀ + λI)⁻¹ Y, the least of ‖XW − Y‖² + λ‖W‖².

    Args:
        x: X, the features.
        y: Y, the targets; no intercept is fitted.
        ridge: λ > 0, in squared units of X.
    """
    kernel = x @ x.mT
    return x.mT @ torch.linalg.solve(kernel + ridge * torch.eye(len(x)).to(kernel), y)


class RidgeHead(nn.Module):
    """A backbone, and r, a and β, which make λ = λ₀ eʳ and α = α₀ a."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.log_factor = nn.Parameter(torch.tensor(0.0))
        self.factor = nn.Parameter(torch.tensor(1.0))
        self.shift = nn.Parameter(torch.tensor(0.0))


@dataclass(frozen=True)
class R2D2(MetricMethod):
    """The scores of a ridge regression from the support's features to its one-hot labels."""

    ridge: Positive = 50.0
    """λ₀, where λ starts, above 0."""
    scale: Positive = 10.0
    """α₀, where α starts, above 0."""

    def networks(
        self, backbone: Any, shape: tuple[int, int, int], classes: int, seed: int
    ) -> RidgeHead:
        return RidgeHead(super().networks(backbone, shape, classes, seed))

    def embed(self, networks: RidgeHead, x: Tensor) -> Float[Tensor, "batch dim"]:
        return networks.backbone(x)

    def compare(
        self,
        networks: RidgeHead,
        state: Tree,
        support: Float[Tensor, "ways shots dim"],
        query: Float[Tensor, "queries dim"],
    ) -> Float[Tensor, "queries ways"]:
        """α X'W + β, W from the support set."""
        ways, shots, _ = support.shape
        one_hot = torch.eye(ways).to(support).repeat_interleave(shots, 0)
        ridge = self.ridge * networks.log_factor.exp()
        weights = ridge_weights(support.flatten(0, 1), one_hot, ridge)
        return self.scale * networks.factor * (query @ weights) + networks.shift
