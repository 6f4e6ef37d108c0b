"""Gradient reversal against autograd."""

import pytest
import torch
from torch.func import grad, vmap

from tlresearch.functional.reversal import reverse_gradient

F64 = torch.float64


def function(x: torch.Tensor) -> torch.Tensor:
    return (x.sin() * x.square()).sum()


def points() -> torch.Tensor:
    return torch.randn(5, 3, dtype=F64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 6.0])
def test_the_value_stays_and_the_gradient_is_reversed_once(scale):
    """x bit for bit; −scale · f′(x), and behind two of them scale² · f′(x)."""
    x = points().requires_grad_()
    assert torch.equal(reverse_gradient(x, scale), x)
    (plain,) = torch.autograd.grad(function(x), x)
    (once,) = torch.autograd.grad(function(reverse_gradient(x, scale)), x)
    torch.testing.assert_close(once, -scale * plain, atol=1e-14, rtol=1e-14)
    twice = reverse_gradient(reverse_gradient(x, scale), scale)
    (again,) = torch.autograd.grad(function(twice), x)
    torch.testing.assert_close(again, scale**2 * plain, atol=1e-13, rtol=1e-13)


def test_a_scale_of_its_own_for_each_seed():
    """Under `vmap`, in a gradient; no gradient reaches the scale."""
    x, scales = points(), torch.linspace(0, 2, 5, dtype=F64)
    ours = vmap(grad(lambda row, scale: function(reverse_gradient(row, scale))))(x, scales)
    torch.testing.assert_close(ours, -scales[:, None] * grad(function)(x), atol=1e-14, rtol=1e-14)
    to_scale = grad(lambda scale: function(reverse_gradient(x, scale)))(scales[1])
    assert to_scale == 0
