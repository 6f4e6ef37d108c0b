"""Calibration error against a loop over bins, temperature against scipy."""

from typing import Any

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from tlresearch.functional.calibration import (
    HIGHEST,
    LOWEST,
    best_temperature,
    expected_calibration_error,
)
from tlresearch.functional.losses import cross_entropy

F64 = torch.float64


def predictions(n: int = 200, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that are too large, and labels."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=rng)
    z = torch.randn(n, classes, dtype=F64, generator=rng)
    z[torch.arange(n), y] += 1
    return 3 * z, y


def ece_by_loops(p: Tensor, y: Tensor, bins: int) -> float:
    """Eq. (3) as it is written."""
    total = 0.0
    for m in range(1, bins + 1):
        members = [i for i in range(len(y)) if (m - 1) / bins < p[i].max().item() <= m / bins]
        if members:
            acc = sum(float(p[i].argmax() == y[i]) for i in members) / len(members)
            conf = sum(p[i].max().item() for i in members) / len(members)
            total += len(members) / len(y) * abs(acc - conf)
    return total


@pytest.mark.parametrize("bins", [1, 2, 10, 15])
def test_calibration_error_is_a_loop_over_bins(bins):
    z, y = predictions()
    p = z.softmax(-1)
    assert expected_calibration_error(p, y, bins).item() == pytest.approx(ece_by_loops(p, y, bins))


def test_calibration_error_by_hand():
    """.8 and .6 in one of two bins: |1/2 − .7|; two sure ones, half right: |1/2 − 1| if apart."""
    p = torch.tensor([[0.8, 0.2], [0.6, 0.4]])
    y = torch.tensor([0, 1])
    assert expected_calibration_error(p, y, 2).item() == pytest.approx(0.2)
    assert expected_calibration_error(p, y, 10).item() == pytest.approx(0.5 * (0.2 + 0.6))
    assert expected_calibration_error(torch.eye(2), torch.tensor([0, 0])).item() == 0.5


def test_an_edge_belongs_to_the_bin_below():
    """.5 is in (0, ½] of two bins, .6 in (½, 1]: the gaps +.5 and −.6 do not cancel."""
    p, y = torch.tensor([[0.5, 0.5], [0.6, 0.4]], dtype=F64), torch.tensor([0, 1])
    assert expected_calibration_error(p, y, 2).item() == pytest.approx(0.5 * (0.5 + 0.6))


@pytest.mark.parametrize(("n", "bins"), [(0, 15), (3, 0)])
def test_calibration_needs_samples_and_bins(n, bins):
    with pytest.raises(ValueError, match="calibration needs"):
        expected_calibration_error(torch.full((n, 2), 0.5), torch.zeros(n, dtype=torch.int64), bins)


@pytest.mark.parametrize("scale", [0.1, 1.0, 50.0])
def test_temperature_is_scipys(scale):
    z, y = predictions(seed=1)
    z = scale * z

    def loss(log_t: float) -> float:
        return cross_entropy(z / torch.tensor(log_t).exp(), y).item()

    found: Any = minimize_scalar(
        loss, bounds=(-6.9, 6.9), method="bounded", options={"xatol": 1e-9}
    )
    ours = best_temperature(z, y)
    assert ours.log().item() == pytest.approx(found.x, abs=1e-5)
    assert cross_entropy(z / ours, y).item() <= found.fun + 1e-12
    assert cross_entropy(z / ours, y) < min(cross_entropy(z, y), cross_entropy(z * ours, y))


def test_temperature_undoes_a_scale():
    """Logits whose labels were drawn from them need T = 1, and c times them T = c."""
    rng = torch.Generator().manual_seed(2)
    z = torch.randn(20000, 3, dtype=F64, generator=rng)
    y = torch.multinomial(z.softmax(-1), 1, generator=rng).squeeze(1)
    one = best_temperature(z, y)
    assert one.item() == pytest.approx(1, abs=0.03)
    assert best_temperature(7 * z, y).item() == pytest.approx(7 * one.item(), rel=1e-9)


def test_temperature_moves_with_no_shift_of_a_row():
    z, y = predictions()
    shift = torch.linspace(-9, 9, len(y), dtype=F64).unsqueeze(1)
    assert best_temperature(z + shift, y).item() == pytest.approx(best_temperature(z, y).item())


def test_temperature_is_finite_for_extreme_logits():
    """All right: as cold as it may be; all wrong: as hot; equal logits: 1."""
    z = torch.tensor([[3e38, -3e38], [-3e38, 3e38]])
    right, wrong = torch.tensor([0, 1]), torch.tensor([1, 0])
    assert best_temperature(z, right).item() == pytest.approx(LOWEST)
    assert best_temperature(z, wrong).item() == pytest.approx(HIGHEST)
    assert best_temperature(500 * torch.eye(2), right).item() == pytest.approx(LOWEST)
    assert best_temperature(torch.zeros(2, 3), right).item() == 1


@pytest.mark.parametrize("z", [torch.zeros(0, 2), torch.tensor([[1.0, float("nan")]])])
def test_temperature_needs_finite_samples(z):
    with pytest.raises(ValueError, match="held-out samples with finite logits"):
        best_temperature(z, torch.zeros(len(z), dtype=torch.int64))
