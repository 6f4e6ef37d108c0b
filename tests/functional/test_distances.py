"""Distances: brute force in float64, gradients at 0, and float32 far from the origin."""

import math

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from tlresearch.functional.distances import cosine_similarity, euclidean, squared_euclidean

F64 = torch.float64
ALL = [squared_euclidean, euclidean, cosine_similarity]


def sets(first: int = 5, second: int = 4, dim: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(first, dim, dtype=F64, generator=generator)
    return a, torch.randn(second, dim, dtype=F64, generator=generator)


def brute(kind, a: list[float], b: list[float]) -> float:
    if kind is cosine_similarity:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / (math.hypot(*a) * math.hypot(*b))
    squared = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    return squared if kind is squared_euclidean else math.sqrt(squared)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(("first", "second"), [(5, 4), (1, 3), (3, 1)])
def test_equals_a_loop(kind, first, second):
    a, b = sets(first, second)
    expected = [[brute(kind, x, y) for y in b.tolist()] for x in a.tolist()]
    torch.testing.assert_close(kind(a, b), torch.tensor(expected, dtype=F64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", [squared_euclidean, euclidean])
def test_a_common_shift_changes_nothing(kind):
    a, b = sets()
    shift = torch.arange(6, dtype=F64)
    torch.testing.assert_close(kind(a + shift, b + shift), kind(a, b), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("kind", ALL)
def test_gradients_are_those_of_differences_and_finite_at_zero(kind, dtype):
    """Also where the two are the same vector, and where they are zeros."""
    a, b = (t.to(dtype).requires_grad_() for t in sets())
    for pair in torch.autograd.grad(kind(a, b).sum(), (a, b)):
        assert pair.isfinite().all() and pair.abs().max() > 0
    same = torch.stack([b[0].detach(), torch.zeros(6, dtype=dtype)]).requires_grad_()
    for pair in torch.autograd.grad(kind(same, same).sum(), same):
        assert pair.isfinite().all()


@pytest.mark.parametrize("kind", ALL)
def test_gradients_by_finite_differences(kind):
    a, b = (t.requires_grad_() for t in sets(3, 2, 4))
    assert torch.autograd.gradcheck(kind, (a, b))


def test_the_gradient_of_a_square_is_twice_the_difference():
    a, b = (t.requires_grad_() for t in sets(1, 1))
    slopes = torch.autograd.grad(squared_euclidean(a, b).sum(), (a, b))
    torch.testing.assert_close(slopes[0], 2 * (a - b).detach())
    torch.testing.assert_close(slopes[1], -slopes[0])


def test_float32_far_from_the_origin():
    """Features of mean 300 and spread 1 in 64 dimensions: squares of 6e6, distances near 128."""
    a, b = sets(50, 5, 64)
    a, b = (300 + a).float(), (300 + b).float()
    expected = (a.double().unsqueeze(1) - b.double()).square().sum(2)
    torch.testing.assert_close(squared_euclidean(a, b).double(), expected, rtol=1e-5, atol=0)


def test_never_negative():
    """Rounding of equal vectors does not make it so."""
    a = (1e3 * sets(30, 1)[0]).float()
    assert squared_euclidean(a, a).ge(0).all() and euclidean(a, a).isfinite().all()


def test_a_vector_of_zeros_is_like_nothing():
    a, b = sets()
    assert torch.equal(cosine_similarity(torch.zeros_like(a), b), torch.zeros(5, 4, dtype=F64))


@pytest.mark.parametrize("kind", ALL)
def test_maps(kind):
    several = [sets(seed=seed) for seed in range(3)]
    a, b = (torch.stack(column) for column in zip(*several, strict=True))
    alone = torch.stack([kind(*pair) for pair in several])
    torch.testing.assert_close(vmap(kind)(a, b), alone)
