"""Soft targets, z-scores of logits and ensembles against closed forms, loops and PyTorch."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, vmap

from tlresearch.functional.losses import cross_entropy
from tlresearch.functional.precision import at_least_float32
from tlresearch.functional.soft_targets import (
    ensemble_logits,
    geometric_ensemble_logits,
    kl_divergences,
    soft_target_loss,
    standardised,
)

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def close(ours: Tensor, other: Tensor | float | list, atol: float = 1e-10) -> None:
    other = torch.as_tensor(other, dtype=ours.dtype)
    torch.testing.assert_close(ours, other, atol=atol, rtol=0)


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def kl_by_loop(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """(1/N) Σₙ Σₖ p log(p / q), number by number."""
    total = 0.0
    for z, v in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = softmax(v, temperature), softmax(z, temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(student)


def test_worked_by_hand():
    """p = (3/4, 1/4) and q = (1/2, 1/2) at T = 2: 4 (¾ log 3/2 + ¼ log 1/2); and the other way."""
    even, sure = torch.zeros(1, 2, dtype=F64), torch.tensor([[2 * math.log(3), 0]], dtype=F64)
    close(soft_target_loss(even, sure, 2.0), 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)))
    close(soft_target_loss(sure, even, 2.0), 4 * (0.5 * math.log(2 / 3) + 0.5 * math.log(2)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_equals_a_loop(temperature):
    z, v = draw(7, 5), draw(7, 5, seed=1)
    expected = temperature**2 * kl_by_loop(z, v, temperature)
    close(soft_target_loss(z, v, temperature), expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_equals_pytorchs_batchmean(temperature):
    """F.kl_div(log q, p) is KL(p ‖ q); its `batchmean` is the sum over classes, mean over rows."""
    z, v = draw(7, 5), draw(7, 5, seed=1)
    log_q, p = (z / temperature).log_softmax(1), (v / temperature).softmax(1)
    expected = temperature**2 * F.kl_div(log_q, p, reduction="batchmean")
    close(soft_target_loss(z, v, temperature), expected)


def test_gradient_at_high_temperature_matches_logits():
    """Hinton et al., eq. (4): for logits of mean 0, T² ∂/∂z → (z − v) / (N K) as T → ∞."""
    z, v = draw(6, 10), draw(6, 10, seed=1)
    z, v = z - z.mean(1, keepdim=True), v - v.mean(1, keepdim=True)
    found = grad(soft_target_loss)(z, v, 1e5)
    close(found, (z - v) / 60, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_gradient_is_t_times_the_difference_of_probabilities(temperature):
    """∂/∂z = T (q − p) / N: eq. (2) of Hinton et al. with their T²."""
    z, v = draw(7, 5), draw(7, 5, seed=1)
    expected = temperature * ((z / temperature).softmax(1) - (v / temperature).softmax(1)) / 7
    close(grad(soft_target_loss)(z, v, temperature), expected)


def test_gradcheck():
    v = draw(4, 3, seed=1)
    z = draw(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: soft_target_loss(z, v, 3.0), z)
    assert torch.autograd.gradcheck(lambda z: soft_target_loss(standardised(z), v, 2.0), z)


def test_no_gradient_flows_to_the_teacher():
    z, v = draw(4, 3).requires_grad_(), draw(4, 3, seed=1).requires_grad_()
    soft_target_loss(z, v, 2.0).backward()
    assert z.grad is not None and z.grad.abs().max() > 1e-3 and v.grad is None
    for teacher in (ensemble_logits(v[None], 2.0), geometric_ensemble_logits(v[None])):
        assert not teacher.requires_grad
    close(grad(soft_target_loss, argnums=1)(z.detach(), v.detach(), 2.0), torch.zeros_like(v), 0)


def test_equal_networks_and_shifts_of_rows_give_nothing():
    z, v = draw(7, 5), draw(7, 5, seed=1)
    rows = torch.linspace(-9, 9, 7, dtype=F64).unsqueeze(1)
    close(soft_target_loss(z, z + rows, 4.0), 0.0)
    close(soft_target_loss(z + rows, v, 4.0), soft_target_loss(z, v, 4.0))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    close(soft_target_loss(z[order], v[order], 4.0), soft_target_loss(z, v, 4.0))
    close(soft_target_loss(z.repeat(3, 1), v.repeat(3, 1), 4.0), soft_target_loss(z, v, 4.0))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("temperature", [1.0, 20.0])
@pytest.mark.parametrize("scaled", [False, True])
def test_finite_at_the_extremes(dtype, temperature, scaled):
    z = 500 * torch.tensor([[1, -1, 0], [-1, 1, -1], [1, 1, 1], [0, 0, 1]], dtype=dtype)
    z.requires_grad_()
    v = z.detach()[:, [1, 2, 0]]
    loss = soft_target_loss(
        *((standardised(z), standardised(v)) if scaled else (z, v)), temperature
    )
    (slope,) = torch.autograd.grad(loss, z)
    assert loss.dtype == dtype and loss.isfinite() and slope.isfinite().all() and loss > 0.1


def test_sure_and_opposite_by_hand():
    """p = (1, 0), q = (e⁻¹⁰⁰⁰, 1): 1000 nats, T = 1."""
    v = torch.tensor([[500.0, -500.0]])
    assert soft_target_loss(-v, v, 1.0).item() == 1000


def test_half_precision_computes_in_float32():
    z, v = draw(7, 5).bfloat16(), draw(7, 5, seed=1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = soft_target_loss(z, v, 3.0)
    assert loss.dtype == torch.float32
    close(loss, soft_target_loss(z.double(), v.double(), 3.0).item(), atol=1e-5)
    assert at_least_float32(z).dtype == torch.float32 and at_least_float32(draw(1)).dtype == F64


def test_maps_over_seeds_and_temperatures():
    z, v, temperatures = draw(3, 7, 5), draw(7, 5, seed=1), torch.tensor([1.0, 4.0, 9.0])

    def slope(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return soft_target_loss(z, v, t), grad(soft_target_loss)(standardised(z), v, t)

    losses, slopes = vmap(slope)(z, temperatures)
    for i, t in enumerate((1.0, 4.0, 9.0)):
        close(losses[i], soft_target_loss(z[i], v, t))
        close(slopes[i], grad(soft_target_loss)(standardised(z[i]), v, t))


def test_kl_divergences_are_of_rows():
    z, v = draw(2, 7, 5), draw(2, 7, 5, seed=1)
    assert kl_divergences(z, v).shape == (2, 7)
    close(kl_divergences(z[0], v[0]).mean(), kl_by_loop(z[0], v[0], 1.0))


# Z-scores of logits.


def test_scores_by_hand():
    """(0, 3, 2, 1) has the mean 3/2 and the variance 5/4."""
    scores = standardised(torch.tensor([[0.0, 3.0, 2.0, 1.0]], dtype=F64))
    close(scores, torch.tensor([[-1.5, 1.5, 0.5, -0.5]], dtype=F64) / math.sqrt(1.25))


def test_scores_have_the_papers_properties():
    """Mean 0, deviation 1, the order of the logits, within ±√(K − 1), reached by one-hot rows."""
    z = draw(50, 5)
    scores = standardised(z)
    close(scores.mean(1), torch.zeros(50))
    close(scores.square().mean(1), torch.ones(50))
    assert scores.argsort(1).equal(z.argsort(1)) and scores.abs().max() <= 2 + 1e-12
    close(standardised(torch.eye(5, dtype=F64)).amax(), 2.0)


def test_a_student_of_the_teachers_relations_has_nothing_to_learn():
    """Z(a z + b) = Z(z) for a > 0: only plain soft targets ask for the teacher's magnitudes."""
    v = draw(7, 5)
    z = 0.1 * v + 3
    close(soft_target_loss(standardised(z), standardised(v), 2.0), 0.0)
    assert soft_target_loss(z, v, 2.0) > 0.1
    close(standardised(1e-30 * v), standardised(v))


