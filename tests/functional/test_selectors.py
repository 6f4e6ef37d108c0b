"""The scores that choose a model, against closed forms and loops in float64."""

import math

import pytest
import torch

from tlresearch.functional import selectors
from tlresearch.functional.selectors import (
    density_ratio,
    embedded_risk,
    entropy,
    information,
    mean_entropy,
    soft_neighbourhood_density,
)

F64 = torch.float64


def said(count: int = 9, classes: int = 4, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(count, classes, dtype=F64, generator=rng)).softmax(1)


def test_entropy_by_hand():
    """Uniform: log C; certain: 0; (1/2, 1/4, 1/4): 3/2 log 2."""
    rows = torch.tensor([[1 / 3] * 3, [0, 1, 0], [0.5, 0.25, 0.25]], dtype=F64)
    expected = torch.tensor([math.log(3), 0.0, 1.5 * math.log(2)], dtype=F64)
    torch.testing.assert_close(entropy(rows), expected, atol=1e-15, rtol=0)
    torch.testing.assert_close(mean_entropy(rows), expected.mean(), atol=1e-15, rtol=0)


def test_information_by_hand():
    """Certain and balanced: log C; certain of one class, or undecided: 0."""
    eye = torch.eye(3, dtype=F64)
    assert information(eye).item() == pytest.approx(math.log(3), abs=1e-15)
    assert information(eye[[0, 0, 0]]).item() == 0
    assert information(torch.full((5, 4), 0.25, dtype=F64)).item() == pytest.approx(0, abs=1e-15)


def test_information_is_a_divergence_from_the_mean():
    """H(p̄) − mean H(p) = mean KL(p ‖ p̄)."""
    p = said()
    divergence = (p * (p / p.mean(0)).log()).sum(1).mean()
    torch.testing.assert_close(information(p), divergence, atol=1e-14, rtol=0)


def density_by_loops(p: list[list[float]], temperature: float) -> float:
    """As the paper says it: the diagonal is left out, then softmax, then entropy."""
    unit = [[value / math.hypot(*row) for value in row] for row in p]
    total = 0.0
    for i, mine in enumerate(unit):
        others = [
            sum(a * b for a, b in zip(mine, other, strict=True)) / temperature
            for j, other in enumerate(unit)
            if j != i
        ]
        weights = [math.exp(s - max(others)) for s in others]
        shares = [w / sum(weights) for w in weights]
        total -= sum(s * math.log(s) for s in shares if s > 0)
    return total / len(p)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_density_equals_loops(temperature: float):
    p = said()
    ours = soft_neighbourhood_density(p, temperature).item()
    assert ours == pytest.approx(density_by_loops(p.tolist(), temperature), abs=1e-12)
    assert soft_neighbourhood_density(p).item() == pytest.approx(
        density_by_loops(p.tolist(), 0.05), abs=1e-12
    )


def test_density_by_hand():
    """Of equal predictions each sample has n − 1 equal neighbours; of two, one and no choice."""
    same = torch.tensor([[0.7, 0.3]], dtype=F64).expand(6, 2)
    assert soft_neighbourhood_density(same).item() == pytest.approx(math.log(5), abs=1e-12)
    assert soft_neighbourhood_density(said(2)).item() == pytest.approx(0, abs=1e-15)
    far = torch.eye(2, dtype=F64).repeat(3, 1)  # two near neighbours at 1, three at 0
    near, other = 1 / (2 + 3 * math.exp(-20)), 1 / (2 * math.exp(20) + 3)
    expected = -2 * near * math.log(near) - 3 * other * math.log(other)
    assert soft_neighbourhood_density(far).item() == pytest.approx(expected, abs=1e-12)


def test_density_does_not_depend_on_order_or_chunks(monkeypatch: pytest.MonkeyPatch):
    p = said(10)
    whole = soft_neighbourhood_density(p)
    torch.testing.assert_close(soft_neighbourhood_density(p.flip(0)), whole, atol=1e-13, rtol=0)
    torch.testing.assert_close(soft_neighbourhood_density(p.flip(1)), whole, atol=1e-13, rtol=0)
    monkeypatch.setattr(selectors, "CHUNK", 4)
    torch.testing.assert_close(soft_neighbourhood_density(p), whole, atol=1e-13, rtol=0)


def test_density_ratio_of_two_gaussians():
    """N(0, 1) and N(1, 1), three times as many of the first: w(x) = exp(x − 1/2)."""
    x = torch.linspace(-2, 3, 11, dtype=F64)
    source, target = 3 * torch.exp(-(x**2) / 2), torch.exp(-((x - 1) ** 2) / 2)
    ratio = density_ratio(source / (source + target), 300, 100)
    torch.testing.assert_close(ratio, torch.exp(x - 0.5), atol=1e-12, rtol=0)


def test_risk_by_hand():
    """w = 1, 3; ℓ = 1, 0: mean(wℓ) = 1/2, η = 1/2, so 1/2 + 1/2 · 2 − 1/2 = 1."""
    risk = embedded_risk(torch.tensor([1.0, 3.0], dtype=F64), torch.tensor([1.0, 0.0], dtype=F64))
    assert risk.item() == pytest.approx(1.0, abs=1e-15)


def test_a_constant_loss_is_its_own_risk():
    """Cov(wc, w) = c Var(w), so η = −c, whatever the weights and their mean."""
    rng = torch.Generator().manual_seed(0)
    weights = 3 * torch.rand(20, dtype=F64, generator=rng)
    losses = torch.full_like(weights, 0.3)
    assert embedded_risk(weights, losses).item() == pytest.approx(0.3, abs=1e-14)


def test_equal_weights_give_the_mean_loss():
    losses = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=F64)
    assert embedded_risk(torch.ones(4, dtype=F64), losses).item() == 0.5


def test_the_risk_is_that_of_the_target():
    """Source N(0, 1), target N(1, 1), an error where x > 1: 1/2 of the target, .16 of the source.

    And the control variate has less spread than the plain weighted mean.
    """
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(50, 2000, dtype=F64, generator=rng)
    weights, losses = torch.exp(x - 0.5), (x > 1).double()
    plain = (weights * losses).mean(1)
    controlled = torch.stack([embedded_risk(w, e) for w, e in zip(weights, losses, strict=True)])
    assert controlled.mean().item() == pytest.approx(0.5, abs=0.02)
    assert controlled.std() < 0.8 * plain.std()
