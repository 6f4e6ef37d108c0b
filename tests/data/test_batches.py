"""Batches hold the sampled images, their units and their masks."""

from dataclasses import replace

import pytest
import torch

from tlresearch.data import batches, catalogue
from tlresearch.data.batches import PoolData, StageBatches, joint_pool
from tlresearch.data.parts import Part
from tlresearch.data.sampler import EpochSampler
from tlresearch.data.tasks import Pool, StreamSettings, TaskStream, make_stream

SEEDS = [4, 9]
SPLIT = StreamSettings("optdigits", tasks=5, class_order="random")
SCENARIOS = ["task", "domain", "class"]


def stream_of(scenario: str, **changes) -> TaskStream:
    settings = replace(SPLIT, scenario=scenario, **changes)
    return make_stream(settings, catalogue.load("optdigits"), SEEDS, dtype=torch.float64)


def pools_of(stream: TaskStream, tasks: list[int]) -> list[Pool]:
    """One pool per seed, of several tasks."""
    return [joint_pool([row[task] for task in tasks]) for row in stream.train_pools]


def unit(stream: TaskStream, place: int, task: int, label: int) -> int:
    """Head unit of a digit by the stream's own order, worked out anew."""
    order = [0] * 10
    for t, digit in (stream.unit_of[place] >= 0).nonzero().tolist():
        within = int(stream.unit_of[place, t, digit]) % 2
        order[2 * t + within] = digit
    position = order.index(label)
    assert position // 2 == task
    return position % 2 if stream.settings.scenario == "domain" else position


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_batch_is_the_sampled_images(scenario):
    """x = images / 255 at the sampler's positions, y their units, at steps in any order."""
    stream = stream_of(scenario)
    pools = pools_of(stream, [2])
    made = StageBatches(stream, pools, 2, 8, 50)
    sizes = [len(pool.images) for pool in pools]
    positions = EpochSampler(SEEDS, sizes, 8, "batches of stage 2").block(0, 50)
    for step in (0, 1, 49, 7):
        x, y, _ = made.batch(step)
        assert x.shape == (2, 8, 1, 8, 8)
        assert x.dtype == torch.float64
        for place, pool in enumerate(pools):
            images = pool.images[positions[step, place]]
            expected = stream.train.images[images].double() / 255
            torch.testing.assert_close(x[place], expected, atol=1e-12, rtol=0)
            labels = stream.train.labels[images].tolist()
            assert y[place].tolist() == [unit(stream, place, 2, label) for label in labels]


