"""Streams of tasks against what one writes down by hand."""

from dataclasses import replace

import pytest
import torch

from tlresearch.data import catalogue
from tlresearch.data.catalogue import ImageData
from tlresearch.data.formats import Split
from tlresearch.data.tasks import Pool, StreamSettings, TaskStream, check_stream, make_stream
from tlresearch.errors import UserError

SPLIT = StreamSettings("optdigits", tasks=5)
FEW = StreamSettings("tiny", stream="permuted", tasks=3)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return catalogue.load("optdigits")


def tiny(side: int = 4, classes: int = 2) -> ImageData:
    """Random images: 10 of each class to train, 3 to test."""
    generator = torch.Generator().manual_seed(0)

    def split(each: int) -> Split:
        shape = (each * classes, 1, side, side)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return Split(images, torch.arange(classes).repeat(each))

    names = tuple(str(c) for c in range(classes))
    return ImageData("tiny", split(10), split(3), names, "here", "")


def shown(stream: TaskStream, images: torch.Tensor, task: int, place: int = 0) -> torch.Tensor:
    """What a task of one seed shows for raw images."""
    tasks = torch.full((1, len(images)), task)
    return stream.inputs(images.unsqueeze(0), tasks, torch.tensor([place]))[0]


def labels_of(pool: Pool, labels: torch.Tensor) -> set[int]:
    return set(labels[pool.images].tolist())


@pytest.mark.parametrize(("scenario", "units"), [("task", 10), ("domain", 2), ("class", 10)])
def test_units_of_split_digits(digits, scenario, units):
    """Task t has digits 2t and 2t + 1: units 2t, 2t + 1, or 0, 1 where the domain changes."""
    stream = make_stream(replace(SPLIT, scenario=scenario), digits, [0])
    expected = torch.full((5, 10), -1)
    for task in range(5):
        for place in range(2):
            digit = 2 * task + place
            expected[task, digit] = place if scenario == "domain" else digit
    assert stream.units == units
    assert stream.tasks == 5
    assert torch.equal(stream.unit_of[0], expected)


def test_masks_of_split_digits(digits):
    """task: the own pair; class: all pairs so far for any sample; domain: no mask."""
    seeds = [0, 1]
    own = torch.eye(5).repeat_interleave(2, 1).bool()
    by_task = make_stream(replace(SPLIT, scenario="task"), digits, seeds)
    by_class = make_stream(replace(SPLIT, scenario="class"), digits, seeds)
    for stage in range(5):
        active = by_task.active(stage)
        assert active is not None
        assert torch.equal(active, own.expand(2, 5, 10))
        active = by_class.active(stage)
        assert active is not None
        assert torch.equal(active, (torch.arange(10) < 2 * (stage + 1)).expand(2, 5, 10))
    assert make_stream(replace(SPLIT, scenario="domain"), digits, seeds).active(0) is None


def test_pools_of_split_digits(digits):
    """A task's pools are all images of its digits, in training and in test."""
    stream = make_stream(SPLIT, digits, [0])
    pairs = ((stream.train_pools, digits.train), (stream.evaluation_pools, digits.test))
    for pools, split in pairs:
        for task, pool in enumerate(pools[0]):
            members = (split.labels // 2 == task).nonzero().flatten()
            assert torch.equal(pool.images.sort().values, members)
            assert torch.equal(pool.tasks, torch.full_like(members, task))
    assert all(len(pool.images) == 0 for pool in stream.held_out_pools[0])
    assert torch.equal(stream.evaluation.images, digits.test.images)


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_random_class_orders(digits, scenario):
    """Each seed has its permutation of the classes, the same in any stack."""
    settings = replace(SPLIT, scenario=scenario, class_order="random")
    stream = make_stream(settings, digits, [3, 4])
    place = torch.arange(10).view(5, 2)
    orders = []
    for units in stream.unit_of:
        assert torch.equal((units >= 0).sum(0), torch.ones(10).long()), "each class in one task"
        order = torch.full((5, 2), -1)
        for task, digit in (units >= 0).nonzero().tolist():
            order[task, units[task, digit] - (0 if scenario == "domain" else 2 * task)] = digit
        assert torch.equal(order.flatten().sort().values, place.flatten())
        orders.append(order)
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], place)
    alone = make_stream(settings, digits, [4])
    assert torch.equal(alone.unit_of[0], stream.unit_of[1])
    assert labels_of(alone.train_pools[0][2], digits.train.labels) == set(orders[1][2].tolist())


def test_validation_is_a_seeded_stratified_part_of_the_training_images(digits):
    """round(n / 5) of each class, not trained on; together they are the training set."""
    stream = make_stream(replace(SPLIT, validation=0.2), digits, [0, 1])
    held_of_seed = []
    for kept_pools, held_pools in zip(stream.train_pools, stream.held_out_pools, strict=True):
        kept = torch.cat([pool.images for pool in kept_pools])
        held = torch.cat([pool.images for pool in held_pools])
        assert not set(kept.tolist()) & set(held.tolist())
        assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(1297))
        expected = (torch.bincount(digits.train.labels) * 0.2).round().long()
        assert torch.equal(torch.bincount(digits.train.labels[held]), expected)
        for task, pool in enumerate(held_pools):
            assert labels_of(pool, digits.train.labels) == {2 * task, 2 * task + 1}
        held_of_seed.append(set(held.tolist()))
    assert held_of_seed[0] != held_of_seed[1]
    alone = make_stream(replace(SPLIT, validation=0.2), digits, [1])
    assert set(torch.cat([p.images for p in alone.held_out_pools[0]]).tolist()) == held_of_seed[1]


