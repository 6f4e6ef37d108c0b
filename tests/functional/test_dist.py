"""DIST against numpy's correlations, a loop, and its limits."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from tlresearch.functional.dist import (
    correlations,
    dist_loss,
    inter_class_loss,
    intra_class_loss,
)

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def close(ours: Tensor, other: Tensor | float | list, atol: float = 1e-10) -> None:
    other = torch.as_tensor(other, dtype=ours.dtype)
    torch.testing.assert_close(ours, other, atol=atol, rtol=0)


def probabilities(logits: Tensor, temperature: float) -> np.ndarray:
    powers = np.exp(logits.numpy() / temperature)
    return powers / powers.sum(1, keepdims=True)


def mean_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Row by row, numpy's."""
    return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (2.0, 0.5)])
def test_equals_numpys_correlations_in_a_loop(temperature: float, weights: tuple[float, float]):
    z, v = draw(6, 5), draw(6, 5, seed=1)
    q, p = probabilities(z, temperature), probabilities(v, temperature)
    inter, intra = 1 - mean_correlation(q, p), 1 - mean_correlation(q.T, p.T)
    close(inter_class_loss(z, v, temperature), inter)
    close(intra_class_loss(z, v, temperature), intra)
    expected = temperature**2 * (weights[0] * inter + weights[1] * intra)
    close(dist_loss(z, v, *weights, temperature), expected)


def test_correlations_by_hand():
    """(1, 2, 3) with (1, 3, 2): Σ of products of deviations 1, of squares 2 and 2: 1/2."""
    a, b = torch.tensor([[1.0, 2, 3]], dtype=F64), torch.tensor([[1.0, 3, 2]], dtype=F64)
    close(correlations(a, b), [0.5])
    close(correlations(a, 7 * a - 3), [1.0])
    close(correlations(a, -a), [-1.0])


def test_equal_networks_give_nothing_and_so_do_linear_relations_of_probabilities():
    """The invariance of the paper: ρ(a q + b, p) = ρ(q, p), a > 0; KL is not 0 there."""
    v = draw(6, 5)
    close(dist_loss(v, v, 1.0, 1.0, 4.0), 0.0)
    mixed = (0.6 * v.softmax(1) + 0.4 / 5).log()
    close(dist_loss(mixed, v, 1.0, 1.0, 1.0), 0.0)
    assert dist_loss(-v, v, 1.0, 1.0, 1.0) > 1


def test_at_high_temperature_it_is_the_correlation_of_logits():
    """For T → ∞, with no factor 1/T²."""
    z, v = draw(6, 5), draw(6, 5, seed=1)
    expected = 1 - mean_correlation(z.numpy(), v.numpy())
    close(inter_class_loss(z, v, 1e6), expected, atol=1e-5)


def test_a_transposed_batch_exchanges_the_parts():
    """Of probabilities whose columns sum to 1 too (a doubly stochastic matrix), at T = 1."""
    p = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.2, 0.3], [0.3, 0.5, 0.2]], dtype=F64)
    q = torch.tensor([[0.6, 0.3, 0.1], [0.3, 0.4, 0.3], [0.1, 0.3, 0.6]], dtype=F64)
    z, v = q.log(), p.log()
    close(intra_class_loss(z, v, 1.0), inter_class_loss(z.T.contiguous(), v.T.contiguous(), 1.0))


def test_gradcheck_and_a_teacher_that_is_constant():
    z, v = draw(6, 5).requires_grad_(), draw(6, 5, seed=1)
    assert torch.autograd.gradcheck(lambda z: dist_loss(z, v, 2.0, 0.5, 4.0), z)
    v.requires_grad_()
    dist_loss(z, v, 1.0, 1.0, 4.0).backward()
    assert z.grad is not None and v.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_what_is_constant_has_correlation_0_and_no_nan(dtype):
    """An undecided student or teacher; a class that nobody predicts; a batch of one sample."""
    z, v = draw(6, 5).to(dtype), draw(6, 5, seed=1).to(dtype)
    even = torch.full_like(z, 0.3)
    for student, teacher in ((even, v), (z, even), (even, even)):
        close(inter_class_loss(student, teacher, 1.0), 1.0, atol=1e-5)
        close(intra_class_loss(student, teacher, 1.0), 1.0, atol=1e-5)
        assert grad(dist_loss)(student, teacher, 1.0, 1.0, 1.0).isfinite().all()
    close(intra_class_loss(z[:1], v[:1], 1.0), 1.0, atol=1e-6)
    absent = z.clone()
    absent[:, 3] = -5000
    expected = inter_class_loss(absent, v, 1.0)
    assert expected.isfinite() and grad(dist_loss)(absent, v, 1.0, 1.0, 1.0).isfinite().all()
    q, p = (x.double().softmax(1)[:, [0, 1, 2, 4]].T for x in (absent, v))
    four = 4 / 5 * mean_correlation(q.numpy(), p.numpy())
    close(intra_class_loss(absent, v, 1.0), 1 - four, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 20.0, 80.0, 500.0])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_finite_at_all_sizes(scale, dtype, temperature):
    """Also where squares of probabilities are below the smallest number of the type."""
    z, v = draw(6, 5).sign().to(dtype) * scale, draw(6, 5, seed=1).to(dtype).clamp(-1, 1) * scale
    for student, teacher in ((z, v), (v, z), (z, z), (v, v)):
        loss = dist_loss(student, teacher, 1.0, 1.0, temperature)
        slope = grad(dist_loss)(student, teacher, 1.0, 1.0, temperature)
        assert loss.isfinite() and slope.isfinite().all()


def test_small_probabilities_correlate_as_large_ones_do():
    """A class of probabilities near 1e-26: their code's 1e-8 in the denominator would hide it."""
    z = draw(6, 5)
    z[:, 3] = torch.tensor([-60.0, -61, -62, -63, -64, -65])
    close(intra_class_loss(z, z, 1.0), 0.0)
    close(intra_class_loss(z.float(), z.float(), 1.0), 0.0, atol=1e-5)
    assert grad(intra_class_loss)(z.float(), -z.float(), 1.0).isfinite().all()


def test_half_precision_computes_in_float32():
    z, v = draw(6, 5).bfloat16(), draw(6, 5, seed=1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = dist_loss(z, v, 1.0, 2.0, 3.0)
    assert loss.dtype == torch.float32
    close(loss, dist_loss(z.double(), v.double(), 1.0, 2.0, 3.0).item(), atol=1e-4)


def test_maps_over_seeds_and_settings():
    z, v = draw(3, 6, 5), draw(6, 5, seed=1)
    settings = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 4.0], [1.0, 0.0, 2.0]], dtype=F64)

    def both(z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return dist_loss(z, v, *s), grad(dist_loss)(z, v, *s)

    losses, slopes = vmap(both)(z, settings)
    for i, s in enumerate(settings.tolist()):
        close(losses[i], dist_loss(z[i], v, *s))
        close(slopes[i], grad(dist_loss)(z[i], v, *s))
