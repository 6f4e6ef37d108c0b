"""Noise in place of images and answers, on which foreign code is tried before anything runs."""

from typing import Any

import torch
from torch import nn

from tlresearch.distillation.method import TaughtBatch, TaughtMethod
from tlresearch.distillation.teachers import plain_teacher
from tlresearch.functional import random
from tlresearch.functional.taps import shapes
from tlresearch.training.device import dtype_of
from tlresearch.training.tree import Tree
from tlresearch.training.trial import Trial

_BATCH = 4


def trial(config: Any) -> Trial:
    """How the method of a configuration is tried: on images of noise and answers of noise."""
    from tlresearch.distillation.protocol import sizes

    method, dtype = config.method, dtype_of(config.train.precision)
    shape, classes = sizes(config.benchmark)

    def noise(seed: int, what: str, size: tuple[int, ...]) -> torch.Tensor:
        return random.uniform(random.make_key(seed, f"probe {what}"), size, dtype)

    features: list[tuple[int, ...]] = []
    copies = 0
    if isinstance(method, TaughtMethod):
        settings = method.taught_by()
        copies = settings.copies
        if method.teacher_taps:
            network = plain_teacher(settings, config.backbone, shape, classes)
            found = shapes(network, method.teacher_taps, shape)
            features = [found[path] for path in method.teacher_taps]

    def batch(seed: int) -> TaughtBatch:
        y = torch.arange(_BATCH) % min(2, classes)
        said = noise(seed, "teachers", (copies, _BATCH, classes)) if copies else None
        taps = [noise(seed, f"tap {i}", (_BATCH, *size)) for i, size in enumerate(features)]
        progress = torch.full((), 0.5, dtype=dtype)
        x = noise(seed, "images", (_BATCH, *shape))
        return TaughtBatch(x, y, said, torch.arange(_BATCH), progress, *taps)

    def predict(network: nn.Module, state: Tree) -> Any:
        return method.predict(network, state, noise(0, "images", (_BATCH, *shape)), None)

    return Trial(
        lambda seed: method.networks(config.backbone, shape, classes, seed),
        batch,
        predict,
        {"batch": _BATCH, "classes": classes},
        "predict",
    )
