"""MMD and CORAL against hand values and plain loops, in float64."""

import math
import statistics

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from tlresearch.functional.kernels import (
    biased_mmd,
    coral_loss,
    covariance,
    gaussian_kernel,
    mean_bandwidth,
    median_bandwidth,
    unbiased_mmd,
)

FACTORS = (0.25, 1.0, 3.0)
ESTIMATORS = {"biased": biased_mmd, "unbiased": unbiased_mmd}


def samples(count: int, dim: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, dtype=torch.float64, generator=generator)


def close(ours: Tensor, other: Tensor | float) -> None:
    other = torch.as_tensor(other, dtype=torch.float64)
    torch.testing.assert_close(ours, other, atol=1e-12, rtol=0)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_mmd_by_hand():
    """x = 0, 1 and y = 2, 4 with γ = 1: within e⁻¹ and e⁻⁴, across e⁻⁴, e⁻¹⁶, e⁻¹, e⁻⁹."""
    x, y = column(0.0, 1.0), column(2.0, 4.0)
    e = math.exp
    across = (e(-4) + e(-16) + e(-1) + e(-9)) / 4
    close(unbiased_mmd(x, y, 1.0), e(-1) + e(-4) - 2 * across)
    close(biased_mmd(x, y, 1.0), (2 + 2 * e(-1)) / 4 + (2 + 2 * e(-4)) / 4 - 2 * across)


def test_the_kernel_by_hand():
    """d² = 4, γ = 2: the mean of exp(−4/1), exp(−4/2) and exp(−4/8) for factors ½, 1, 4."""
    value = gaussian_kernel(torch.full((1, 1), 4.0, dtype=torch.float64), 2.0, (0.5, 1.0, 4.0))
    close(value[0, 0], (math.exp(-4) + math.exp(-2) + math.exp(-0.5)) / 3)


