"""Model-agnostic meta-learning (MAML).

Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML
2017, arXiv:1703.03400, algorithms 1 and 2: minimises the mean over tasks of L(θ′; query) with
θ′ = θ − α ∇L(θ; support), K times, and differentiates through the inner gradients.

Differs from the paper: nothing with the defaults but α, which the paper sets for each table (.4 on
5-way Omniglot, .1 on 20-way, .01 on sinusoids). Options: `order: first` (section 5.2), and of
MAML++ (Antoniou, Edwards, Storkey, "How to train your MAML", ICLR 2019, arXiv:1810.09502) the
multi-step loss (eq. 2, here over steps 1 … K) and learned rates for each layer and step (LSLR;
here for each weight tensor). The paper does not say how the weights of the multi-step loss are
annealed; here they go linearly from 1/K each to the last step alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.data.episodes import Episodes
from tlresearch.fewshot import engines
from tlresearch.fewshot.gradient import GradientMethod
from tlresearch.fewshot.inner import Params, Rate, parameters_of
from tlresearch.fewshot.rates import attach, per_step, rates_of
from tlresearch.settings import Bounds
from tlresearch.training.method import Loss
from tlresearch.training.tree import Tree


@dataclass(frozen=True)
class MAML(GradientMethod):
    """Learns weights from which few gradient steps lead to a low loss on the queries."""

    order: Literal["second", "first"] = "second"
    """Whether the meta-gradient goes through the inner gradients or takes them as constants."""
    multi_step_loss: Annotated[int, Bounds(ge=0)] = 0
    """MAML++: passes (meta-steps) over which the query losses after steps 1 … K − 1 fade out;
    0: only the last counts from the beginning."""
    learn_rates: Literal["none", "per_step"] = "none"
    """MAML++: one learned α for each weight tensor and inner step."""
    engine: engines.Engine = "func"
    """What differentiates the inner loop in meta-training: ours, or a peer's, one seed at a time
    and without a stack; the meta-gradient is the same."""

    @property
    def stackable(self) -> bool:
        """Whether several seeds can be one program: the peers cannot be mapped."""
        return self.engine == "func"

    def problem(self) -> str | None:
        return super().problem() or engines.problem(
            self.engine, self.statistics, self.learn_rates != "none", self.task_chunk
        )

    def networks(
        self, backbone: Any, shape: tuple[int, int, int], classes: int, seed: int
    ) -> nn.Module:
        networks = super().networks(backbone, shape, classes, seed)
        if self.learn_rates == "per_step":
            moved = self.adapted(parameters_of(networks))
            attach(networks, per_step(moved, self.inner_lr, self.inner_steps))
        if self.multi_step_loss:
            networks.register_buffer("passes", torch.zeros(()))
        return networks

    def is_first_order(self) -> bool:
        return self.order == "first"

    def moved_module(self, networks: nn.Module) -> nn.Module:
        """What the inner loop moves all parameters of, given what `encode` returns."""
        return networks

    def rates(self, params: Params) -> Sequence[Rate]:
        """α, or that of each weight tensor and step; further steps keep the last."""
        if self.learn_rates == "none":
            return super().rates(params)
        learned = rates_of(params)
        return [{k: rate[step] for k, rate in learned.items()} for step in range(self.inner_steps)]

    def step_weights(self, networks: nn.Module) -> Sequence[float | Tensor]:
        """The last query loss alone, or the annealed weights of MAML++."""
        if not self.multi_step_loss:
            return super().step_weights(networks)
        done = networks.get_buffer("passes") / self.multi_step_loss
        return list(annealed_weights(done, self.inner_steps).unbind())

    def loss(self, networks: nn.Module, state: Tree, batch: Episodes) -> Loss:
        """Mean over the episodes of Σ_k w_k L(θ_k; query)."""
        if self.engine == "func":
            loss = super().loss(networks, state, batch)
        else:
            weights = self.step_weights(networks)
            value = engines.mean_loss(self, self.engine, networks, batch, weights)
            loss = Loss(value, {"query": value})
        if self.multi_step_loss:
            networks.get_buffer("passes").add_(1)
        return loss


def annealed_weights(done: Float[Tensor, ""], steps: int) -> Float[Tensor, " steps"]:
    """w_k = (1 − f) / K for k < K, and w_K = 1 − Σ_{k<K} w_k, where f = min(`done`, 1).

    Args:
        done: fraction of the annealing that is over, at least 0.
        steps: K.
    """
    early = ((1 - done.clamp(max=1)) / steps).expand(steps - 1)
    return torch.cat([early, (1 - early.sum()).unsqueeze(0)])
