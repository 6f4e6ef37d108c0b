"""Noise in place of domains, on which foreign code is tried before anything runs."""

from typing import Any

import torch
from torch import nn

from tlresearch.adaptation.estimator import Estimator, rows
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
    if isinstance(method, Estimator):
        return _of_estimator(method, shape, classes)
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


def _of_estimator(method: Estimator, shape: tuple[int, int, int], classes: int) -> Trial:
    """Fitted to noise, with a few samples of each class."""
    samples = 10 * classes

    def noise(domain: str) -> torch.Tensor:
        return random.uniform(random.make_key(0, f"probe {domain}"), (samples, *shape))

    def predict(network: nn.Module, state: Tree) -> Any:
        labels = (torch.arange(samples) % classes).numpy()
        source, target = (rows(noise(domain)) for domain in ("source", "target"))
        fitted = method.fit(source, labels, target, classes, random.make_key(0, "probe"))
        return method.predict(fitted, state, noise("target")[:_BATCH], None)

    return Trial(
        lambda seed: nn.Module(), None, predict, {"batch": _BATCH, "classes": classes}, "fit"
    )
