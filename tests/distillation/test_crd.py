"""CRD remembers the images that it is taught with, all of them and no others."""

from typing import Any

import pytest
import torch
from small_lessons import PLAIN, Lessons, method_of

from tlresearch import configs, inspection
from tlresearch.distillation import crd
from tlresearch.distillation.batches import TaughtBatches
from tlresearch.distillation.crd import CRD
from tlresearch.distillation.kd import KD
from tlresearch.distillation.settings import TeacherSettings
from tlresearch.errors import UserError
from tlresearch.functional import random
from tlresearch.functional.contrastive_distillation import new_memory


@pytest.fixture
def lessons(monkeypatch, tmp_path):
    return Lessons(monkeypatch, tmp_path)


def rows_of(training: Any, place: int) -> tuple[int, int]:
    """Rows of the memories, and those that were never written."""
    memory = training.one(place)[1].extras["memory"]
    count, dim = memory.of_student.shape
    untouched = 0
    for i, rows in enumerate((memory.of_student, memory.of_teacher)):
        first = new_memory(random.fold(memory.key, i), count, dim)
        untouched += int(((rows - first).abs().amax(1) < 1e-5).sum())
    assert memory.of_teacher.shape == (count, dim)
    return count, untouched


POOLS: dict[str, tuple[dict[str, Any], int]] = {
    "all that are kept": ({}, 64),
    "samples": ({"transfer_samples": 10}, 10),
    "classes": ({"transfer_classes": (1, 3)}, 32),
    "samples of classes": ({"transfer_classes": (1, 3), "transfer_samples": 10}, 10),
}


@pytest.mark.parametrize("name", POOLS)
def test_the_memory_is_of_the_pool(lessons, name):
    """After an epoch every row was written, for each seed of a stack."""
    changes, size = POOLS[name]
    lessons.run(method_of("crd"), [0, 1], PLAIN, steps=8, **changes)
    training = lessons.students[-1].training
    assert [rows_of(training, place) for place in (0, 1)] == [(size, 0)] * 2


def test_a_teacher_remembers_the_images_that_are_kept(lessons):
    """Whatever its student is taught with."""
    its = {"name": "crd", "negatives": 5, "dim": 4, "teacher": {"train": {"steps": 1}}}
    teacher = TeacherSettings(train={"steps": 8}, method=its)
    lessons.run(KD(teacher=teacher), [0], PLAIN, transfer_samples=8)
    assert isinstance(lessons.teachers[0].method, CRD)
    assert rows_of(lessons.teachers[0].training, 0) == (64, 0)


@pytest.mark.parametrize("changes", [pool[0] for pool in POOLS.values()], ids=POOLS)
def test_negatives_are_images_of_the_pool(lessons, changes, monkeypatch):
    """Places are positions in it, and all that is drawn lies in it; so do the images seen."""
    drawn, given, batch, draw = [], [], TaughtBatches.batch, crd.draw_negatives

    def drawing(key, places, count, size):
        drawn.append((places, size, draw(key, places, count, size)))
        return drawn[-1][2]

    def seeing(self, step):
        given.append((self, batch(self, step)))
        return given[-1][1]

    monkeypatch.setattr(crd, "draw_negatives", drawing)
    monkeypatch.setattr(TaughtBatches, "batch", seeing)
    lessons.run(method_of("crd", negatives=400), [3], PLAIN, steps=2, **changes)
    images, seen = lessons.images(), [one for one in given if one[0].taps]
    (pool,) = seen[0][0].pools
    assert len(drawn) == 4 and len(seen) == 2
    for places, size, negatives in drawn:
        assert size == len(pool)
        assert negatives.unique().tolist() == list(range(len(pool)))
        assert not (negatives == places[:, None]).any()
    for (places, _, _), (_, (x, y, _, positions, *_)) in zip(drawn[::2], seen, strict=True):
        assert torch.equal(places, positions[0])
        assert torch.equal(x[0], images.train[pool[places]])
        assert torch.equal(y[0], images.labels[pool[places]])


def test_what_others_decide_is_no_setting():
    """N is the number of images, so nobody can set it, and no record has it."""
    assert "images" not in configs.plain_config(CRD())
    text = inspection.describe("crd")
    assert "negatives" in text and "\n  images" not in text
    with pytest.raises(TypeError):
        CRD(images=5)  # type: ignore[call-arg]


def test_one_image_cannot_be_told_from_others(lessons):
    """Where only the data say how many there are."""
    with pytest.raises(UserError, match="needs at least 2 images to train on, not 1"):
        lessons.run(method_of("crd"), [0], PLAIN, samples=1, validation=0.0)
