"""Batch norm with a domain of its own (DSBN), and which domain passes through a network.

Chang et al., "Domain-specific batch normalization for unsupervised domain adaptation", CVPR 2019,
arXiv:1906.03950: each domain has its own statistics, scale and shift; all else is shared.

Differs from the paper: one stage of training, by whatever loss the method has; theirs adds a second
one on pseudo-labels.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlresearch.backbones.layers import Dropout
from tlresearch.errors import UserError

Domain = Literal["source", "target"]


class DomainNorm(nn.Module):
    """Two batch norms, `source` and `target`, equal at first; `domain` says which one is used.

    Args:
        layer: the batch norm whose place it takes.
    """

    domain: Domain = "target"
    """See `passing`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.source = layer
        self.target = copy.deepcopy(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.source(x) if self.domain == "source" else self.target(x)


def separate_norms(module: nn.Module, wanted: str) -> None:
    """Puts a `DomainNorm` in the place of each batch norm inside a module.

    Args:
        module: a backbone.
        wanted: what needs them, the opening of an error.

    Raises:
        UserError: it has none, or one without running statistics.
    """
    norms = {name: m for name, m in module.named_modules() if isinstance(m, _BatchNorm)}
    if not norms or any(layer.running_mean is None for layer in norms.values()):
        raise UserError(
            f"{wanted} needs a backbone with batch norm that keeps running statistics, e.g. conv4, "
            "or mlp with norm: batch; choose such a backbone or another method"
        )
    for name, layer in norms.items():
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, DomainNorm(layer))


def adopt_source(networks: nn.Module) -> None:
    """Gives the target's norms what the source's have learned, before the target is first seen.

    Networks without norms of each domain stay as they are.
    """
    for layer in networks.modules():
        if isinstance(layer, DomainNorm):
            layer.target.load_state_dict(layer.source.state_dict())


@contextmanager
def passing(networks: nn.Module, domain: Domain) -> Iterator[None]:
    """Within: what passes through the networks is of one domain.

    Norms of its own are used, and in dropout the target's masks are those that it would have
    behind the source in one batch, so that no two samples of a step share a mask.
    """
    norms = [m for m in networks.modules() if isinstance(m, DomainNorm)]
    dropouts = [m for m in networks.modules() if isinstance(m, Dropout)]
    before: list[Domain] = [layer.domain for layer in norms]
    parts = [layer.part for layer in dropouts]
    try:
        for layer in norms:
            layer.domain = domain
        for layer in dropouts:
            layer.part = 0 if domain == "source" else 1
        yield
    finally:
        for layer, found in zip(norms, before, strict=True):
            layer.domain = found
        for layer, part in zip(dropouts, parts, strict=True):
            layer.part = part
