"""What the methods with an inner loop of gradient steps have in common.

The loss of a task is L(θ_K; query), θ_{k+1} = θ_k − α ∇L(θ_k; support); see `inner.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from tlresearch.data.episodes import Episodes
from tlresearch.fewshot import statistics as norms
from tlresearch.fewshot.inner import Params, Rate, Valued, adapt, mean_over_tasks, parameters_of
from tlresearch.fewshot.method import FewShotMethod
from tlresearch.fewshot.rates import weights_of
from tlresearch.fewshot.rows import batch_of, inputs_of, targets_of, task_loss
from tlresearch.fewshot.statistics import Seen, Statistics
from tlresearch.training.method import Loss
from tlresearch.training.settings import Count, Positive
from tlresearch.training.tree import Tree

_NOTES = {
    "transductive": "query (transductive)",
    "support": "support",
    "running": "running averages",
}


@dataclass(frozen=True)
class GradientMethod(FewShotMethod):
    """Adapts to a task by gradient steps on its support set.

    The first group of functions is what a method changes, the second follows from it. All are
    functions of one seed; those that are given `params` read no others.
    """

    second_order: ClassVar[bool] = True
    regresses: ClassVar[bool] = True
    evaluation_fields: ClassVar[tuple[str, ...]] = ("test_steps",)

    inner_steps: Count = 1
    """K, inner steps in meta-training, and at test unless `test_steps` says otherwise."""
    inner_lr: Positive = 0.4
    """α, the inner learning rate, or what learned ones start from."""
    test_steps: Count | None = None
    """Inner steps at test; null: K."""
    statistics: Statistics = "transductive"
    """Mean and variance by which batch norm normalises a query: of all queries of the task, of its
    support set, or running averages of meta-training (docs/fewshot.md)."""
    task_chunk: Count | None = None
    """Tasks in memory at once, which changes no number; null: all of a meta-step."""

    def networks(
        self, backbone: Any, shape: tuple[int, int, int], classes: int, seed: int
    ) -> nn.Module:
        networks = super().networks(backbone, shape, classes, seed)
        norms.prepare_norms(networks, self.statistics)
        return networks

    def notes(self) -> dict[str, str]:
        return {"batch statistics": _NOTES[self.statistics]}

    def is_first_order(self) -> bool:
        """Whether inner gradients count as constants."""
        return False

    def adapted(self, params: Params) -> Params:
        """The parameters that the inner loop moves."""
        return weights_of(params)

    def rates(self, params: Params) -> Sequence[Rate]:
        """α₀, α₁ and so on; the last one stays."""
        return [self.inner_lr]

    def step_weights(self, networks: nn.Module) -> Sequence[float | Tensor]:
        """Weights of the query losses after steps 1 … K: the last is all that counts."""
        return [0.0] * (self.inner_steps - 1) + [1.0]

    def encode(
        self, networks: nn.Module, params: Params, support: Tensor, query: Tensor, seen: Seen
    ) -> tuple[Tensor, Tensor]:
        """What the inner loop leaves as it is, computed once for support and query; here nothing.

        `seen` is filled as by `answer`.
        """
        return support, query

    def answer(
        self, networks: nn.Module, params: Params, support: Tensor, query: Tensor, seen: Seen
    ) -> Tensor:
        """Outputs for encoded queries; `seen` is filled with what batch norms saw."""
        return norms.query_pass(
            networks, self.statistics, _call(networks, params), support, query, seen
        )

    def answer_support(self, networks: nn.Module, params: Params, support: Tensor) -> Tensor:
        """Outputs for the encoded support set."""
        return norms.support_pass(networks, self.statistics, _call(networks, params), support)

    def path(
        self,
        networks: nn.Module,
        params: Params,
        support: Tensor,
        targets: Tensor,
        steps: int,
        first_order: bool,
    ) -> list[Params]:
        """What the inner loop moves, after 0 … `steps` steps on an encoded support set."""

        def loss_of(fast: Params, step: int) -> Tensor:
            return task_loss(self.answer_support(networks, params | fast, support), targets)

        return adapt(loss_of, self.adapted(params), steps, self.rates(params), first_order)

    def query_loss(
        self,
        networks: nn.Module,
        params: Params,
        inputs: tuple[Tensor, ...],
        targets: tuple[Tensor, ...],
        weights: Sequence[float | Tensor],
    ) -> tuple[Float[Tensor, ""], Seen]:
        """Σ_k w_k L(θ_k; query) of one task, and what the norms saw in its last query pass."""
        seen: Seen = {}
        support, query = self.encode(networks, params, inputs[0], inputs[1], seen)
        first_order = self.is_first_order()
        path = self.path(networks, params, support, targets[0], self.inner_steps, first_order)
        losses = [
            weight
            * task_loss(self.answer(networks, params | fast, support, query, seen), targets[1])
            for weight, fast in zip(weights, path[1:], strict=True)
            if isinstance(weight, Tensor) or weight
        ]
        return torch.stack(losses).sum(), seen

    def loss(self, networks: nn.Module, state: Tree, batch: Episodes) -> Loss:
        """Mean over the episodes of the adapted networks' loss on the queries."""
        weights = self.step_weights(networks)

        def of_task(params: Params, support: Tensor, query: Tensor, *values: Tensor) -> Valued:
            targets = targets_of(batch, values)
            return self.query_loss(networks, params, (support, query), targets, weights)

        params = parameters_of(networks)
        value, seen = mean_over_tasks(of_task, params, inputs_of(batch), self.task_chunk)
        norms.update_running(networks, seen)
        return Loss(value, {"query": value})

    def predict_episode(
        self, networks: nn.Module, state: Tree, episode: Episodes
    ) -> Float[Tensor, "rows queries outputs"]:
        """Outputs for the queries after 0, 1, … `test_steps` inner steps on the support set."""
        batch = batch_of(episode)
        support, query, *values = (t.squeeze(0) for t in inputs_of(batch))
        target, _ = targets_of(batch, tuple(values))
        params = {name: p.detach() for name, p in networks.named_parameters()}
        support, query = self.encode(networks, params, support, query, {})
        steps = self.test_steps or self.inner_steps
        path = self.path(networks, params, support, target, steps, first_order=True)
        answers = (self.answer(networks, params | fast, support, query, {}) for fast in path)
        return torch.stack(list(answers))


def _call(networks: nn.Module, params: Params) -> norms.Call:
    return lambda x: functional_call(networks, params, (x,))