def by_loop(x: Tensor, y: Tensor, bandwidth: float, unbiased: bool) -> float:
    """Three double sums, one number at a time."""

    def kernel(a: Tensor, b: Tensor) -> float:
        square = sum((p - q) ** 2 for p, q in zip(a.tolist(), b.tolist(), strict=True))
        return sum(math.exp(-square / (f * bandwidth)) for f in FACTORS) / len(FACTORS)

    def within(rows: Tensor) -> float:
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows))]
        pairs = [(i, j) for i, j in pairs if i != j or not unbiased]
        return sum(kernel(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    across = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * across


@pytest.mark.parametrize("sizes", [(6, 6), (3, 7), (5, 2)])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_mmd_is_the_plain_loop(name, sizes):
    """Unequal numbers of samples too, and several kernels."""
    x, y = samples(sizes[0]), samples(sizes[1], seed=1) + 0.5
    ours = ESTIMATORS[name](x, y, 1.7, FACTORS)
    close(ours, by_loop(x, y, 1.7, name == "unbiased"))
    close(ESTIMATORS[name](y, x, 1.7, FACTORS), ours)


@pytest.mark.parametrize(("first", "second"), [(3, 2), (3, 4), (2, 2)])
def test_bandwidths_are_of_all_pairs_of_different_samples(first, second):
    """The standard library's median and mean, of an even and an odd number of pairs."""
    x, y = samples(first), samples(second, seed=1)
    rows = torch.cat([x, y]).tolist()
    squares = [math.dist(rows[i], rows[j]) ** 2 for i in range(len(rows)) for j in range(i)]
    close(median_bandwidth(x, y), statistics.median(squares))
    close(mean_bandwidth(x, y), statistics.fmean(squares))


@pytest.mark.parametrize("bandwidth", [median_bandwidth, mean_bandwidth])
def test_no_gradient_flows_through_the_bandwidth(bandwidth):
    """The gradient is that with the bandwidth as a number."""
    x, y = samples(5).requires_grad_(), samples(4, seed=1)
    gamma = bandwidth(x, y)
    assert not gamma.requires_grad
    (ours,) = torch.autograd.grad(unbiased_mmd(x, y, bandwidth(x, y)), x)
    (other,) = torch.autograd.grad(unbiased_mmd(x, y, gamma.item()), x)
    close(ours, other)


def test_the_unbiased_one_is_0_on_average_where_there_is_no_difference():
    """Over all splits of six samples into halves exactly, for a fixed bandwidth; the other not."""
    pool = samples(6)
    means = []
    for estimator in (unbiased_mmd, biased_mmd):
        values = []
        for chosen in torch.combinations(torch.arange(6), 3):
            rest = [i for i in range(6) if i not in chosen.tolist()]
            values.append(estimator(pool[chosen], pool[rest], 2.0, FACTORS))
        means.append(torch.stack(values).mean())
    close(means[0], 0.0)
    assert means[1] > 0.1


def test_mmd_of_equal_samples():
    """0 with the diagonal, below 0 without it; and more the farther apart the samples are."""
    x = samples(5)
    close(biased_mmd(x, x, 1.0), 0.0)
    assert unbiased_mmd(x, x, 1.0) < 0
    near, far = (biased_mmd(x, samples(5, seed=1) + gap, 4.0) for gap in (0.5, 2.0))
    assert 0 < near < far


@pytest.mark.parametrize("name", ESTIMATORS)
def test_gradients_are_finite_where_all_points_are_equal(name):
    """Squared distances have a gradient there, and the bandwidth is not 0."""
    x, y = (torch.ones(3, 2, dtype=torch.float64).requires_grad_() for _ in range(2))
    for bandwidth in (median_bandwidth, mean_bandwidth):
        value = ESTIMATORS[name](x, y, bandwidth(x, y), FACTORS)
        close(value, 0.0)
        for gradient in torch.autograd.grad(value, (x, y)):
            close(gradient, torch.zeros(3, 2, dtype=torch.float64))


def test_the_gradient_is_the_finite_difference():
    """Of both estimators and of CORAL."""
    x, y = samples(4).requires_grad_(), samples(3, seed=1).requires_grad_()
    for of in (lambda a, b: unbiased_mmd(a, b, 2.0), lambda a, b: biased_mmd(a, b, 2.0)):
        assert torch.autograd.gradcheck(of, (x, y))
    assert torch.autograd.gradcheck(coral_loss, (x, y))


LOSSES = {
    "mmd": lambda x, y: unbiased_mmd(x, y, median_bandwidth(x, y), FACTORS),
    "coral": coral_loss,
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_map_over_seeds(name):
    """As one after the other."""
    xs = torch.stack([samples(4, seed=s) for s in range(3)])
    ys = torch.stack([samples(6, seed=9 + s) for s in range(3)])
    for function in (LOSSES[name], grad(LOSSES[name])):
        alone = torch.stack([function(x, y) for x, y in zip(xs, ys, strict=True)])
        close(vmap(function)(xs, ys), alone)


def test_coral_by_hand():
    """Covariances diag(2, 0) and diag(0, 2): ‖diag(2, −2)‖² / (4 · 2²) = ½, wherever they lie."""
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[0.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    close(coral_loss(x, y), 0.5)
    close(coral_loss(x + 7, y - 3), 0.5)


def test_the_covariance_is_torchs_and_the_papers():
    """`torch.cov`; and (XᵀX − (1ᵀX)ᵀ(1ᵀX)/n) / (n − 1) as in eqs. (2) and (3)."""
    x = samples(7) + 4
    close(covariance(x), torch.cov(x.T))
    ones = torch.ones(1, 7, dtype=torch.float64)
    close(covariance(x), (x.T @ x - (ones @ x).T @ (ones @ x) / 7) / 6)


@pytest.mark.parametrize("sizes", [(4, 4), (3, 6)])
def test_coral_is_the_plain_loop(sizes):
    """One entry of the covariances at a time."""
    x, y = samples(sizes[0]), samples(sizes[1], seed=1)
    total = 0.0
    for i in range(3):
        for j in range(3):
            entries = []
            for rows in (x.tolist(), y.tolist()):
                a, b = [r[i] for r in rows], [r[j] for r in rows]
                products = [
                    (p - statistics.fmean(a)) * (q - statistics.fmean(b))
                    for p, q in zip(a, b, strict=True)
                ]
                entries.append(sum(products) / (len(rows) - 1))
            total += (entries[0] - entries[1]) ** 2
    close(coral_loss(x, y), total / (4 * 3**2))
    close(coral_loss(x, x), 0.0)
