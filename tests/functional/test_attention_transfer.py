"""Attention transfer by hand, against a plain loop, and what it does not depend on."""

import math

import pytest
import torch
from torch import Tensor

from tlresearch.functional.attention_transfer import attention, attention_transfer_loss

F64 = torch.float64


def maps(channels: int, seed: int, side: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(4, channels, side, side, dtype=F64, generator=rng)


def test_by_hand():
    """Sums of squares (3, 4) and (0, 2): directions (.6, .8) and (0, 1), .6 and -.2 apart."""
    s = torch.tensor([1.0, 0.0, math.sqrt(2), 2.0], dtype=F64).view(1, 2, 1, 2)
    t = torch.tensor([0.0, math.sqrt(2)], dtype=F64).view(1, 1, 1, 2)
    assert attention(s).flatten().tolist() == pytest.approx([0.6, 0.8], abs=1e-12)
    assert attention_transfer_loss(s, t).item() == pytest.approx((0.36 + 0.04) / 2, abs=1e-12)
    norm = attention_transfer_loss(s, t, form="paper").item()
    assert norm == pytest.approx(math.sqrt(0.4), abs=1e-12)


def by_loop(feature: Tensor, power: float) -> list[list[float]]:
    """Attention of each sample, one number at a time."""
    rows = []
    for sample in feature.tolist():
        places = [(i, j) for i in range(len(sample[0])) for j in range(len(sample[0][0]))]
        sums = [sum(abs(channel[i][j]) ** power for channel in sample) for i, j in places]
        norm = math.sqrt(sum(q * q for q in sums))
        rows.append([q / norm for q in sums])
    return rows


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_is_the_plain_loop(power):
    """Different channels; both forms; also with p as a tensor."""
    s, t = maps(2, 0), maps(5, 1)
    pairs = zip(by_loop(s, power), by_loop(t, power), strict=True)
    squares = [sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) for pair in pairs]
    expected = {"code": sum(squares) / (4 * 9), "paper": sum(map(math.sqrt, squares)) / 4}
    for form in ("code", "paper"):
        for p in (power, torch.tensor(power, dtype=F64)):
            ours = attention_transfer_loss(s, t, p, form).item()
            assert ours == pytest.approx(expected[form], abs=1e-12)


def test_larger_maps_are_averaged_first():
    """4 x 4 beside 2 x 2, either way: means of 2 x 2 of the feature, and not of its squares."""
    large, small = maps(2, 0, side=4), maps(3, 1, side=2)
    means = large.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5))
    expected = attention_transfer_loss(means, small)
    torch.testing.assert_close(attention_transfer_loss(large, small), expected)
    torch.testing.assert_close(attention_transfer_loss(small, large), expected)


def test_channels_have_no_identity():
    """Permuted, negated, or all twice: the same map; each sample has a scale of its own."""
    x = maps(3, 0)
    other = torch.cat([-x[:, [2, 0, 1]], x], 1) * torch.tensor([1.0, 7.0, 1e-8, 1e8])[
        :, None, None, None
    ].to(F64)
    torch.testing.assert_close(attention(other), attention(x), atol=1e-12, rtol=0)
    torch.testing.assert_close(attention(x).square().sum(1), torch.ones(4, dtype=F64))


def test_high_powers_do_not_overflow():
    """(10⁴)¹⁶ is beyond float32."""
    x = 1e4 * maps(3, 0).float().requires_grad_()
    value = attention_transfer_loss(x, maps(3, 1).float(), 16.0)
    assert value.isfinite() and torch.autograd.grad(value, x)[0].isfinite().all()
