"""Meta-SGD.

Li, Zhou, Chen, Li, "Meta-SGD: learning to learn quickly for few-shot learning", 2017,
arXiv:1707.09835, eq. (3) and algorithm 1: θ′ = θ − α ∘ ∇L(θ; support), where α has the shape of θ
and is learned with it.

Differs from the paper: every α starts at `inner_lr`; the paper draws one number for all of them
from [.005, .1]. Weight decay, where it is used, reaches α too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from tlresearch.fewshot.gradient import GradientMethod
from tlresearch.fewshot.inner import Params, Rate, parameters_of
from tlresearch.fewshot.rates import attach, per_parameter, rates_of
from tlresearch.training.settings import Positive


@dataclass(frozen=True)
class MetaSGD(GradientMethod):
    """Learns a rate, of either sign, for each number of each weight."""

    inner_lr: Positive = 0.01
    """What every α starts from."""

    def networks(
        self, backbone: Any, shape: tuple[int, int, int], classes: int, seed: int
    ) -> nn.Module:
        networks = super().networks(backbone, shape, classes, seed)
        moved = self.adapted(parameters_of(networks))
        attach(networks, per_parameter(moved, self.inner_lr))
        return networks

    def rates(self, params: Params) -> Sequence[Rate]:
        """α by weight, the same at every step."""
        return [rates_of(params)]
