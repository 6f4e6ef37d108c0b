"""Masked cross-entropy against its formula written out in float64."""

import math

import pytest
import torch
from torch.func import vmap

from tlresearch.functional.losses import cross_entropy, mask_logits

F64 = torch.float64


def formula(logits, y, mask):
    """−(1/N) Σₙ log(exp zₙ[yₙ] / Σ over active c of exp zₙ[c]), number by number."""
    total = 0.0
    for n, label in enumerate(y.tolist()):
        row = mask[n] if mask.dim() == 2 else mask
        active = [z for z, on in zip(logits[n].tolist(), row.tolist(), strict=True) if on]
        total -= logits[n, label].item() - math.log(sum(math.exp(z) for z in active))
    return total / len(y)


def problem(shape: str, seed: int = 0):
    """Logits, labels and a mask in which every label is active and some class is not."""
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(6, 5, dtype=F64, generator=generator)
    y = torch.tensor([0, 2, 2, 4, 0, 2])
    if shape == "classes":
        return z, y, torch.tensor([True, False, True, False, True])
    mask = torch.rand(6, 5, generator=generator) < 0.4
    mask[torch.arange(6), y] = True
    mask[torch.arange(6), (y + 1) % 5] = False
    return z, y, mask


@pytest.mark.parametrize("shape", ["classes", "batch classes"])
def test_equals_the_formula(shape):
    """Both shapes of mask, over several draws."""
    for seed in range(5):
        z, y, mask = problem(shape, seed)
        assert cross_entropy(z, y, mask).item() == pytest.approx(formula(z, y, mask), abs=1e-13)


def test_without_a_mask_all_classes_are_active():
    """None equals a mask of True, and the formula over all classes."""
    z, y, _ = problem("classes")
    everything = torch.ones(5, dtype=torch.bool)
    value = cross_entropy(z, y)
    assert value.item() == pytest.approx(formula(z, y, everything), abs=1e-13)
    torch.testing.assert_close(cross_entropy(z, y, everything), value, atol=0, rtol=0)


def test_worked_by_hand():
    """Active logits (ln 3, 0), label the first: so ln(4/3) nats; the third is ignored."""
    z = torch.tensor([[math.log(3.0), 50.0, 0.0]], dtype=F64)
    mask = torch.tensor([True, False, True])
    assert cross_entropy(z, torch.tensor([0]), mask).item() == pytest.approx(math.log(4 / 3))


@pytest.mark.parametrize("shape", ["classes", "batch classes"])
def test_gradient_is_softmax_less_one_hot_and_zero_where_inactive(shape):
    """∂L/∂z = (softmax over the active − one-hot) / N, exactly 0 elsewhere."""
    z, y, mask = problem(shape)
    z.requires_grad_()
    (grad,) = torch.autograd.grad(cross_entropy(z, y, mask), z)
    rows = mask.expand(6, 5)
    weights = z.detach().exp() * rows
    expected = weights / weights.sum(1, keepdim=True)
    expected[torch.arange(6), y] -= 1
    torch.testing.assert_close(grad, expected / 6, atol=1e-14, rtol=0)
    assert (grad[~rows] == 0).all() and (grad[rows] != 0).any()


@pytest.mark.parametrize("shape", ["classes", "batch classes"])
def test_gradcheck(shape):
    """Finite differences, first and second order."""
    z, y, mask = problem(shape)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, y, mask), z)
    assert torch.autograd.gradgradcheck(lambda z: cross_entropy(z, y, mask), z)


def test_infinite_where_a_label_is_inactive():
    """A label that cannot be right costs infinitely much; nothing is hidden."""
    z, y, mask = problem("classes")
    assert cross_entropy(z, y.where(y != 4, torch.tensor(3)), mask).item() == math.inf


def test_finite_at_extreme_logits():
    """Logits of ±500 in float32 neither overflow nor vanish: 1000 nats, or none."""
    z = torch.tensor([[500.0, -500.0, 0.0]])
    mask = torch.tensor([True, True, False])
    assert cross_entropy(z, torch.tensor([1]), mask).item() == 1000.0
    assert cross_entropy(z, torch.tensor([0]), mask).item() == 0.0


def test_vmap_equals_a_loop():
    """A stack of seeds, each with its own mask."""
    problems = [problem("batch classes", seed) for seed in range(4)]
    z, y, mask = (torch.stack(part) for part in zip(*problems, strict=True))
    looped = torch.stack([cross_entropy(*p) for p in problems])
    torch.testing.assert_close(vmap(cross_entropy)(z, y, mask), looped, atol=1e-14, rtol=0)


def test_masked_logits_have_probability_zero_and_others_stay():
    """−∞ exactly where a class is inactive, the logits untouched elsewhere; any batch shape."""
    z = torch.randn(2, 3, 4)
    mask = torch.tensor([True, False, True, True])
    masked = mask_logits(z, mask)
    assert torch.equal(masked[..., mask], z[..., mask])
    assert (masked[..., ~mask] == -math.inf).all()
    assert (masked.softmax(-1)[..., 1] == 0).all()
    assert mask_logits(z, None) is z
