"""The schedules of domain adaptation as tables of values."""

import math

import pytest
import torch

from tlresearch.functional.schedules import annealed, reversal_strength


@pytest.mark.parametrize(
    ("progress", "value"),
    [
        (0.0, 0.0),
        (math.log(3) / 10, 0.5),
        (math.log(9) / 10, 0.8),
        (0.5, 0.9866142981514303),
        (1.0, 0.9999092042625951),
    ],
)
def test_the_strength_of_the_reversal(progress, value):
    """2 / (1 + e^(−10 p)) − 1: e^(−10 p) = 1/3 gives ½, 1/9 gives 0.8; floats and tensors alike."""
    assert reversal_strength(progress) == pytest.approx(value, abs=1e-14)
    of_tensor = reversal_strength(torch.tensor(progress, dtype=torch.float64))
    assert of_tensor.item() == pytest.approx(value, abs=1e-14)
    assert reversal_strength(10 * progress, steepness=1.0) == pytest.approx(value, abs=1e-14)


@pytest.mark.parametrize(
    ("progress", "value"),
    [(0.0, 1.0), (0.1, 2**-0.75), (0.3, 4**-0.75), (1.5, 0.125), (1.0, 11**-0.75)],
)
def test_the_annealed_rate(progress, value):
    """(1 + 10 p)^(−¾): 16^(−¾) = 1/8."""
    assert annealed(progress) == pytest.approx(value, abs=1e-15)


def test_other_constants_of_the_annealed_rate():
    """(1 + 3 · 1)^(−½) = ½."""
    assert annealed(1.0, alpha=3.0, beta=0.5) == pytest.approx(0.5, abs=1e-15)
