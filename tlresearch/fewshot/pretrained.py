"""Pre-training on all tasks jointly, then gradient steps on the support set: a row of comparison.

Finn, Abbeel, Levine, ICML 2017, arXiv:1703.03400, section 5.1: one network regresses the samples
of all tasks, min_θ E ‖f_θ(x) − y‖², and is fine-tuned at test on the K given points.

Differs from the paper: the paper says that the step size at test is tuned automatically; here it
is `inner_lr`, which a `select:` section can choose.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tlresearch.data.episodes import Episodes
from tlresearch.fewshot.gradient import GradientMethod
from tlresearch.fewshot.rows import inputs_of, task_loss
from tlresearch.training.method import Loss
from tlresearch.training.settings import Positive
from tlresearch.training.tree import Tree


@dataclass(frozen=True)
class Pretrained(GradientMethod):
    """Regresses all tasks with the same weights; adapts at test only."""

    second_order: ClassVar[bool] = False
    classifies: ClassVar[bool] = False
    evaluation_fields: ClassVar[tuple[str, ...]] = (
        *("inner_steps", "inner_lr", "test_steps", "task_chunk"),
    )

    inner_lr: Positive = 0.01
    """Step size at test."""

    def loss(self, networks: nn.Module, state: Tree, batch: Episodes) -> Loss:
        """Mean squared error over all samples of all tasks."""
        return joint_loss(networks, batch)


def joint_loss(networks: nn.Module, batch: Episodes) -> Loss:
    """Mean squared error over the support and query samples of all tasks, in one pass.

    Raises:
        ValueError: it is a classification, where a label means another class in each task.
    """
    if batch.support_y is None:
        raise ValueError("tasks that classify have no labels in common; this is for regression")
    support, query, of_support, of_query = inputs_of(batch)
    x: Tensor = torch.cat([support, query], 1).flatten(0, 1)
    value = task_loss(networks(x), torch.cat([of_support, of_query], 1).flatten(0, 1))
    return Loss(value, {"squared_error": value})
