"""RKD by hand, against plain loops and PyTorch, and where samples coincide."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from tlresearch.functional.relations import (
    angle_loss,
    angles,
    distance_loss,
    relational_loss,
    relative_distances,
)

F64 = torch.float64


def features(count: int, dim: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, dtype=F64, generator=rng)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)[:, None]


def test_distances_by_hand():
    """0, 1, 3: distances 1, 3, 2 of mean 2; and 0, 1, 2: 1, 2, 1 of mean 4/3."""
    x, y = column(0.0, 1.0, 3.0), column(0.0, 1.0, 2.0)
    ours = relative_distances(x)[torch.triu_indices(3, 3, 1).unbind()]
    assert ours.tolist() == pytest.approx([0.5, 1.5, 1.0], abs=1e-12)
    # Differences ½ − ¾, 3/2 − 3/2, 1 − ¾, each of two ordered pairs.
    total = 2 * (0.5 * 0.25**2 + 0 + 0.5 * 0.25**2)
    assert distance_loss(y, x, "paper").item() == pytest.approx(total, abs=1e-12)
    assert distance_loss(y, x).item() == pytest.approx(total / 9, abs=1e-12)


def test_angles_by_hand():
    """A right angle at the origin, and 45 degrees at each of the other two."""
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=F64)
    found, half = angles(x), math.sqrt(0.5)
    assert found[0, 1, 2].item() == pytest.approx(0.0, abs=1e-12)
    assert found[1, 0, 2].item() == pytest.approx(half, abs=1e-12)
    assert found[2, 1, 0].item() == pytest.approx(half, abs=1e-12)
    # Beside 0, 1, 3 on a line: cosines 1, -1 and 1, each of two ordered triples.
    line = column(0.0, 1.0, 3.0)
    huber = [0.5, 1 + half - 0.5, 0.5 * (1 - half) ** 2]
    expected = 2 * sum(huber)
    assert angle_loss(x, line, "paper").item() == pytest.approx(expected, abs=1e-12)
    assert angle_loss(x, line).item() == pytest.approx(expected / 27, abs=1e-12)


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) <= 1 else abs(x) - 0.5


def distances_by_loop(x: Tensor) -> dict[tuple[int, int], float]:
    rows = x.tolist()
    pairs = list(itertools.permutations(range(len(rows)), 2))
    distances = {(i, j): math.dist(rows[i], rows[j]) for i, j in pairs}
    mean = sum(distances.values()) / len(pairs)
    return {pair: distance / mean for pair, distance in distances.items()}


def cosine_by_loop(x: Tensor, i: int, j: int, k: int) -> float:
    first, second = (x[i] - x[j]).tolist(), (x[k] - x[j]).tolist()
    product = sum(a * b for a, b in zip(first, second, strict=True))
    return product / math.hypot(*first) / math.hypot(*second)


def test_is_the_plain_loop():
    """One pair and one triple of different samples at a time; outliers reach Huber's line."""
    s, t = features(5, 4, 0), features(5, 3, 1)
    s[0] *= 10
    first, second = distances_by_loop(s), distances_by_loop(t)
    differences = [second[pair] - first[pair] for pair in first]
    assert max(map(abs, differences)) > 1
    total = sum(map(huber, differences))
    assert distance_loss(s, t, "paper").item() == pytest.approx(total, abs=1e-10)
    assert distance_loss(s, t).item() == pytest.approx(total / 25, abs=1e-10)
    triples = list(itertools.permutations(range(5), 3))
    total = sum(huber(cosine_by_loop(t, *c) - cosine_by_loop(s, *c)) for c in triples)
    assert angle_loss(s, t, "paper").item() == pytest.approx(total, abs=1e-10)
    assert angle_loss(s, t).item() == pytest.approx(total / 125, abs=1e-10)
    both = 25 * distance_loss(s, t) + 50 * angle_loss(s, t)
    torch.testing.assert_close(relational_loss(s, t), both)
    weights = torch.tensor([1.0, 2.0], dtype=F64)
    both = distance_loss(s, t, "paper") + 2 * angle_loss(s, t, "paper")
    torch.testing.assert_close(relational_loss(s, t, *weights, form="paper"), both)


def test_distances_are_pytorchs():
    """`pdist` divided by its mean."""
    x = features(6, 4, 0) + 3
    known = torch.pdist(x)
    ours = relative_distances(x)[torch.triu_indices(6, 6, 1).unbind()]
    torch.testing.assert_close(ours, known / known.mean(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_motions_have_no_effect(loss):
    """Shifts, rotations, reflections and one scale for all of either network."""
    s, t = features(5, 4, 0), features(5, 3, 1)
    turn = torch.linalg.qr(features(4, 4, 2)).Q
    moved = -3 * (s @ turn) + features(1, 4, 3)
    torch.testing.assert_close(loss(moved, t), loss(s, t), atol=1e-12, rtol=0)
    torch.testing.assert_close(loss(moved, s), torch.zeros((), dtype=F64), atol=1e-12, rtol=0)


def test_coinciding_samples():
    """They are 0 apart, count in the mean distance as a pair, and have no angle."""
    x = column(0.0, 0.0, 3.0)
    distances = relative_distances(x)
    assert distances[0, 1] == 0 and distances[0, 2].item() == pytest.approx(1.5, abs=1e-12)
    found = angles(x)
    assert found[0, 1, 2] == 0 and found[2, 0, 1].item() == pytest.approx(1.0, abs=1e-12)
    same = torch.ones(3, 2, dtype=F64, requires_grad=True)
    value = relational_loss(same, features(3, 2, 0))
    assert value.isfinite() and torch.autograd.grad(value, same)[0].abs().max() == 0


def test_the_gradient_goes_through_the_mean_distance():
    """Distances of a network that are multiplied by any factor stay as they are: no gradient."""
    s, t = features(4, 3, 0), features(4, 3, 1)
    factor = torch.tensor(2.0, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(distance_loss(factor * s, t), factor)
    assert slope.abs() < 1e-12
