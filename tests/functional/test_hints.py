"""Hints by hand and against PyTorch; which features a regressor matches."""

import pytest
import torch
import torch.nn.functional as F

from tlresearch.errors import UserError
from tlresearch.functional.hints import hint_loss, regressor

F64 = torch.float64


def test_by_hand():
    """Differences 1, 0, 3 and 1, 1, 0: (10 + 2) / 6, and of the paper ½ (10 + 2) / 2."""
    r = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]], dtype=F64)
    t = torch.tensor([[2.0, 2.0, 0.0], [1.0, -1.0, 5.0]], dtype=F64)
    assert hint_loss(r, t).item() == pytest.approx(2.0, abs=1e-12)
    assert hint_loss(r, t, "paper").item() == pytest.approx(3.0, abs=1e-12)


@pytest.mark.parametrize("shape", [(5, 7), (5, 3, 4, 2)])
def test_is_pytorchs(shape):
    """The mean is `mse_loss`; the paper's form is half the sum of a sample, averaged."""
    r, t = torch.randn(2, *shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hint_loss(r, t), F.mse_loss(r, t), atol=1e-12, rtol=0)
    paper = F.mse_loss(r, t, reduction="sum") / 2 / 5
    torch.testing.assert_close(hint_loss(r, t, "paper"), paper, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((6,), (9,)),
        ((2, 4, 4), (3, 4, 4)),
        ((2, 8, 8), (3, 4, 4)),
        ((2, 4, 4), (3, 8, 8)),
        ((2, 5, 3), (3, 3, 7)),
    ],
)
def test_a_regressor_makes_them_comparable(student, teacher):
    """Of vectors and of maps of any size; and a perfect one exists and has loss 0."""
    rng = torch.Generator().manual_seed(0)
    s, t = torch.randn(4, *student, generator=rng), torch.randn(4, *teacher, generator=rng)
    layer = regressor(student, teacher)
    assert hint_loss(layer(s), t).isfinite()
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    assert hint_loss(layer(s), torch.zeros_like(t)) == 0


def test_it_is_linear_in_each_place():
    """The same as a linear layer on the channels of each place, behind the mean of 2 x 2."""
    layer = regressor((2, 4, 4), (3, 2, 2)).double()
    x = torch.randn(5, 2, 4, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    means = x.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5))
    weight, bias = (p.detach() for p in layer.parameters())
    expected = F.linear(means.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("student", "teacher", "words"),
    [
        ((64,), (16, 8, 8), ["(64,) is a vector", "(16, 8, 8) a map"]),
        ((16, 8, 8), (64,), ["(16, 8, 8) is a map", "(64,) a vector"]),
        ((16, 8), (64,), ["student's feature has shape (16, 8)", "(64,)"]),
        ((64,), (1, 2, 3, 4), ["teacher's feature has shape (1, 2, 3, 4)", "(64,)"]),
    ],
)
def test_what_does_not_fit_is_refused_with_both_shapes(student, teacher, words):
    with pytest.raises(UserError) as refused:
        regressor(student, teacher, "layer2 and conv")
    text = str(refused.value)
    assert text.startswith("layer2 and conv: ") and "\n" not in text
    assert all(word in text for word in words)


def test_nothing_is_broadcast():
    """(4, 3) and (4, 1) would give a number."""
    with pytest.raises(Exception, match=r"do not match|hint_loss"):
        hint_loss(torch.ones(4, 3), torch.ones(4, 1))
    with pytest.raises(ValueError, match="do not match"):
        hint_loss(torch.ones(4, 3), torch.ones(4, 3, 2, 2))
