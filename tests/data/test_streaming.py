"""Streamed images are those gathered in memory, to the bit; what cannot be read is named."""

from typing import Any

import numpy as np
import pytest
import torch
from small_runs import lines_of
from torch import Tensor

from tlresearch.backbones.mlp import MLP
from tlresearch.continual import EWC
from tlresearch.continual.protocol import StackRun, run_stack
from tlresearch.data import catalogue
from tlresearch.data.batches import StageBatches
from tlresearch.data.parts import Part
from tlresearch.data.sampler import EpochSampler
from tlresearch.data.streaming import StreamedImages, gather, too_large
from tlresearch.data.tasks import StreamSettings, make_stream
from tlresearch.errors import UserError
from tlresearch.training.observer import RunFiles
from tlresearch.training.settings import Train

CPU = torch.device("cpu")
STEPS = 9


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (30, 1, 3, 2), dtype=torch.uint8, generator=generator)


def numbers(step: int) -> Tensor:
    """Two seeds, batches of seven."""
    return EpochSampler([4, 9], [30, 30], 7, "test").block(0, STEPS)[step]


@pytest.mark.parametrize("workers", [0, 2])
def test_images_from_disk_are_those_in_memory(tmp_path, images, workers):
    """A memory-mapped array, read from step 3 on as a resumed run does, and again from 0."""
    path = tmp_path / "images.npy"
    np.save(path, images.numpy())
    mapped: Any = np.load(path, mmap_mode="c")
    streamed = StreamedImages(mapped, numbers, STEPS, CPU, workers)
    before = torch.get_rng_state()
    for step in [*range(3, STEPS), 0, 1]:
        assert torch.equal(streamed.batch(step), images[numbers(step).flatten()])
    assert torch.equal(torch.get_rng_state(), before)


class Damaged:
    """Image 5 is not there."""

    def __getitem__(self, index: int) -> Tensor:
        if index == 5:
            raise FileNotFoundError("no file five.png")
        return torch.zeros(1, 2, 2, dtype=torch.uint8)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(workers):
    """One sentence with number and reason, at its own step and not at the one before."""
    rows = torch.tensor([[1, 2], [3, 4], [5, 6]])
    streamed = StreamedImages(Damaged(), lambda step: rows[step], 3, CPU, workers)
    assert streamed.batch(1).shape == (2, 1, 2, 2)
    with pytest.raises(UserError, match=r"image 5 of Damaged .*no file five\.png"):
        streamed.batch(2)


def test_reading_is_one_batch_ahead(images):
    """When a batch is handed out, the next one has been read, and no other."""
    asked = []

    def watched(step: int) -> Tensor:
        asked.append(step)
        return numbers(step)

    streamed = StreamedImages(images, watched, STEPS, CPU)
    streamed.batch(2)
    assert asked == [2, 3]
    streamed.batch(3)
    assert asked == [2, 3, 4]


@pytest.mark.parametrize("settings", [{"stream": "split"}, {"stream": "permuted", "tasks": 3}])
def test_batches_of_a_streamed_task(settings):
    """x, y and mask of both halves are those of images on the device, from any step."""
    made = StreamSettings("optdigits", scenario="task", **settings)
    for part in (Part(0, 2), Part(1, 2)):
        plain, streamed = (
            StageBatches(stream, [p[1] for p in stream.train_pools], 1, 8, 40, part)
            for stream in (
                make_stream(made, catalogue.load("optdigits"), [4, 9], streamed=streamed)
                for streamed in (False, True)
            )
        )
        for step in (0, 1, 2, 30, 31, 5):
            for ours, others in zip(streamed.batch(step), plain.batch(step), strict=True):
                assert ours is not None and others is not None
                assert torch.equal(ours, others)


def test_a_streamed_run_is_the_same_run(tmp_path, monkeypatch):
    """Accuracy matrix and log to the bit; and its batches did come from the host."""
    asked: list[int] = []
    batch = StreamedImages.batch

    def watched(self: StreamedImages, step: int) -> Tensor:
        asked.append(step)
        return batch(self, step)

    monkeypatch.setattr(StreamedImages, "batch", watched)
    benchmark = StreamSettings("optdigits", tasks=2)
    run = StackRun(benchmark, MLP(hidden=(8,)), EWC(), Train(steps=6, batch_size=8), [0, 1], {})
    found = []
    for name, streamed in {"a": None, "b": True}.items():
        files = RunFiles(tmp_path / name / "checkpoint.pt", tmp_path / name / "log.jsonl")
        outcomes = run_stack(run, CPU, files, streamed=streamed)
        found.append(([o.arrays for o in outcomes], lines_of(files)))
    assert found[0] == found[1]
    assert asked == 2 * list(range(6))


def test_a_cpu_holds_what_it_holds(images):
    """`auto` streams for GPUs only; a gather on one device is an index."""
    assert not too_large(images, CPU)
    assert torch.equal(gather(images, torch.tensor([3, 1])), images[[3, 1]])
