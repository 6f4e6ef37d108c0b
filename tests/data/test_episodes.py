"""Episodes: drawn uniformly, without repeats, and as a pure function of a key."""

import itertools
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.func import vmap

from tlresearch.data.episodes import (
    EpisodeBatches,
    Episodes,
    Pool,
    check_sizes,
    evaluation_keys,
    labels,
)
from tlresearch.errors import UserError
from tlresearch.functional import random
from tlresearch.functional.random import distinct, fold, make_key

SIZES = [5, 3, 4, 6]
"""Images of the classes of the pool below."""
SCALE = torch.tensor(1 / 255)


def pool(sizes: list[int] | None = None) -> Pool:
    """Image i is filled with i, so that a picture says which it is."""
    count = torch.tensor(sizes or SIZES)
    images = torch.arange(int(count.sum()), dtype=torch.uint8).view(-1, 1, 1, 1)
    return Pool(images.expand(-1, 1, 2, 2).contiguous(), count.cumsum(0) - count, count)


def class_of(indices: Tensor) -> Tensor:
    return torch.repeat_interleave(torch.arange(4), torch.tensor(SIZES))[indices]


def keys(count: int, seed: int = 0) -> Tensor:
    return make_key(seed, "test", torch.arange(count))


@pytest.mark.parametrize(("below", "size"), [(4, 2), (4, 3), (3, 3), (5, 1), (1, 1)])
def test_each_ordered_choice_is_equally_likely(below, size):
    """All of them occur, and a chi-square test of 200 draws a choice sees no difference."""
    choices = list(itertools.permutations(range(below), size))
    found = distinct(keys(200 * len(choices)), below, size)
    counts = Counter(map(tuple, found.tolist()))
    assert counts.keys() == set(choices)
    if len(choices) > 1:
        assert chisquare([counts[choice] for choice in choices]).pvalue > 1e-3


def test_floyds_choices_are_exactly_uniform(monkeypatch):
    """Every combination of random words modulo what they are divided by, once: each of the ordered
    choices of 2 from 4 comes out as often as any other."""
    rows = [
        [first, second, *order]
        for first, second in itertools.product(range(3), range(4))
        for order in itertools.permutations(range(2))
    ]
    monkeypatch.setattr(random, "bits", lambda key, shape, first=0: torch.tensor(rows))
    counts = Counter(map(tuple, distinct(torch.zeros(len(rows), dtype=torch.int64), 4, 2).tolist()))
    assert len(counts) == 12 and set(counts.values()) == {2}


@pytest.mark.parametrize("size", [1, 2, 7, 20])
def test_distinct_and_in_range(size):
    found = distinct(keys(300), 20, size)
    assert found.shape == (300, size) and found.min() >= 0 and found.max() < 20
    assert all(len(set(row)) == size for row in found.tolist())


def test_a_bound_of_its_own_for_each_key():
    """A tensor `below` gives each key what a number would, the size itself included."""
    below = torch.tensor([3, 4, 9, 1000])
    found = distinct(keys(4), below, 3)
    for key, bound, row in zip(keys(4), below.tolist(), found, strict=True):
        assert torch.equal(distinct(key, bound, 3), row)
    assert sorted(found[0].tolist()) == [0, 1, 2]
    square = distinct(keys(4).view(2, 2), below.view(2, 2), 3)
    assert torch.equal(square.view(4, 3), found)


def test_distinct_is_a_pure_function_of_the_key():
    found = distinct(keys(5), 9, 4)
    assert torch.equal(distinct(keys(5), 9, 4), found)
    assert torch.equal(distinct(keys(9), 9, 4)[:5], found)
    assert len(set(map(tuple, distinct(keys(50), 900, 4).tolist()))) == 50


def test_distinct_maps():
    below = torch.tensor([4, 5, 6, 7])
    expected = distinct(keys(4), below, 3)
    assert torch.equal(vmap(lambda key, bound: distinct(key, bound, 3))(keys(4), below), expected)
    assert torch.equal(vmap(lambda key: distinct(key, 6, 3))(keys(4)), distinct(keys(4), 6, 3))


def test_no_class_and_no_image_twice_in_an_episode():
    """So the first images of a class, its shots, are none of the last, its queries."""
    drawn = pool().draw(keys(400), 3, 3)
    classes = class_of(drawn)
    assert drawn.shape == (400, 3, 3)
    assert torch.equal(classes, classes[..., :1].expand_as(classes)), "one class a row"
    assert all(len(set(row)) == 3 for row in classes[..., 0].tolist())
    assert all(len(set(row)) == 9 for row in drawn.flatten(1).tolist())


def test_classes_and_images_are_uniform():
    """Each ordered pair of classes, and within a class each image at each place."""
    drawn = pool().draw(keys(6000), 2, 2)
    classes = class_of(drawn)[..., 0]
    pairs = Counter(map(tuple, classes.tolist()))
    assert len(pairs) == 12 and chisquare(list(pairs.values())).pvalue > 1e-3
    for c, size in enumerate(SIZES):
        for place in range(2):
            images = Counter(drawn[..., place][classes == c].tolist())
            assert len(images) == size and chisquare(list(images.values())).pvalue > 1e-3


