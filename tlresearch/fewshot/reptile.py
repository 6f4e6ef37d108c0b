"""Reptile.

Nichol, Achiam, Schulman, "On first-order meta-learning algorithms", 2018, arXiv:1803.02999,
algorithm 2 (batched): θ ← θ + ε (1/T) Σ_t (θ_t,K − θ), where θ_t,K is θ after K gradient steps on
task t. The serial version is `tasks: 1`. The direction θ − θ_t,K is given to the common optimiser
as a gradient: with `optimizer: sgd`, `train.lr` is the paper's ε.

As in the paper a training task has no queries: all its samples are stepped on. Let
`train_shots` + `train_queries` be the paper's training shots (section 6.1: 10 or 15 on Omniglot).

Differs from the paper: inner steps are plain gradient descent, where its classification tables use
Adam without its first moment; minibatches go through the task's samples shot after shot, so that
every class is in them alike, where the paper shuffles. ε is annealed by `train.schedule`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlresearch.data.episodes import Episodes
from tlresearch.fewshot import statistics as norms
from tlresearch.fewshot.gradient import GradientMethod
from tlresearch.fewshot.inner import Params, adapt, mean_over_tasks, parameters_of
from tlresearch.fewshot.rows import inputs_of, targets_of, task_loss
from tlresearch.fewshot.statistics import Seen
from tlresearch.training.method import Loss
from tlresearch.training.settings import Count, Positive
from tlresearch.training.tree import Tree


@dataclass(frozen=True)
class Reptile(GradientMethod):
    """Moves the weights towards those that gradient descent finds for each task."""

    inner_steps: Count = 5
    """K, inner steps in meta-training; at least 2, else it is training on all tasks jointly."""
    inner_lr: Positive = 0.1
    """α, the inner learning rate."""
    inner_batch: Count | None = None
    """Samples of an inner step, in turn; null: all of the task's."""

    def is_first_order(self) -> bool:
        return True

    def path(
        self,
        networks: nn.Module,
        params: Params,
        support: Tensor,
        targets: Tensor,
        steps: int,
        first_order: bool,
    ) -> list[Params]:
        """As its base, on minibatches."""
        count, size = len(support), min(self.inner_batch or len(support), len(support))
        each = _samples_of_a_class(targets, networks)
        turn = torch.arange(count, device=support.device).view(-1, each).T.reshape(-1)

        def loss_of(fast: Params, step: int) -> Tensor:
            places = torch.arange(step * size, (step + 1) * size, device=support.device) % count
            rows = turn[places]
            answers = self.answer_support(networks, params | fast, support[rows])
            return task_loss(answers, targets[rows])

        return adapt(loss_of, self.adapted(params), steps, self.rates(params), first_order)

    def loss(self, networks: nn.Module, state: Tree, batch: Episodes) -> Loss:
        """The adapted weights' loss on the task's samples; its gradient is mean(θ − θ_K)."""

        def of_task(
            params: Params, support: Tensor, query: Tensor, *values: Tensor
        ) -> tuple[Tensor, tuple[Params, Seen]]:
            x, y = _together(batch, support, query, values)
            last = self.path(networks, params, x, y, self.inner_steps, True)[-1]
            last = {name: value.detach() for name, value in last.items()}
            seen: Seen = {}
            value = task_loss(self.answer(networks, params | last, x, x, seen), y)
            return value, ({name: params[name].detach() - last[name] for name in last}, seen)

        params = parameters_of(networks)
        at = {name: value.detach() for name, value in params.items()}
        value, (away, seen) = mean_over_tasks(of_task, at, inputs_of(batch), self.task_chunk)
        norms.update_running(networks, seen)
        moved = [(away[name] * (params[name] - at[name])).sum() for name in away]
        return Loss(value + torch.stack(moved).sum(), {"adapted": value})


def _together(
    batch: Episodes, support: Tensor, query: Tensor, values: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """All samples of a task and their targets, class by class."""
    ways, shots, queries = batch.sizes
    of_support, of_query = targets_of(batch, values)

    def joined(a: Tensor, b: Tensor) -> Tensor:
        a, b = a.unflatten(0, (ways, shots)), b.unflatten(0, (ways, queries))
        return torch.cat([a, b], 1).flatten(0, 1)

    return joined(support, query), joined(of_support, of_query)


def _samples_of_a_class(targets: Tensor, networks: nn.Module) -> int:
    """How many rows of a task, class by class, one class has."""
    if targets.is_floating_point():
        return len(targets)
    head = networks.get_submodule("head")
    assert isinstance(head, nn.Linear)
    return len(targets) // head.out_features
