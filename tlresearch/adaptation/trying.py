"""Noise in place of domains, on which foreign code is tried before anything runs."""

from typing import Any

import torch
from torch import nn

from tlresearch.adaptation.method import DomainBatch
from tlresearch.functional import random
from tlresearch.training.device import dtype_of
from tlresearch.training.tree import Tree
from tlresearch.training.trial import Trial

_BATCH = 4


def trial(config: Any) -> Trial:
    """How the method of a configuration is tried: on the kind of batch of its first round."""
    from tlresearch.adaptation.protocol import sizes

    method, dtype = config.method, dtype_of(config.train.precision)
    shape, classes = sizes(config.benchmark)
    first = method.parts(config.train)[0]

    def noise(seed: int, domain: str) -> torch.Tensor:
        return random.uniform(random.make_key(seed, f"probe {domain}"), (_BATCH, *shape), dtype)

    def batch(seed: int) -> DomainBatch:
        y = torch.arange(_BATCH) % min(2, classes)
        source = (noise(seed, "source"), y) if first.source else (None, None)
        fields: list[Any] = [*source, noise(seed, "target") if first.target else None, None]
        fields.append(torch.full((), 0.5, dtype=dtype))
        return DomainBatch(*fields)

    def predict(network: nn.Module, state: Tree) -> Any:
        return method.predict(network, state, noise(0, "target"), None)

    return Trial(
        lambda seed: method.networks(config.backbone, shape, classes, seed),
        batch,
        predict,
        {"batch": _BATCH, "classes": classes},
        "predict",
    )
