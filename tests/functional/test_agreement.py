"""Fidelity measures against counts and loops."""

import math

import pytest
import torch
from scipy.stats import entropy

from tlresearch.functional.agreement import (
    kl_to_teacher,
    negative_log_likelihood,
    top1_agreement,
)

F64 = torch.float64
G = torch.Generator().manual_seed(0)
Z, V = (3 * torch.randn(40, 5, dtype=F64, generator=G) for _ in range(2))
Y = torch.randint(5, (40,), generator=G)


def test_agreement_counts_equal_classes():
    same = sum(
        max(range(5), key=a.__getitem__) == max(range(5), key=b.__getitem__)
        for a, b in zip(Z.tolist(), V.tolist(), strict=True)
    )
    assert 0 < same < 40 and top1_agreement(Z, V).item() == same / 40
    assert top1_agreement(Z, 2 * Z + 1) == 1 and top1_agreement(Z, -Z) == 0


def test_kl_is_scipys_from_teacher_to_student():
    p, q = V.softmax(1).numpy(), Z.softmax(1).numpy()
    assert kl_to_teacher(Z, V).item() == pytest.approx(entropy(p, q, axis=1).mean(), abs=1e-12)
    assert kl_to_teacher(Z, V).item() != pytest.approx(entropy(q, p, axis=1).mean(), rel=0.01)
    assert kl_to_teacher(Z, Z + 3).item() == pytest.approx(0, abs=1e-12)


def test_negative_log_likelihood_is_a_loop():
    total = -sum(math.log(row.softmax(0)[label]) for row, label in zip(Z, Y, strict=True))
    assert negative_log_likelihood(Z, Y).item() == pytest.approx(total / 40, abs=1e-12)
    assert negative_log_likelihood(torch.zeros(3, 8), Y[:3]).item() == pytest.approx(math.log(8))


def test_measures_are_in_float64_and_finite():
    z, y = 500 * torch.tensor([[1.0, -1, 0], [-1, 1, 0]]), torch.tensor([1, 1])
    found = top1_agreement(z, -z), kl_to_teacher(-z, z), negative_log_likelihood(z, y)
    assert [value.dtype for value in found] == [F64] * 3
    assert [value.item() for value in found] == [0, 1000, 500]


@pytest.mark.parametrize("measure", [top1_agreement, kl_to_teacher, negative_log_likelihood])
def test_nothing_has_no_measure(measure):
    other = Y[:0] if measure is negative_log_likelihood else V[:0]
    with pytest.raises(ValueError, match="needs samples"):
        measure(Z[:0], other)
