"""Elastic weight consolidation (EWC), with one penalty for each earlier task.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017,
arXiv:1612.00796, eq. (3): L(θ) = L_B(θ) + Σ_t λ/2 Σᵢ F_t,i (θᵢ − θ*_t,i)².

Differs from the paper: nothing in the penalty. Its sum over tasks is kept as one quadratic that
equals it (`functional.penalties.add_quadratics`), so neither time nor memory grows with the
number of tasks. The paper does not say how it takes the Fisher's labels; here it is a setting.
"""

from dataclasses import dataclass, field

import torch
from torch import nn

from tlresearch.continual.method import ContinualMethod, FisherSettings
from tlresearch.functional.penalties import (
    Quadratic,
    add_quadratics,
    evaluate_quadratic,
)
from tlresearch.training.method import Labelled, Loss, TaskData
from tlresearch.training.settings import NonNegative


@dataclass(frozen=True)
class EWC(ContinualMethod):
    """Holds weights near every earlier task's solution, in proportion to their Fisher."""

    strength: NonNegative = 400.0
    """λ of eq. (3), at least 0; 0 is naive training."""
    fisher: FisherSettings = field(default_factory=FisherSettings)
    """How F is estimated."""

    def problem(self) -> str | None:
        return self.fisher.problem()

    def init(self, networks: nn.Module) -> Quadratic:
        """No penalty before the first task."""
        return Quadratic({}, {}, torch.zeros(()))

    def loss(self, networks: nn.Module, state: Quadratic, batch: Labelled) -> Loss:
        """Cross-entropy + λ Σ_t ½ Σᵢ F_t,i (θᵢ − θ*_t,i)², in nats."""
        task = super().loss(networks, state, batch)
        if not state.curvature:
            return task
        penalty = evaluate_quadratic(state, dict(networks.named_parameters()))
        return Loss(task.total + self.strength * penalty, task.terms | {"penalty": penalty})

    def after_task(self, networks: nn.Module, state: Quadratic, data: TaskData) -> Quadratic:
        """Adds the quadratic ½ Σᵢ Fᵢ (θᵢ − θ*ᵢ)² of the task just learned."""
        return add_quadratics(state, task_quadratic(self.fisher, networks, data))


def task_quadratic(fisher: FisherSettings, networks: nn.Module, data: TaskData) -> Quadratic:
    """The penalty of the task just learned: its Fisher around its weights, frozen ones aside."""
    curvature = fisher.estimate(networks, data)
    weights = {k: p.detach().clone() for k, p in networks.named_parameters() if k in curvature}
    some = next(iter(weights.values()))
    return Quadratic(curvature, weights, some.new_zeros(()))