def test_the_images_of_two_ways_are_independent():
    """Ways of one episode do not share their draws within classes of one size."""
    drawn = pool([4] * 4).draw(keys(4000), 2, 1)[..., 0] % 4
    pairs = Counter(map(tuple, drawn.tolist()))
    assert len(pairs) == 16 and chisquare(list(pairs.values())).pvalue > 1e-3


def test_all_images_of_a_class_can_be_asked_for():
    drawn = pool([3, 3]).draw(keys(20), 2, 3)
    assert drawn.sort(-1).values.sort(1).values.tolist() == [[[0, 1, 2], [3, 4, 5]]] * 20


def test_gather_shows_the_drawn_images():
    """Times the scale, in its dtype, for indices of any shape."""
    indices = torch.tensor([[0, 17], [5, 5]])
    found = pool().gather(indices, torch.tensor(0.5, dtype=torch.float64))
    assert found.shape == (2, 2, 1, 2, 2) and found.dtype == torch.float64
    assert found[..., 0, 0, 0].tolist() == [[0, 8.5], [2.5, 2.5]]
    assert torch.equal(found.amax((2, 3, 4)), found.amin((2, 3, 4)))


def batches(seeds: list[int], ways: int = 3, shots: int = 1, queries: int = 2) -> EpisodeBatches:
    return EpisodeBatches(pool(), seeds, ways, shots, queries, episodes=2, scale=SCALE)


def which(batch: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor]:
    """Numbers of the images of support and queries."""
    support, query, *none = batch
    assert none == [None, None] and support is not None and query is not None
    return tuple((255 * t[..., 0, 0, 0]).round().long() for t in (support, query))  # type: ignore


def test_a_batch_has_its_shape_and_its_queries_are_no_shots():
    support, query = which(batches([3, 5]).batch(7))
    assert support.shape == (2, 2, 3, 1) and query.shape == (2, 2, 3, 2)
    both = torch.cat([support, query], -1)
    assert torch.equal(class_of(both), class_of(support).expand_as(both)), "class by class"
    assert all(len(set(row)) == 9 for row in both.flatten(2).flatten(0, 1).tolist())


def test_a_batch_is_a_pure_function_of_seed_and_step(monkeypatch):
    """Not of the steps before it, nor of how many are drawn at once."""
    monkeypatch.setattr("tlresearch.data.episodes.BLOCK", 4096)
    expected = {step: which(batches([3, 5]).batch(step)) for step in (0, 1, 100, 113)}
    forwards = batches([3, 5])
    monkeypatch.setattr("tlresearch.data.episodes.BLOCK", 1)
    one_by_one = batches([3, 5])
    assert one_by_one.steps == 1 < forwards.steps == 113
    for step in (113, 0, 1, 100, 1):
        for source in (forwards, one_by_one):
            for ours, theirs in zip(which(source.batch(step)), expected[step], strict=True):
                assert torch.equal(ours, theirs)
    assert not torch.equal(expected[0][0], expected[1][0])


def test_stacked_seeds_draw_what_each_draws_alone():
    together = which(batches([3, 5, 3]).batch(4))
    for place, seed in enumerate([3, 5, 3]):
        for ours, alone in zip(together, which(batches([seed]).batch(4)), strict=True):
            assert torch.equal(ours[place], alone[0])
    assert not torch.equal(together[0][0], together[0][1])


def test_episodes_of_a_step_differ():
    support, _ = which(EpisodeBatches(pool(), [0], 3, 1, 2, 40, SCALE).batch(0))
    assert len({tuple(row) for row in support[0, ..., 0].tolist()}) > 20


def test_more_episodes_begin_with_fewer():
    assert torch.equal(evaluation_keys("test", 9)[:4], evaluation_keys("test", 4))


def test_evaluation_keys_are_of_a_purpose_and_of_nothing_else():
    """No seed and no method; no training episode has one of them."""
    test, validation = evaluation_keys("test", 50), evaluation_keys("validation", 50)
    assert len({*test.tolist(), *validation.tolist()}) == 100
    training = fold(make_key(0, "training episodes", torch.arange(50)).unsqueeze(-1), 0)
    assert not set(training.flatten().tolist()) & {*test.tolist(), *validation.tolist()}


def test_labels_go_class_by_class():
    assert labels(3, 2).tolist() == [0, 0, 1, 1, 2, 2]


def test_episodes_taken_one_by_one():
    x, y = torch.rand(3, 1, 2, 4), torch.rand(3, 1, 5, 4)
    regression = Episodes(x, y, x + 1, y + 1)
    assert regression.sizes == (1, 2, 5)
    one, some = regression.take(1), regression.take(slice(1, 3))
    assert one.query_y is not None and torch.equal(one.query_y, y[1] + 1)
    assert some.support_y is not None and torch.equal(some.support_y, x[1:] + 1)
    assert Episodes(x, y).take(0).support_y is None


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ((6, 1, 1), "a.ways: 6 ways, but the test part has 5 classes; ask for at most 5"),
        (
            (5, 3, 6),
            "a.shots, b.queries: 3 shots and 6 queries of a class, but the test part has 8 "
            "images a class; ask for at most 8 together",
        ),
    ],
)
def test_sizes_that_the_classes_cannot_give(sizes, sentence):
    keys = ("a.ways", "a.shots", "b.queries")
    with pytest.raises(UserError) as caught:
        check_sizes(5, 8, sizes, "the test part", keys)
    assert str(caught.value) == sentence
    check_sizes(5, 8, (5, 3, 5), "the test part", keys)
