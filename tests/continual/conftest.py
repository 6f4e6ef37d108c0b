"""A small data set, and a view of the trainings that a run begins."""

from typing import Any

import pytest
import torch

from tlresearch.continual import protocol
from tlresearch.data import catalogue
from tlresearch.data.catalogue import ImageData
from tlresearch.data.formats import Split
from tlresearch.training.loop import Training


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> ImageData:
    """Six noisy classes of 4 × 4 images, 30 of each to train and 10 to test; what `load` gives."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randint(0, 256, (6, 1, 4, 4), generator=generator).float()

    def split(each: int) -> Split:
        labels = torch.arange(6).repeat(each)
        noise = 70 * torch.randn(len(labels), 1, 4, 4, generator=generator)
        return Split((means[labels] + noise).clamp(0, 255).to(torch.uint8), labels)

    data = ImageData("tiny", split(30), split(10), tuple("abcdef"), "here", "")
    monkeypatch.setattr(catalogue, "load", lambda name, root=None: data)
    return data


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """The trainings that runs begin, in their order."""
    begun: list[Training] = []
    begin = protocol.begin

    def spy(*args: Any) -> Training:
        begun.append(begin(*args))
        return begun[-1]

    monkeypatch.setattr(protocol, "begin", spy)
    return begun
