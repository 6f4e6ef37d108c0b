"""Channels that are taken out of a network, by torch-pruning.

Fang et al., "DepGraph: towards any structural pruning", CVPR 2023, arXiv:2301.12900. Units that can
only go together form a group (a layer's outputs, their batch norm, the inputs of the layers behind
it). The score of unit j in a group is the mean over these tensors of Σ |w|^p of the weights that
belong to j, with p = 1 or 2; biases do not count. Of each group the units with the lowest scores
go.

Differs from the library's own pruner: each group loses ⌊ratio · units⌋, at least one stays, all
scores are taken before anything is removed, and equal ones go in the order of their place. So the
shapes depend on the ratio alone, and networks of several seeds fit into one stack.

torch-pruning is imported when a network is pruned.
"""

import copy
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tlresearch.backbones.classifier import Classifier
from tlresearch.errors import UserError
from tlresearch.functional import random

Importance = Literal["l1", "l2", "random"]
Shape = tuple[int, int, int]
Removed = dict[str, list[int]]
"""The units that go, in order, by the path of the layer that gives them."""

POWERS = {"l1": 1, "l2": 2}
_EQUAL = 1e-9
"""Rounding of ratio · units, which is not to cost a unit."""


def library() -> Any:
    """The package torch-pruning.

    Raises:
        UserError: it is not installed.
    """
    try:
        import torch_pruning
    except ImportError:
        raise UserError(
            "channels are removed by torch-pruning, which is not installed; "
            "pip install tlresearch[prune]"
        ) from None
    return torch_pruning


def count_removed(units: int, ratio: float) -> int:
    """⌊ratio · units⌋, so that at least one of them stays.

    Args:
        units: of a layer, at least 1.
        ratio: in [0, 1).
    """
    return min(math.floor(ratio * units + _EQUAL), units - 1)


def prune(
    network: Classifier, shape: Shape, ratio: float, importance: Importance, seed: int
) -> Removed:
    """Removes units of every layer but the head, in place; they are no part of training yet.

    Args:
        network: a classifier on the CPU, left in training mode.
        shape: of an image.
        ratio: fraction of the units of each layer, in [0, 1).
        importance: what is kept: the largest Σ |w| or Σ w², or what `seed` draws.
        seed: read by `random` alone.

    Returns:
        What was removed.

    Raises:
        UserError: torch-pruning is not installed, or the network has nothing that it can remove.
    """
    graph = _graph(network, shape)
    removed = _choice(graph, network, ratio, importance, seed)
    for group in _groups_of(graph, network, removed):
        group.prune()
    network.backbone.width = network.head.in_features
    network.train()
    return removed


def redraw(network: nn.Module) -> None:
    """New weights from torch's generator, layer by layer as their own `reset_parameters` has it.

    Args:
        network: changed in place; the head as its backbone wishes.
    """
    for layer in network.modules():
        reset = getattr(layer, "reset_parameters", None)
        if callable(reset):
            reset()
    if isinstance(network, Classifier):
        network.backbone.initialise_linear(network.head)


def misfit(network: Classifier, shape: Shape, ratio: float, importance: Importance) -> str | None:
    """Why a network's units cannot be removed as units, or None.

    Without the removed units it must answer as it does with their weights in the layers behind
    them at 0. Where it does not, removal changed more than what these units gave: shortcuts that
    pad channels and norms over channels do that.

    Args:
        network: a classifier on the CPU, which is not changed.
        shape: of an image.
        ratio: as `prune`.
        importance: as `prune`.

    Raises:
        UserError: torch-pruning is not installed, or the network has nothing that it can remove.
    """
    library()
    without, cut = copy.deepcopy(network).double(), copy.deepcopy(network).double()
    x = random.normal(random.make_key(0, "images to prune on"), (4, *shape), torch.float64)
    try:
        removed = prune(without, shape, ratio, importance, 0)
        _cut_off(cut, shape, removed)
        with torch.no_grad():
            ours, others = without.eval()(x), cut.eval()(x)
    except UserError:
        raise
    except Exception as error:  # torch-pruning has no one class for what it cannot do
        return f"torch-pruning fails on it ({type(error).__name__}: {' '.join(str(error).split())})"
    if ours.shape != others.shape or not torch.allclose(ours, others, rtol=1e-8, atol=1e-8):
        return (
            "removing channels changes more than what these channels gave, as shortcuts that pad "
            "channels and norms over channels make it"
        )
    return None


def _graph(network: Classifier, shape: Shape) -> Any:
    """What depends on what."""
    x = next(network.parameters()).new_zeros(2, *shape)
    with torch.enable_grad():  # the graph is that of the gradients
        return library().DependencyGraph().build_dependency(network, x, verbose=False)


def _choice(
    graph: Any, network: Classifier, ratio: float, importance: Importance, seed: int
) -> Removed:
    """The units that go."""
    names = {layer: name for name, layer in network.named_modules()}
    removed: Removed = {}
    for group in graph.get_all_groups(ignored_layers=[network.head]):
        name = names[group[0].dep.target.module]
        scores = _scores(group, name, importance, seed)
        # The lowest first; of equal ones that in front.
        order = scores.argsort(stable=True)
        removed[name] = sorted(order[: count_removed(len(scores), ratio)].tolist())
    if not removed:
        raise UserError("it has no layer in front of its head whose units could be removed")
    return removed


def _scores(group: Any, name: str, importance: Importance, seed: int) -> Tensor:
    """One for each unit of a group."""
    units = len(group[0].idxs)
    if importance == "random":
        return random.uniform(random.make_key(seed, f"units of {name}"), (units,), torch.float64)
    magnitude = library().importance.GroupMagnitudeImportance
    return magnitude(p=POWERS[importance], group_reduction="mean", normalizer=None)(group)


def _groups_of(graph: Any, network: Classifier, removed: Removed) -> Iterator[Any]:
    """What goes with the removed units of each layer, one layer after the other."""
    for name, units in removed.items():
        if units:
            layer = network.get_submodule(name)
            out = graph.get_pruner_of_module(layer).prune_out_channels
            yield graph.get_pruning_group(layer, out, units)


def _cut_off(network: Classifier, shape: Shape, removed: Removed) -> None:
    """Sets the weights of the units in the layers behind them to 0, in place."""
    graph = _graph(network, shape)
    for group in _groups_of(graph, network, removed):
        for dependency, units in group:
            layer, handler = dependency.target.module, dependency.handler
            reads = graph.is_in_channel_pruning_fn(handler)
            passes_on = graph.is_out_channel_pruning_fn(handler)  # norms, depthwise convolutions
            if reads and not passes_on and isinstance(layer, nn.Conv2d | nn.Linear):
                with torch.no_grad():
                    layer.weight[:, units] = 0
