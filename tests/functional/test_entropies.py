"""Entropies against their formulas, scipy and limits; and ridge regression against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.linear_model import Ridge
from torch.func import vmap

from tlresearch.functional.entropies import diversity, entropies, tsallis_entropies
from tlresearch.functional.ridge import ridge_regression

F64 = torch.float64
Z = 2 * torch.randn(6, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
P = Z.softmax(-1)


def test_entropies_are_scipys():
    assert entropies(Z).numpy() == pytest.approx(entropy(P.numpy(), axis=1))
    assert diversity(Z).item() == pytest.approx(entropy(P.mean(0).numpy()))


def test_entropies_at_their_ends():
    """0 for a sure row, log K for an even one; a sure row has gradient 0 and no NaN."""
    z = torch.tensor([[500.0, -500.0, 0.0], [0.0, 0.0, 0.0]], dtype=F64, requires_grad=True)
    values = entropies(z)
    assert values.tolist() == pytest.approx([0, math.log(3)])
    values.sum().backward()
    assert z.grad is not None and z.grad.abs().max() < 1e-12
    sure = 900 * torch.eye(3, dtype=F64)
    assert diversity(sure).item() == pytest.approx(math.log(3))
    assert diversity(sure[:1].repeat(4, 1)).item() == pytest.approx(0)


@pytest.mark.parametrize("order", [1.5, 1.9, 2.0, 3.0])
def test_tsallis_is_its_formula(order):
    expected = (1 - P.pow(order).sum(-1)) / (order - 1)
    torch.testing.assert_close(tsallis_entropies(Z, order), expected, atol=1e-12, rtol=0)


def test_tsallis_tends_to_shannon():
    for order in (1.0, 1 + 1e-12, 1 + 1e-7):
        torch.testing.assert_close(tsallis_entropies(Z, order), entropies(Z), atol=1e-6, rtol=0)
    z = Z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(tsallis_entropies(z, 1.0).sum(), z)
    (shannon,) = torch.autograd.grad(entropies(z).sum(), z)
    torch.testing.assert_close(slope, shannon)


def test_tsallis_maps_over_orders():
    orders = torch.tensor([1.0, 1.5, 2.0], dtype=F64)
    found = vmap(lambda order: tsallis_entropies(Z, order))(orders)
    torch.testing.assert_close(found, torch.stack([tsallis_entropies(Z, o) for o in orders]))


@pytest.mark.parametrize(("rows", "dim"), [(7, 4), (4, 7)])
def test_ridge_regression_is_scikit_learns(rows, dim):
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(rows, dim, dtype=F64, generator=rng)
    y = torch.randn(rows, 3, dtype=F64, generator=rng)
    reference = Ridge(alpha=0.3, fit_intercept=False).fit(x.numpy(), y.numpy())
    assert np.allclose(ridge_regression(x, y, 0.3).numpy().T, reference.coef_, atol=1e-10)
    assert torch.autograd.gradcheck(
        lambda x, y: ridge_regression(x, y, 0.3), (x.requires_grad_(), y.requires_grad_())
    )
