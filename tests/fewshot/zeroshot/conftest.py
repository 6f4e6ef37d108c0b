"""A small zero-shot data set in the place of all others."""

import pytest
import torch

from tlresearch.data.class_sets import by_class
from tlresearch.data.glyph_classes import of_class_sets
from tlresearch.data.zero_shot import ZeroShotData
from tlresearch.fewshot.zeroshot import benchmark
from tlresearch.functional import random

CLASSES, EACH = (6, 2, 3), 10


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ZeroShotData:
    """Images of 4 × 4 whose pixels are a noisy linear map of their class's three attributes."""
    key = random.make_key(0, "toy")
    total = sum(CLASSES)
    attributes = random.normal(random.fold(key, 0), (total, 3), torch.float64)
    attributes /= attributes.norm(dim=1, keepdim=True)
    mix = random.normal(random.fold(key, 1), (3, 16), torch.float64)
    labels = torch.arange(total).repeat(EACH)
    noise = random.normal(random.fold(key, 2), (len(labels), 16), torch.float64)
    pixels = (128 + 30 * attributes @ mix)[labels] + 5 * noise
    images = pixels.clamp(0, 255).to(torch.uint8).view(-1, 1, 4, 4)
    sets, values, first = [], [], 0
    for count in CLASSES:
        own = (labels >= first) & (labels < first + count)
        names = tuple(f"class {c}" for c in range(first, first + count))
        sets.append(by_class(images[own], labels[own] - first, names))
        values.append(attributes[first : first + count])
        first += count
    data = of_class_sets("toy", sets, values, ("a", "b", "c"), "here")
    monkeypatch.setattr(benchmark, "load", lambda settings, root=None: data)
    return data
