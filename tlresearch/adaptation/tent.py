"""Test-time entropy minimisation (TENT).

Wang, Shelhamer, Liu, Olshausen and Darrell, "Tent: fully test-time adaptation by entropy
minimization", ICLR 2021, arXiv:2006.10726. A source-only training; then test samples arrive in
batches, batch norm takes the statistics of each, and one step on the mean entropy of its
predictions moves scale and shift of the norms, and nothing else (section 3).

Differs from the paper: dropout is off at test time (the authors' code has the whole network in
training mode); test samples arrive in an order drawn for the seed, as a data set may lie sorted by
class.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlresearch.adaptation.method import DomainData
from tlresearch.adaptation.networks import AdaptedClassifier
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.errors import UserError
from tlresearch.functional import random
from tlresearch.functional.entropies import entropies
from tlresearch.settings import Bounds
from tlresearch.training.settings import Count, Positive
from tlresearch.training.tree import Tree


@dataclass(frozen=True)
class TENT(SourceOnly):
    """Source-only training, adapted while it is tested, online, from the test inputs alone."""

    batch_size: Annotated[int, Bounds(ge=2)] = 200
    """Test samples that arrive at once; the last ones may be fewer, and a last one alone joins
    those before it."""
    rate: Positive = 1e-3
    """Learning rate of Adam at test time."""
    steps: Count = 1
    """Steps on each batch; its prediction is that of the last one's forward pass, so that with 1
    a batch's own step helps the next ones only."""

    def extend(self, networks: AdaptedClassifier, classes: int) -> None:
        """Refuses networks that have no batch norm."""
        if not _norms(networks):
            raise UserError(
                "methods: tent adapts the scale and shift of batch norm, and the backbone has "
                "none; choose one that has, e.g. conv4, resnet20, or mlp with norm: batch"
            )

    def after_training(self, networks: AdaptedClassifier, state: Tree, data: DomainData) -> Tree:
        """The key of the order in which test samples arrive."""
        return {"order": data.key("tent")}

    def predict_all(
        self, networks: nn.Module, state: Tree, count: int, inputs: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Logits of each batch with the norms' scale and shift at that moment."""
        if count < 2:
            raise UserError("methods: tent needs at least 2 test samples, whose variance it uses")
        adapted = copy.deepcopy(networks).eval()
        moved = _open_norms(adapted)
        optimizer = torch.optim.Adam(moved, lr=self.rate)
        order = random.permutation(state["order"], count)
        logits = [self._step(adapted, optimizer, inputs(part)) for part in self._arrivals(order)]
        return torch.cat(logits)[order.argsort()]

    def _arrivals(self, order: Tensor) -> list[Tensor]:
        """Places by batch; none of a single sample, which has no variance."""
        parts = list(order.split(self.batch_size))
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts

    def _step(self, adapted: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Tensor:
        """The batch's logits, before the last of the steps on its entropy."""
        logits = torch.empty(0)
        for _ in range(self.steps):
            with torch.enable_grad():
                logits = adapted(x)
                optimizer.zero_grad()
                entropies(logits).mean().backward()
            optimizer.step()
        return logits.detach()


def _norms(networks: nn.Module) -> list[_BatchNorm]:
    return [m for m in networks.modules() if isinstance(m, _BatchNorm) and m.affine]


def _open_norms(networks: nn.Module) -> list[Tensor]:
    """Scales and shifts, the only parameters left that learn; norms take a batch's statistics."""
    networks.requires_grad_(False)
    for norm in _norms(networks):
        norm.train().requires_grad_(True)
    return [p for norm in _norms(networks) for p in (norm.weight, norm.bias)]
