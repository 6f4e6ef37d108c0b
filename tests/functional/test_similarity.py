"""SP by hand, against a plain loop, and the invariance that the paper claims."""

import math

import pytest
import torch
from torch import Tensor

from tlresearch.functional.similarity import similarities, similarity_loss

F64 = torch.float64


def features(count: int, dim: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, dtype=F64, generator=rng)


def test_by_hand():
    """Gram matrices (1 1; 1 2) and (4 0; 0 1): rows (1 1)/√2, (1 2)/√5 beside the identity."""
    s = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=F64)
    t = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=F64)
    a, b = 1 / math.sqrt(2), 1 / math.sqrt(5)
    expected = ((a - 1) ** 2 + a**2 + b**2 + (2 * b - 1) ** 2) / 4
    assert similarity_loss(s, t).item() == pytest.approx(expected, abs=1e-12)


def by_loop(rows: list[list[float]]) -> list[list[float]]:
    gram = [[sum(p * q for p, q in zip(a, b, strict=True)) for b in rows] for a in rows]
    return [[g / math.sqrt(sum(h * h for h in row)) for g in row] for row in gram]


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_is_the_plain_loop(scale):
    """Features of different dimensions; eq. (4) divides by B², whatever the dimensions are."""
    s, t = scale * features(5, 4, 0), features(5, 7, 1)
    first, second = by_loop(s.tolist()), by_loop(t.tolist())
    total = sum((first[i][j] - second[i][j]) ** 2 for i in range(5) for j in range(5))
    assert similarity_loss(s, t).item() == pytest.approx(total / 25, abs=1e-12)


def test_a_rotation_has_no_effect():
    """Nor do more dimensions of zeros, nor the shape of a map; a shift has one."""
    s, t = features(5, 4, 0), features(5, 6, 1)
    turn = torch.linalg.qr(features(4, 4, 2)).Q
    wider = torch.cat([s @ turn, torch.zeros(5, 2, dtype=F64)], 1).view(5, 3, 2, 1)
    expected = similarity_loss(s, t)
    torch.testing.assert_close(similarity_loss(wider, t), expected, atol=1e-12, rtol=0)
    assert (similarity_loss(s + 1, t) - expected).abs() > 1e-3


def test_rows_are_of_length_1():
    """A long feature weighs no more than a short one; and a feature of zeros is like none."""
    x = features(4, 3, 0) * torch.tensor([1.0, 1e3, 1e-3, 0.0], dtype=F64)[:, None]
    lengths = similarities(x).square().sum(1)
    torch.testing.assert_close(lengths, torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=F64))
    columns = similarities(x).square().sum(0)
    assert columns.max() > 1.5  # it is rows and not columns
