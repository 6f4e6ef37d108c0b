"""PKT by hand, against a plain loop and PyTorch's divergence."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tlresearch.functional.probability_transfer import log_neighbours, probability_transfer_loss

F64 = torch.float64


def features(count: int, dim: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, dtype=F64, generator=rng)


def test_by_hand():
    """Kernels ½ and 0 beside 1 and ½ (ε ≈ 0): one neighbour of two, then one of three thirds."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=F64)
    code = log_neighbours(x).exp()
    assert code[0].tolist() == pytest.approx([2 / 3, 1 / 3, 0.0], abs=1e-6)
    assert code[1].tolist() == pytest.approx([1 / 4, 1 / 2, 1 / 4], abs=1e-6)
    paper = log_neighbours(x, "paper").exp()
    assert paper[0].tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-6)
    assert paper[1].tolist() == pytest.approx([0.5, 0.0, 0.5], abs=1e-6)


def kernel(a: list[float], b: list[float]) -> float:
    product = sum(p * q for p, q in zip(a, b, strict=True))
    return 0.5 * (1 + product / math.hypot(*a) / math.hypot(*b)) + 1e-7


def by_loop(s: Tensor, t: Tensor, own: bool) -> float:
    """Σᵢ KL, one neighbour at a time."""
    total = 0.0
    for i in range(len(s)):
        others = [j for j in range(len(s)) if own or j != i]
        p, q = ([kernel(x[i].tolist(), x[j].tolist()) for j in others] for x in (t, s))
        p, q = ([k / sum(row) for k in row] for row in (p, q))
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total


def test_is_the_plain_loop():
    """The teacher's probabilities weigh; different dimensions."""
    s, t = features(5, 4, 0), features(5, 7, 1)
    code = probability_transfer_loss(s, t).item()
    assert code == pytest.approx(by_loop(s, t, own=True) / 25, abs=1e-12)
    paper = probability_transfer_loss(s, t, "paper").item()
    assert paper == pytest.approx(by_loop(s, t, own=False), abs=1e-12)
    assert abs(by_loop(t, s, own=True) - by_loop(s, t, own=True)) > 1e-4


def test_is_pytorchs_divergence_of_its_cosines():
    s, t = features(5, 4, 0), features(5, 7, 1)
    kernels = [(1 + F.cosine_similarity(x[None], x[:, None], dim=2)) / 2 for x in (s, t)]
    q, p = (k / k.sum(1, keepdim=True) for k in kernels)
    expected = F.kl_div(q.log(), p, reduction="sum") / 25
    torch.testing.assert_close(probability_transfer_loss(s, t), expected, atol=1e-6, rtol=0)


def test_rows_are_distributions():
    """Whatever the lengths are; and a rotation has no effect."""
    x = features(5, 3, 0) * torch.tensor([1.0, 1e4, 1e-4, 0.0, 2.0], dtype=F64)[:, None]
    turn = torch.linalg.qr(features(3, 3, 2)).Q
    for form in ("code", "paper"):
        ours = log_neighbours(x, form).exp()
        torch.testing.assert_close(ours.sum(1), torch.ones(5, dtype=F64))
        torch.testing.assert_close(log_neighbours(x @ turn, form).exp(), ours)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_opposite_vectors_cost_a_finite_amount(form):
    """Where the teacher sees neighbours: about log 1/ε for each, and not infinity."""
    s = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], dtype=F64, requires_grad=True)
    value = probability_transfer_loss(s, torch.ones(3, 2, dtype=F64), form)
    assert 1 < value * (9 if form == "code" else 1) < 30
    assert torch.autograd.grad(value, s)[0].isfinite().all()