def test_evaluation_on_validation_never_sees_the_test_set(digits):
    """What is measured is the held-out part, and images are the training images."""
    settings = replace(SPLIT, validation=0.2, evaluate="validation")
    stream = make_stream(settings, digits, [0])
    assert torch.equal(stream.evaluation.images, digits.train.images)
    assert torch.equal(stream.evaluation.labels, digits.train.labels)
    pairs = zip(stream.evaluation_pools[0], stream.held_out_pools[0], strict=True)
    assert all(torch.equal(a.images, b.images) for a, b in pairs)
    on_test = make_stream(replace(settings, evaluate="test"), digits, [0])
    assert torch.equal(on_test.evaluation.images, digits.test.images)


def test_pixel_orders_are_permutations_by_seed_and_task():
    """All tasks are permuted, the first too; no two orders are equal."""
    stream = make_stream(FEW, tiny(), [0, 1])
    assert stream.permutations is not None
    orders = stream.permutations.view(6, 16)
    assert torch.equal(orders.sort().values, torch.arange(16).expand(6, 16))
    assert len(torch.cat([orders, torch.arange(16).unsqueeze(0)]).unique(dim=0)) == 7
    alone = make_stream(FEW, tiny(), [1]).permutations
    assert alone is not None
    assert torch.equal(alone[0], stream.permutations[1])


def test_a_permuted_task_shows_the_pixels_in_its_order():
    """x[p] = image[order[p]] / 255, by the task of each sample and the place of each seed."""
    data = tiny()
    stream = make_stream(FEW, data, [0, 1], dtype=torch.float64)
    raw = data.train.images[:6].view(2, 3, 1, 4, 4)
    tasks = torch.tensor([[0, 2, 1], [2, 2, 0]])
    x = stream.inputs(raw, tasks, torch.tensor([1, 0]))
    assert stream.permutations is not None
    assert x.dtype == torch.float64
    for s, place in enumerate([1, 0]):
        for b in range(3):
            order = stream.permutations[place, tasks[s, b]]
            expected = raw[s, b].flatten()[order].double() / 255
            torch.testing.assert_close(x[s, b].flatten(), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("scenario", "units"), [("task", 6), ("domain", 2), ("class", 6)])
def test_units_where_every_task_has_all_classes(scenario, units):
    """Permuted, two classes, task t: units 2t and 2t + 1, or 0 and 1 in every task."""
    stream = make_stream(replace(FEW, scenario=scenario), tiny(), [0])
    expected = torch.tensor([[0, 1]] * 3 if scenario == "domain" else [[0, 1], [2, 3], [4, 5]])
    assert stream.units == units
    assert torch.equal(stream.unit_of[0], expected)
    assert all(len(pool.images) == 20 for pool in stream.train_pools[0])


def test_rotated_tasks():
    """Task t of 4 turns by t · 90 degrees counter-clockwise; task 0 is the image itself."""
    data = tiny(side=5)
    settings = StreamSettings("tiny", stream="rotated", tasks=4, max_angle=360.0)
    stream = make_stream(settings, data, [0], dtype=torch.float64)
    assert stream.angles is not None
    assert stream.angles.tolist() == [0.0, 90.0, 180.0, 270.0]
    plain = data.train.images[:4].double() / 255
    for task in range(4):
        expected = torch.rot90(plain, task, dims=(2, 3))
        x = shown(stream, data.train.images[:4], task)
        torch.testing.assert_close(x, expected, atol=1e-5, rtol=0)


def test_angles_stop_short_of_the_largest():
    """Three tasks up to 180 degrees: 0, 60, 120."""
    settings = StreamSettings("tiny", stream="rotated", tasks=3)
    angles = make_stream(settings, tiny(), [0]).angles
    assert angles is not None
    torch.testing.assert_close(angles, torch.tensor([0.0, 60.0, 120.0]))


def test_padding_adds_zeros_on_each_side():
    """pad 2 makes 4 × 4 to 8 × 8 with the image in the middle, in training and test images."""
    data = tiny()
    stream = make_stream(replace(FEW, stream="split", tasks=2, pad=2), data, [0])
    assert stream.shape == (1, 8, 8)
    for padded, split in ((stream.train, data.train), (stream.evaluation, data.test)):
        expected = torch.zeros(len(split.images), 1, 8, 8, dtype=torch.uint8)
        expected[:, :, 2:6, 2:6] = split.images
        assert torch.equal(padded.images, expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tasks": 11}, ["benchmark.tasks", "11", "at most 10"]),
        ({"tasks": 3}, ["benchmark.tasks", "do not divide", "1, 2, 5, 10"]),
        ({"evaluate": "validation"}, ["benchmark.evaluate", "benchmark.validation"]),
    ],
)
def test_impossible_streams_are_refused(digits, change, words):
    """One sentence that names the key and what to do, from the check and from the stream."""
    settings = replace(SPLIT, **change)
    for refuse in (lambda: check_stream(settings, 10), lambda: make_stream(settings, digits, [0])):
        with pytest.raises(UserError) as caught:
            refuse()
        assert all(word in str(caught.value) for word in words)


def test_a_permuted_stream_may_have_more_tasks_than_classes():
    """Only a split is bounded by the number of classes."""
    assert make_stream(replace(FEW, tasks=7), tiny(), [0]).tasks == 7
