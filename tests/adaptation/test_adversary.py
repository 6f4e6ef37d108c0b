"""What a discriminator minimises, by hand."""

import math

import torch

from tlresearch.adaptation.adversary import domain_accuracy, domain_loss

F64 = torch.float64


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)[:, None]


def test_the_loss_by_hand():
    """σ(log 3) = ¾: ½ (−log ¾ and −log ½ in the mean, −log(1 − ¼) = −log ¾)."""
    loss = domain_loss(column(math.log(3), 0.0), column(-math.log(3)))
    expected = 0.5 * ((-math.log(0.75) - math.log(0.5)) / 2 - math.log(0.75))
    torch.testing.assert_close(loss.item(), expected, atol=1e-14, rtol=0)


def test_both_domains_count_the_same():
    """Each target sample three times over is no other loss."""
    source, target = column(0.3, -1.0), column(0.7, 0.2)
    torch.testing.assert_close(
        domain_loss(source, target.repeat(3, 1)), domain_loss(source, target), atol=1e-14, rtol=0
    )


def test_weighted_means():
    """Weights 3 and 1 are a sample three times; equal weights are none."""
    source, target = column(0.3, -1.0), column(0.7, 0.2)
    three = torch.tensor([3.0, 1.0], dtype=F64)
    equal = torch.full((2,), 1.7, dtype=F64)
    repeated = domain_loss(column(0.3, 0.3, 0.3, -1.0), target)
    torch.testing.assert_close(domain_loss(source, target, (three, equal)), repeated)
    torch.testing.assert_close(
        domain_loss(source, target, (equal, equal)), domain_loss(source, target)
    )


def test_the_sum_of_the_weights_is_a_constant():
    """∂/∂wᵢ = ½ ℓᵢ / Σ w."""
    weights = torch.tensor([1.2, 1.9], dtype=F64, requires_grad=True)
    source, target = column(0.3, -1.0), column(0.7)
    loss = domain_loss(source, target, (weights, torch.ones(1, dtype=F64)))
    (ours,) = torch.autograd.grad(loss, weights)
    each = -source[:, 0].sigmoid().log()
    torch.testing.assert_close(ours, 0.5 * each / weights.detach().sum())


def test_accuracy():
    """¾ of four source samples and half of two target samples: ⅝."""
    right = domain_accuracy(column(1.0, 2.0, 0.1, -1.0), column(-0.5, 0.5))
    assert right.item() == 0.625
