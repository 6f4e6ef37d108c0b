"""DKD against plain loops over its definitions, and against KL, which it takes apart."""

import math

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from tlresearch.functional.decoupled import decoupled, dkd_loss
from tlresearch.functional.soft_targets import kl_divergences, soft_target_loss

F64 = torch.float64
Y = torch.tensor([0, 2, 2, 4, 0, 1])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def close(ours: Tensor, other: Tensor | float | list, atol: float = 1e-10) -> None:
    other = torch.as_tensor(other, dtype=ours.dtype)
    torch.testing.assert_close(ours, other, atol=atol, rtol=0)


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def normalised(weights: list[float]) -> list[float]:
    return [w / sum(weights) for w in weights]


def by_loop(z: Tensor, v: Tensor, y: Tensor, temperature: float) -> tuple[float, float]:
    """The means of TCKD and NCKD: probabilities in two lists, as in section 3.1."""
    target = others = 0.0
    for student, teacher, label in zip(z.tolist(), v.tolist(), y.tolist(), strict=True):
        q = normalised([math.exp(value / temperature) for value in student])
        p = normalised([math.exp(value / temperature) for value in teacher])
        target += kl([p[label], 1 - p[label]], [q[label], 1 - q[label]])
        others += kl(
            normalised([a for k, a in enumerate(p) if k != label]),
            normalised([a for k, a in enumerate(q) if k != label]),
        )
    return target / len(y), others / len(y)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (1.0, 8.0)])
