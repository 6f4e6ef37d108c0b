"""Noise in place of episodes, on which foreign code is tried before anything runs."""

from functools import partial
from typing import Any

import torch
from torch import nn

from tlresearch.data.episodes import Episodes
from tlresearch.data.sinusoids import sinusoid_episodes, with_task
from tlresearch.fewshot.batches import episode_sizes
from tlresearch.fewshot.settings import SINUSOID
from tlresearch.fewshot.tasks import sizes
from tlresearch.functional import random
from tlresearch.training.device import dtype_of
from tlresearch.training.method import Labelled
from tlresearch.training.tree import Tree
from tlresearch.training.trial import Trial

_LARGEST = (3, 2, 2)
"""Ways, shots and queries: what is tried takes a moment, whatever the backbone."""
_CLASSES = 4


def trial(config: Any) -> Trial:
    """How the method of a configuration is tried: on few small episodes, or images of classes."""
    method, regression = config.method, config.benchmark.dataset == SINUSOID
    dtype = dtype_of(config.train.precision)
    shape = (1, 1, 3) if regression and method.sees_task else sizes(config.benchmark)[0]
    asked = episode_sizes(config.benchmark, method)
    ways, shots, queries = (min(pair) for pair in zip(asked, _LARGEST, strict=True))

    def networks(seed: int) -> nn.Module:
        units = _CLASSES if method.trains_on == "classes" else ways
        return method.networks(config.backbone, shape, units, seed)

    def episodes(count: int, seed: int) -> Episodes:
        keys = random.make_key(seed, "probe", torch.arange(count))
        if regression:
            drawn, task = sinusoid_episodes(keys, shots, queries, dtype)
            return with_task(drawn, task) if method.sees_task else drawn
        x = random.uniform(keys, (ways, shots + queries, *shape), dtype)
        return Episodes(x[:, :, :shots], x[:, :, shots:])

    def images(seed: int) -> Labelled:
        x = random.uniform(random.make_key(seed, "probe"), (_CLASSES, *shape), dtype)
        return Labelled(x, torch.arange(_CLASSES))

    def predict(network: nn.Module, state: Tree) -> Any:
        return method.predict_episode(network, state, episodes(1, 0).take(0))

    batches = {
        "episodes": partial(episodes, min(method.tasks, 2)),
        "classes": images,
        "nothing": None,
    }
    known = {"rows": None, "queries": ways * queries, "outputs": None}
    return Trial(networks, batches[method.trains_on], predict, known, "predict_episode")
