"""Online EWC: one decaying Fisher around the latest weights.

Schwarz et al., "Progress & Compress", ICML 2018, arXiv:1805.06370, section 3.1 and eq. (9):
L(θ) = L_k(θ) + λ/2 Σᵢ γ F*_i (θᵢ − θ*_{k−1,i})², with F* ← γ F* + F_k after task k.

Differs from the paper: its per-task normalisation of F is the setting `fisher.normalize` (off by
default, as in van de Ven and Tolias, arXiv:1904.07734); the paper does not say by what it
divides, here it is the mean. λ is written out, which the paper leaves to its temperature.
"""

from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import nn

from tlresearch.continual.ewc import task_quadratic
from tlresearch.continual.method import ContinualMethod, FisherSettings
from tlresearch.functional.penalties import Quadratic, quadratic_penalty
from tlresearch.settings import Bounds
from tlresearch.training.method import Labelled, Loss, TaskData
from tlresearch.training.settings import NonNegative


@dataclass(frozen=True)
class OnlineEWC(ContinualMethod):
    """Holds weights near the last task's solution, in proportion to a decaying sum of Fishers."""

    strength: NonNegative = 400.0
    """λ, at least 0; 0 is naive training."""
    decay: Annotated[float, Bounds(ge=0, le=1)] = 1.0
    """γ, in [0, 1]: what is kept of the earlier tasks' Fisher at each new task."""
    fisher: FisherSettings = field(default_factory=FisherSettings)
    """How F is estimated."""

    def problem(self) -> str | None:
        return self.fisher.problem()

    def init(self, networks: nn.Module) -> Quadratic:
        """No penalty before the first task."""
        return Quadratic({}, {}, torch.zeros(()))

    def loss(self, networks: nn.Module, state: Quadratic, batch: Labelled) -> Loss:
        """Cross-entropy + λ ½ Σᵢ γ F*ᵢ (θᵢ − θ*ᵢ)², in nats."""
        task = super().loss(networks, state, batch)
        if not state.curvature:
            return task
        params = dict(networks.named_parameters())
        penalty = self.decay * quadratic_penalty(params, state.centre, state.curvature)
        return Loss(task.total + self.strength * penalty, task.terms | {"penalty": penalty})

    def after_task(self, networks: nn.Module, state: Quadratic, data: TaskData) -> Quadratic:
        """F* ← γ F* + F, around the weights just reached."""
        new = task_quadratic(self.fisher, networks, data)
        if not state.curvature:
            return new
        kept = {k: self.decay * state.curvature[k] + f for k, f in new.curvature.items()}
        return new._replace(curvature=kept)
