"""Selection of pseudo-labels against brute force, centroids against scipy, tables of shares."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from tlresearch.functional.pseudo_labels import (
    above_threshold,
    centroid_labels,
    growing_share,
    most_confident,
    part_of,
)

F64 = torch.float64
CLASSES = 4
POOLS = st.lists(
    st.tuples(st.sampled_from([0.25, 0.3, 0.5, 0.9, 1.0]), st.integers(0, CLASSES - 1)),
    min_size=1,
    max_size=20,
)


def columns(pool):
    confidence, predicted = zip(*pool, strict=True)
    return torch.tensor(confidence, dtype=F64), torch.tensor(predicted)


def test_a_threshold_keeps_what_is_above_it():
    c = torch.tensor([0.2, 0.9, 0.5, 0.91, 1.0])
    assert above_threshold(c, 0.9).tolist() == [3, 4]
    assert above_threshold(c, 1.0).tolist() == []
    assert above_threshold(c, 0.0).tolist() == [0, 1, 2, 3, 4]


@given(POOLS, st.sampled_from([0.0, 0.1, 0.34, 0.5, 1.0]), st.sampled_from([None, 1, 3]))
def test_the_most_confident_of_each_class(pool, share, count):
    """By brute force: sort each class's samples by confidence, earlier ones first."""
    confidence, predicted = columns(pool)
    expected = []
    for label in range(CLASSES):
        members = sorted((-c, i) for i, (c, y) in enumerate(pool) if y == label)
        number = count if count is not None else int(np.ceil(round(share * len(members), 9)))
        expected += [i for _, i in members[:number]]
    found = most_confident(confidence, predicted, CLASSES, share, count)
    assert found.tolist() == sorted(expected)


def test_all_as_one_class_is_the_whole_pool():
    c = torch.tensor([0.2, 0.9, 0.5, 0.8])
    assert most_confident(c, torch.zeros(4, dtype=torch.int64), 1, 0.5).tolist() == [1, 3]


def test_a_part_is_rounded_up_but_not_by_rounding_errors():
    assert [part_of(0.1, n) for n in (0, 1, 10, 11, 30)] == [0, 1, 1, 2, 3]
    assert part_of(0.0, 5) == 0 and part_of(1.0, 5) == 5


def test_growing_shares_as_a_table():
    assert [growing_share(r, 5, 0.2, 0.8) for r in range(1, 6)] == pytest.approx(
        [0.2, 0.35, 0.5, 0.65, 0.8]
    )
    assert growing_share(1, 1, 0.2, 0.8) == 0.8
    assert growing_share(2, 2, 0.2, 1.0) == 1.0
    for wrong in (0, 6):
        with pytest.raises(ValueError, match="not within"):
            growing_share(wrong, 5, 0.2, 0.8)


@pytest.mark.parametrize("repeats", [0, 1, 3])
def test_centroids_are_those_of_a_loop(repeats):
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(40, 5, dtype=F64, generator=rng)
    p = (2 * torch.randn(40, 3, dtype=F64, generator=rng)).softmax(-1)
    weights, labels = p.numpy(), np.zeros(0)
    for _ in range(1 + repeats):
        centres = np.stack([np.average(z.numpy(), 0, weights[:, k]) for k in range(3)])
        labels = cdist(z.numpy(), centres, "cosine").argmin(1)
        weights = np.eye(3)[labels]
    assert centroid_labels(z, p, repeats).tolist() == labels.tolist()
    assert centroid_labels(z, p, 1).tolist() != p.argmax(1).tolist()


def test_a_class_without_samples_gets_none():
    """No sample has the third class after the first step, and 0 · z would be no centroid."""
    z = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.2], [-1.0, 0.0]], dtype=F64)
    p = torch.tensor([[0.8, 0.1, 0.1]] * 2 + [[0.1, 0.8, 0.1]] * 2, dtype=F64)
    assert centroid_labels(z, p).tolist() == [0, 0, 1, 1]
    assert centroid_labels(-z, p).tolist() == [0, 0, 1, 1]