def test_masks_of_a_single_task():
    """task: its two units; class: the six units so far; domain: none. One row per seed."""
    units = torch.arange(10)
    for scenario, expected in (("task", (units // 2 == 2)), ("class", units < 6)):
        stream = stream_of(scenario)
        mask = StageBatches(stream, pools_of(stream, [2]), 2, 8, 3).batch(0)[2]
        assert mask is not None
        assert torch.equal(mask, expected.expand(2, 10))
    stream = stream_of("domain")
    assert StageBatches(stream, pools_of(stream, [2]), 2, 8, 3).batch(0)[2] is None


def test_masks_of_joint_training():
    """task: each sample's own units, (S, B, units); class: one row of all units so far."""
    stream = stream_of("task")
    _, y, mask = StageBatches(stream, pools_of(stream, [0, 1, 2]), 2, 40, 3).batch(1)
    assert mask is not None
    assert mask.shape == (2, 40, 10)
    assert torch.equal(mask, torch.arange(10) // 2 == (y // 2).unsqueeze(-1))
    assert set((y // 2).unique().tolist()) == {0, 1, 2}
    stream = stream_of("class")
    mask = StageBatches(stream, pools_of(stream, [0, 1, 2]), 2, 40, 3).batch(1)[2]
    assert mask is not None
    assert torch.equal(mask, (torch.arange(10) < 6).expand(2, 10))


def test_joint_batches_of_permuted_tasks_use_each_samples_order():
    """A sample of task t is shown in the pixel order of (its seed, t)."""
    stream = stream_of("domain", stream="permuted", tasks=2, class_order="fixed")
    pools = pools_of(stream, [0, 1])
    x = StageBatches(stream, pools, 1, 32, 2).batch(0)[0]
    sampler = EpochSampler(SEEDS, [len(p.images) for p in pools], 32, "batches of stage 1")
    assert stream.permutations is not None
    for place, pool in enumerate(pools):
        for b, position in enumerate(sampler.block(0, 1)[0, place]):
            order = stream.permutations[place, pool.tasks[position]]
            pixels = stream.train.images[pool.images[position]].flatten()[order]
            torch.testing.assert_close(
                x[place, b].flatten(), pixels.double() / 255, atol=1e-12, rtol=0
            )


def test_batches_do_not_depend_on_where_one_begins():
    """A resumed stage, asked from step 30 on, has the batches of the whole stage."""
    stream = stream_of("task")
    pools = pools_of(stream, [0, 1])
    whole, resumed = (StageBatches(stream, pools, 1, 8, 40) for _ in range(2))
    batches = [whole.batch(step) for step in range(40)]
    for step in range(30, 40):
        assert all(
            a is not None and b is not None and torch.equal(a, b)
            for a, b in zip(batches[step], resumed.batch(step), strict=True)
        )


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_pool_data_reads_every_sample_once_in_order(scenario, monkeypatch):
    """In chunks of 50, images, units and masks are those of the pool."""
    monkeypatch.setattr(batches, "CHUNK", 50)
    stream = stream_of(scenario)
    for evaluation, pools, split in (
        (False, stream.train_pools, stream.train),
        (True, stream.evaluation_pools, stream.evaluation),
    ):
        pool = pools[1][3]
        chunks = list(PoolData(stream, 1, pool, 4, evaluation).batches())
        assert [len(y) for _, y, _ in chunks[:-1]] == [50] * (len(chunks) - 1)
        x, y = torch.cat([c[0] for c in chunks]), torch.cat([c[1] for c in chunks])
        expected = split.images[pool.images].double() / 255
        torch.testing.assert_close(x, expected, atol=1e-12, rtol=0)
        labels = split.labels[pool.images].tolist()
        assert y.tolist() == [unit(stream, 1, 3, label) for label in labels]
        active = {"task": torch.arange(10) // 2 == 3, "class": torch.arange(10) < 10}
        for *_, mask in chunks:
            if scenario == "domain":
                assert mask is None
            else:
                assert mask is not None
                assert torch.equal(mask, active[scenario])


def test_pool_data_of_several_tasks_masks_each_sample():
    """Joint data in the task-incremental scenario: (samples, units), the sample's own two."""
    stream = stream_of("task")
    ((_, y, mask),) = PoolData(stream, 0, pools_of(stream, [0, 4])[0], 4).batches()
    assert mask is not None
    assert torch.equal(mask, torch.arange(10) // 2 == (y // 2).unsqueeze(-1))


def test_a_subset_is_drawn_without_replacement_by_seed_and_stage():
    """60 distinct samples; the same again; others for another stage or seed; all if too many."""
    stream = stream_of("class")
    pool = stream.train_pools[0][0]
    rows = {tuple(i.tolist()): n for n, i in enumerate(stream.train.images.flatten(1))}

    def drawn(place: int, stage: int, samples: int) -> list[int]:
        chunks = PoolData(stream, place, pool, stage).batches(samples)
        images = torch.cat([x for x, _, _ in chunks]).flatten(1)
        return [rows[tuple(i)] for i in (images * 255).round().to(torch.uint8).tolist()]

    assert len(rows) == len(stream.train.images), "images differ, so each names its place"
    first = drawn(0, 1, 60)
    assert len(set(first)) == 60
    assert set(first) <= set(pool.images.tolist())
    assert drawn(0, 1, 60) == first
    assert drawn(0, 2, 60) != first
    assert drawn(0, 1, 10**6) == pool.images.tolist()


def test_keys_differ_by_seed_stage_and_purpose():
    """2 × 2 × 2 keys, and a seed has its own in any stack."""
    stream, alone = stream_of("class"), make_stream(SPLIT, catalogue.load("optdigits"), [9])
    pool = stream.train_pools[0][0]

    def key(stream: TaskStream, place: int, stage: int, purpose: str) -> int:
        return int(PoolData(stream, place, pool, stage).key(purpose))

    found = {key(stream, s, t, p) for s in (0, 1) for t in (0, 1) for p in "ab"}
    assert len(found) == 8
    assert key(alone, 0, 1, "a") == key(stream, 1, 1, "a")


def test_joint_pool_is_the_samples_of_all():
    """Images and tasks, one after the other."""
    one = Pool(torch.tensor([3, 1]), torch.tensor([0, 0]))
    two = Pool(torch.tensor([2]), torch.tensor([1]))
    joint = joint_pool([one, two])
    assert joint.images.tolist() == [3, 1, 2]
    assert joint.tasks.tolist() == [0, 0, 1]


def test_parts_are_cut_at_multiples():
    """Contiguous, together everything, as equal as blocks of `multiple` allow; a rest ends last."""
    cut = [Part(i, 3).places(20, 6) for i in range(3)]
    assert cut == [range(0, 6), range(6, 12), range(12, 20)]
    assert [len(Part(i, 3).places(2)) for i in range(3)] == [0, 1, 1]
    assert Part().places(7, 3) == range(7)


def test_the_parts_of_a_batch_are_the_batch():
    """x, y and the masks of three parts, end to end, are those of the whole."""
    stream = stream_of("task")
    pools = pools_of(stream, [0, 1])
    whole = StageBatches(stream, pools, 1, 12, 4).batch(2)
    parts = [StageBatches(stream, pools, 1, 12, 4, Part(i, 3)).batch(2) for i in range(3)]
    for i, expected in enumerate(whole):
        assert expected is not None
        columns = [own for part in parts if (own := part[i]) is not None]
        assert torch.equal(torch.cat(columns, 1), expected)


@pytest.mark.parametrize("samples", [None, 20, 2])
def test_the_parts_of_a_pool_are_the_pool(monkeypatch, samples):
    """Three parts at their places, end to end, are the chosen samples; an empty part has none."""
    monkeypatch.setattr(batches, "CHUNK", 7)
    stream = stream_of("class")
    pool = stream.train_pools[1][2]
    whole = PoolData(stream, 1, pool, 2)
    chosen = list(whole.batches(samples))
    columns = [torch.cat([x for x, _, _ in chosen]), torch.cat([y for _, y, _ in chosen])]
    parts = [PoolData(stream, 1, pool, 2, part=Part(i, 3)) for i in range(3)]
    for part in parts:
        own, found = part.places(samples, 6), list(part.batches(samples, 6))
        assert sum(len(labels) for _, labels, _ in found) == len(own)
        for i, column in enumerate(columns):
            expected = column[own.start : own.stop]
            own_column = [x if i == 0 else y for x, y, _ in found]
            assert torch.equal(torch.cat([expected[:0], *own_column]), expected)
    together = [i for part in parts for i in part.places(samples, 6)]
    assert together == list(range(len(columns[1])))