def test_the_toy_case_of_the_paper():
    """Sun et al., fig. 2: .0995 nats between the scores of the teacher and of its student S1.

    The figure's scores, −1.320 … and −1.162 …, have the deviation of their code, with K − 1: T √(K
    / (K − 1)) here.
    """
    teacher = torch.tensor([[-3.0, 3.0, 1.0, -1.0]], dtype=F64)
    student = torch.tensor([[-6.0, 3.0, 4.0, -1.0]], dtype=F64)
    temperature = math.sqrt(4 / 3)
    close(standardised(student) / temperature, [[-1.320, 0.660, 0.880, -0.220]], atol=1e-3)
    loss = soft_target_loss(standardised(student), standardised(teacher), temperature)
    assert loss.item() / temperature**2 == pytest.approx(0.0995, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("value", [0.0, 0.1, 500.0, -123.456])
def test_equal_logits_have_the_score_0_and_a_finite_gradient(dtype, value):
    z = torch.full((2, 7), value, dtype=dtype, requires_grad=True)
    scores = standardised(z)
    assert scores.abs().max() < 1e-4
    (slope,) = torch.autograd.grad(scores[:, 0].sum(), z)
    close(slope[0], torch.eye(7, dtype=dtype)[0] - 1 / 7, atol=1e-6)


def test_scores_gradcheck():
    z = draw(3, 5).requires_grad_()
    assert torch.autograd.gradcheck(standardised, z)
    assert torch.autograd.gradgradcheck(standardised, z)


# Several teachers.


@pytest.mark.parametrize("temperature", [0.5, 1.0, 8.0])
def test_ensembles_are_the_means_of_probabilities(temperature):
    v = draw(3, 7, 5)
    p = (v / temperature).softmax(-1)
    arithmetic = (ensemble_logits(v, temperature) / temperature).softmax(-1)
    close(arithmetic, p.mean(0))
    product = p.prod(0) ** (1 / 3)
    geometric = (geometric_ensemble_logits(v) / temperature).softmax(-1)
    close(geometric, product / product.sum(-1, keepdim=True))
    assert (arithmetic - geometric).abs().max() > 0.01


def test_one_teacher_is_its_own_ensemble():
    z, v = draw(7, 5), draw(7, 5, seed=1)
    for teacher in (ensemble_logits(v[None], 4.0), geometric_ensemble_logits(v[None])):
        close(soft_target_loss(z, teacher, 4.0), soft_target_loss(z, v, 4.0))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_ensembles_are_finite_at_the_extremes(dtype):
    """Two sure teachers of different opinions: half each."""
    v = 500 * torch.tensor([[[1, -1, 0]], [[-1, 1, 0]]], dtype=dtype)
    teacher = ensemble_logits(v)
    assert teacher.isfinite().all()
    close(teacher.softmax(-1), [[0.5, 0.5, 0.0]], atol=1e-6)


def test_ensembles_map_over_seeds():
    v = draw(2, 3, 7, 5)
    found = vmap(lambda v: ensemble_logits(v, torch.tensor(2.0)))(v)
    close(found, torch.stack([ensemble_logits(one, 2.0) for one in v]))


# Mutual learning.


def test_mutual_learning_is_the_soft_target_loss_of_peers():
    """Zhang et al., eqs. (5) to (8): CE + mean over peers of KL(p_peer ‖ p_own), each at T = 1.

    By a loop over networks, samples and classes; and network 1's gradient, the peers' held fixed,
    is that of the sum of all networks' losses.
    """
    networks, y = draw(3, 4, 5), torch.tensor([0, 2, 4, 2])

    def ours(own: Tensor, peers: Tensor) -> Tensor:
        kl = torch.stack([soft_target_loss(own, peer, 1.0) for peer in peers]).mean()
        return cross_entropy(own, y) + kl

    def total(networks: Tensor) -> Tensor:
        rest = [torch.cat([networks[:i], networks[i + 1 :]]) for i in range(3)]
        return torch.stack([ours(networks[i], rest[i]) for i in range(3)]).sum()

    for i in range(3):
        others = [j for j in range(3) if j != i]
        hard = -sum(
            math.log(softmax(networks[i, n].tolist(), 1)[k]) for n, k in enumerate(y.tolist())
        )
        soft = sum(kl_by_loop(networks[i], networks[j], 1.0) for j in others) / 2
        peers = networks[others]
        close(ours(networks[i], peers), hard / 4 + soft)
        close(grad(total)(networks)[i], grad(ours)(networks[i], peers))
