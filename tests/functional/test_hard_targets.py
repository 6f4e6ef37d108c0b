"""Smoothed labels against a loop, PyTorch, and the copy that SHOT has."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from tlresearch.adaptation import shot
from tlresearch.functional.hard_targets import smoothed_cross_entropy
from tlresearch.functional.losses import cross_entropy
from tlresearch.functional.soft_targets import kl_divergences

F64 = torch.float64
Z = 3 * torch.randn(6, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 2, 2, 4, 0, 1])
ALPHAS = (0.0, 0.1, 0.9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_equals_a_loop_and_pytorch_and_shots(alpha):
    total = 0.0
    for row, label in zip(Z.tolist(), Y.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(value) for value in row))
        for k, value in enumerate(row):
            total -= ((1 - alpha) * (k == label) + alpha / 5) * (value - log_sum)
    found = smoothed_cross_entropy(Z, Y, alpha)
    assert found.item() == pytest.approx(total / 6, abs=1e-12)
    pytorch = F.cross_entropy(Z, Y, label_smoothing=alpha)
    torch.testing.assert_close(found, pytorch, atol=1e-12, rtol=0)
    assert found.equal(shot.smoothed_cross_entropy(Z, Y, alpha))


def test_without_smoothing_it_is_cross_entropy():
    torch.testing.assert_close(smoothed_cross_entropy(Z, Y, 0.0), cross_entropy(Z, Y))


def test_it_is_a_teacher_that_knows_nothing():
    """(1 − α) CE + α KL(uniform ‖ q) + α log K, KL as in distillation."""
    kl = kl_divergences(Z, torch.zeros_like(Z)).mean()
    expected = 0.7 * cross_entropy(Z, Y) + 0.3 * (kl + math.log(5))
    torch.testing.assert_close(smoothed_cross_entropy(Z, Y, 0.3), expected, atol=1e-12, rtol=0)


def test_the_least_loss_is_the_entropy_of_the_smoothed_labels():
    """At z = log q the value is H(q) and the gradient 0."""
    q = 0.9 * F.one_hot(Y, 5).double() + 0.1 / 5
    found = smoothed_cross_entropy(q.log(), Y, 0.1).item()
    assert found == pytest.approx(-(q * q.log()).sum(1).mean().item())
    assert grad(smoothed_cross_entropy)(q.log(), Y, 0.1).abs().max() < 1e-12


def test_gradcheck():
    z = Z.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: smoothed_cross_entropy(z, Y, 0.2), z)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_finite_at_the_extremes(dtype):
    z = 500 * torch.tensor([[1, -1, 0], [-1, 1, -1]], dtype=dtype)
    y = torch.tensor([1, 1])
    assert smoothed_cross_entropy(z, y, 0.1).isfinite()
    assert grad(smoothed_cross_entropy)(z, y, 0.1).isfinite().all()


def test_half_precision_computes_in_float32():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = smoothed_cross_entropy(Z.bfloat16(), Y, 0.1)
    assert found.dtype == torch.float32
    expected = smoothed_cross_entropy(Z.bfloat16().double(), Y, 0.1).item()
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_maps_over_seeds_and_smoothings():
    z, alphas = torch.stack([Z, 2 * Z, -Z]), torch.tensor(ALPHAS, dtype=F64)
    found = vmap(smoothed_cross_entropy, (0, None, 0))(z, Y, alphas)
    loop = [smoothed_cross_entropy(one, Y, alpha) for one, alpha in zip(z, ALPHAS, strict=True)]
    torch.testing.assert_close(found, torch.stack(loop), atol=1e-12, rtol=0)
