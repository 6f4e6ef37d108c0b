"""Adaptive batch normalisation (AdaBN).

Li et al., "Revisiting batch normalization for practical domain adaptation", ICLR workshops 2017,
arXiv:1603.04779: trained on the source; then mean and variance of every batch norm are those of its
inputs over the whole target training set, layer by layer, each behind layers that are adapted
already. Scale and shift stay. The source keeps its own statistics.

Differs from the paper: sums over the whole set, where the paper updates a mean and a variance
online, which comes to the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlresearch.adaptation.method import DomainBatch, DomainData
from tlresearch.adaptation.networks import AdaptedClassifier
from tlresearch.adaptation.norms import DomainNorm, passing, separate_norms
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.backbones.layers import normalising
from tlresearch.training.method import Loss
from tlresearch.training.tree import Tree


class _Reached(Exception):
    """Ends a forward pass at a layer, with what came in."""

    def __init__(self, layer: _BatchNorm, x: Tensor) -> None:
        self.layer, self.x = layer, x


def adapt_statistics(networks: nn.Module, norms: set[_BatchNorm], chunks: Iterable[Tensor]) -> None:
    """Running mean and variance of some batch norms := those of their inputs over all samples.

    A pass over the samples for each layer, in the order in which they are reached: up to it, all
    layers before it adapted already. The variance is the mean squared deviation.

    Args:
        networks: in evaluation mode; only those buffers change.
        norms: the layers; each must keep running statistics.
        chunks: inputs.
    """
    todo = set(norms)

    def normaliser(layer: _BatchNorm, x: Tensor) -> Tensor:
        if layer in todo:
            raise _Reached(layer, x)
        return _normalised(layer, x)

    chunks = list(chunks)
    with normalising(networks, normaliser), torch.no_grad():
        while todo:
            sums: list[tuple[int, Tensor, Tensor]] = []
            layer: _BatchNorm | None = None
            for chunk in chunks:
                try:
                    networks(chunk)
                except _Reached as reached:
                    layer = reached.layer
                    sums.append(_sums(reached.x))
            if layer is None:
                return  # the rest is not on the way
            _set(layer, sums)
            todo.remove(layer)


def _normalised(layer: Any, x: Tensor) -> Tensor:
    channels = (-1,) + (1,) * (x.ndim - 2)
    mean, variance = (t.view(channels) for t in (layer.running_mean, layer.running_var))
    return (x - mean) / (variance + layer.eps).sqrt()


def _sums(x: Tensor) -> tuple[int, Tensor, Tensor]:
    """Count, sum and sum of squares of each channel, in float64."""
    rows = x.double().transpose(0, 1).flatten(1)
    return rows.shape[1], rows.sum(1), rows.square().sum(1)


def _set(layer: Any, sums: list[tuple[int, Tensor, Tensor]]) -> None:
    counts, firsts, seconds = zip(*sums, strict=True)
    mean, squares = (torch.stack(parts).sum(0) / sum(counts) for parts in (firsts, seconds))
    layer.running_mean.copy_(mean)
    layer.running_var.copy_((squares - mean.square()).clamp_min(0))


@dataclass(frozen=True)
class AdaBN(SourceOnly):
    """Source-only training, then the target's own statistics in batch norm."""

    def extend(self, networks: AdaptedClassifier, classes: int) -> None:
        """Two batch norms in the place of each; only the source's are trained."""
        separate_norms(networks.backbone, "adabn")

    def loss(self, networks: AdaptedClassifier, state: Tree, batch: DomainBatch) -> Loss:
        """Mean cross-entropy of the source batch, in nats."""
        with passing(networks, "source"):
            return super().loss(networks, state, batch)

    def after_training(self, networks: AdaptedClassifier, state: Tree, data: DomainData) -> Tree:
        """Gives the target's norms the source's scale and shift, and the target's statistics."""
        norms = [m for m in networks.modules() if isinstance(m, DomainNorm)]
        with torch.no_grad():
            for norm in norms:
                for ours, trained in zip(
                    norm.target.parameters(), norm.source.parameters(), strict=True
                ):
                    ours.copy_(trained)
        layers = {n.target for n in norms if isinstance(n.target, _BatchNorm)}
        with passing(networks, "target"):
            adapt_statistics(networks, layers, data.target())
        return state