def test_equals_a_loop(temperature: float, weights: tuple[float, float]):
    z, v = draw(6, 5), draw(6, 5, seed=1)
    target, others = by_loop(z, v, Y, temperature)
    expected = temperature**2 * (weights[0] * target + weights[1] * others)
    close(dkd_loss(z, v, Y, *weights, temperature), expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_is_tckd_plus_the_teachers_doubt_times_nckd(temperature):
    """Sample by sample; so DKD with weights 1 and 1 is not KD, and α alone neither."""
    z, v = draw(6, 5), draw(6, 5, seed=1)
    part = decoupled(z, v, Y, temperature)
    p_label = (v / temperature).softmax(1)[torch.arange(6), Y]
    close(part.doubt, 1 - p_label)
    whole = kl_divergences(z / temperature, v / temperature)
    close(part.target + (1 - p_label) * part.others, whole)
    assert dkd_loss(z, v, Y, 1.0, 1.0, temperature) > soft_target_loss(z, v, temperature) + 0.01


def test_what_each_part_does_not_see():
    """NCKD the student's logit of the label; TCKD a permutation among the others."""
    z, v = draw(6, 5), draw(6, 5, seed=1)
    moved = z.scatter_add(1, Y.unsqueeze(1), torch.full((6, 1), 2.5, dtype=F64))
    before, after = decoupled(z, v, Y, 2.0), decoupled(moved, v, Y, 2.0)
    close(after.others, before.others)
    assert (after.target - before.target).abs().min() > 1e-4
    label = torch.zeros(6, dtype=torch.int64)
    order = torch.tensor([0, 3, 1, 4, 2])
    close(decoupled(z[:, order], v, label, 2.0).target, decoupled(z, v, label, 2.0).target)


def test_of_two_classes_the_target_is_all():
    z, v, y = draw(4, 2), draw(4, 2, seed=1), torch.tensor([0, 1, 1, 0])
    part = decoupled(z, v, y, 3.0)
    close(part.others, torch.zeros(4), atol=0)
    close(9 * part.target.mean(), soft_target_loss(z, v, 3.0))


def test_equal_networks_give_nothing():
    z = draw(6, 5)
    rows = torch.linspace(-9, 9, 6, dtype=F64).unsqueeze(1)
    close(dkd_loss(z + rows, z, Y, 1.0, 8.0, 4.0), 0.0)
    close(grad(dkd_loss)(z, z, Y, 1.0, 8.0, 4.0), torch.zeros_like(z))


def test_gradcheck_and_a_teacher_that_is_constant():
    z, v = draw(6, 5).requires_grad_(), draw(6, 5, seed=1)
    assert torch.autograd.gradcheck(lambda z: dkd_loss(z, v, Y, 1.0, 8.0, 4.0), z)
    v.requires_grad_()
    dkd_loss(z, v, Y, 1.0, 8.0, 4.0).backward()
    assert z.grad is not None and v.grad is None


def test_gradients_by_hand():
    """∂TCKD/∂z_y = q_y − p_y, and NCKD's gradient the difference of the others' probabilities."""
    z, v = draw(6, 5), draw(6, 5, seed=1)
    rows = torch.arange(6)
    slope = grad(lambda z: decoupled(z, v, Y, 1.0).target.sum())(z)
    close(slope[rows, Y], (z.softmax(1) - v.softmax(1))[rows, Y])
    slope = grad(lambda z: decoupled(z, v, Y, 1.0).others.sum())(z)
    others = torch.ones(6, 5, dtype=F64).scatter(1, Y.unsqueeze(1), 0.0)
    q, p = others * z.exp(), others * v.exp()
    close(slope, q / q.sum(1, keepdim=True) - p / p.sum(1, keepdim=True))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_finite_at_the_extremes(dtype, temperature):
    """All rows of three logits of 0 and ±500, each against each, for each label."""
    rows = 500 * torch.cartesian_prod(*[torch.tensor([-1, 0, 1], dtype=dtype)] * 3)
    i, j = torch.cartesian_prod(torch.arange(27), torch.arange(27)).T
    for label in range(3):
        y = torch.full((729,), label)
        loss, slope = dkd_loss(rows[i], rows[j], y, 1.0, 8.0, temperature), None
        slope = grad(dkd_loss)(rows[i], rows[j], y, 1.0, 8.0, temperature)
        assert loss.isfinite() and slope.isfinite().all() and slope.abs().max() > 0


def test_the_extremes_by_hand():
    """Both sure of class 0, which is not the label 2; the others 1000 nats apart: 0 and 1000.

    Among classes 0 and 1 given "not 2": p = (1, 0), q = (0, 1).
    """
    v = torch.tensor([[500.0, -500.0, 0.0]])
    part = decoupled(v[:, [1, 0, 2]], v, torch.tensor([2]), 1.0)
    assert part.target.item() == pytest.approx(0, abs=1e-6) and part.others.item() == 1000
    right = decoupled(-v, v, torch.tensor([0]), 1.0)
    assert right.target.item() == 1000 and right.others.item() == 500
    # The label 1000 nats above the others, which are even: an even student differs in TCKD only.
    sure = decoupled(torch.zeros(1, 3), torch.tensor([[500.0, -500, -500]]), torch.tensor([0]), 1.0)
    assert sure.target.item() == pytest.approx(math.log(3))
    assert sure.others.item() == pytest.approx(0, abs=1e-5)


def test_half_precision_computes_in_float32():
    z, v = draw(6, 5).bfloat16(), draw(6, 5, seed=1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = dkd_loss(z, v, Y, 1.0, 8.0, 3.0)
    assert loss.dtype == torch.float32
    close(loss, dkd_loss(z.double(), v.double(), Y, 1.0, 8.0, 3.0).item(), atol=1e-4)


def test_maps_over_seeds_and_settings():
    z, v, y = draw(3, 6, 5), draw(3, 6, 5, seed=1), torch.stack([Y, Y.flip(0), Y])
    settings = torch.tensor([[1.0, 8.0, 4.0], [0.5, 2.0, 1.0], [1.0, 0.0, 2.0]], dtype=F64)

    def both(z: Tensor, v: Tensor, y: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return dkd_loss(z, v, y, *s), grad(dkd_loss)(z, v, y, *s)

    losses, slopes = vmap(both)(z, v, y, settings)
    for i, s in enumerate(settings.tolist()):
        close(losses[i], dkd_loss(z[i], v[i], y[i], *s))
        close(slopes[i], grad(dkd_loss)(z[i], v[i], y[i], *s))
