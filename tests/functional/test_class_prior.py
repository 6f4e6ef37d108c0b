"""Shifts of classes' logits: masses that reach a prior, and errors counted at every place."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor
from torch.func import vmap

from tlresearch.functional.class_prior import best_shift_by_labels, label_free_shift, shifted

F64 = torch.float64


def predictions(n: int = 200, classes: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of a network that hardly ever says 1 or 4, in float32, and labels."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=rng)
    z = 2 * torch.randn(n, classes, generator=rng)
    z[torch.arange(n), y] += 4
    z[:, [1, 4]] -= 5
    return z, y


def errors(z: Tensor, y: Tensor, classes: tuple[int, ...], amount: Tensor | float) -> int:
    return int((shifted(z.double(), classes, amount).argmax(1) != y).sum())


def mass(z: Tensor, classes: tuple[int, ...], amount: Tensor | float) -> float:
    probabilities = shifted(z.double(), classes, amount).softmax(1)
    return probabilities[:, list(classes)].sum(1).mean().item()


def test_the_same_amount_goes_to_each_of_the_classes_and_to_no_other():
    z, _ = predictions()
    expected = z + torch.tensor([0, 2.5, 0, 0, 2.5, 0])
    assert shifted(z, (1, 4), 2.5).equal(expected) and shifted(z, [4, 1], 0.0).equal(z)


def test_a_shift_maps_over_seeds():
    z, amounts = torch.stack([predictions(seed=s)[0] for s in range(3)]), torch.arange(3.0)
    found = vmap(lambda z, b: shifted(z, (1,), b))(z, amounts)
    assert found.equal(torch.stack([shifted(z[i], (1,), float(i)) for i in range(3)]))


@pytest.mark.parametrize("classes", [(1,), (1, 4), (0, 2, 3, 5)])
@pytest.mark.parametrize("prior", [0.01, 1 / 6, 0.9])
def test_the_mass_of_the_classes_equals_their_prior(classes, prior):
    z, _ = predictions()
    found = label_free_shift(z, classes, prior)
    assert found.dtype == F64
    assert mass(z, classes, found) == pytest.approx(prior, abs=1e-13)
    root = brentq(lambda b: mass(z, classes, b) - prior, -100, 100, xtol=1e-13)
    assert found.item() == pytest.approx(root, abs=1e-10)


def test_a_shift_by_hand():
    """One sample of two even logits: σ(b) = 3/4 at b = log 3; with two others of it log 6."""
    assert label_free_shift(torch.zeros(1, 2), (0,), 0.75).item() == pytest.approx(math.log(3))
    assert label_free_shift(torch.zeros(1, 3), (0,), 0.75).item() == pytest.approx(math.log(6))
    assert label_free_shift(torch.zeros(5, 4), (0, 1), 0.5).item() == pytest.approx(0, abs=1e-12)


def test_a_shift_undoes_a_shift():
    z, _ = predictions()
    here = mass(z, (1, 4), 0.0)
    found = label_free_shift(shifted(z.double(), (1, 4), -3.5), (1, 4), here)
    assert found.item() == pytest.approx(3.5, abs=1e-10)
    complement = label_free_shift(z, (0, 2, 3, 5), 1 - 0.3)
    assert complement.item() == pytest.approx(-label_free_shift(z, (1, 4), 0.3).item(), abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_extremes(dtype):
    """Sure of both sides: half is a plateau, of which 0 is taken; another prior lies at its end."""
    z = 500 * torch.tensor([[1, -1], [-1, 1]], dtype=dtype)
    assert label_free_shift(z, (0,), 0.5).item() == 0
    lower = label_free_shift(z, (0,), 0.3)
    assert lower.item() == pytest.approx(-1000 + math.log(0.6 / 0.4))
    assert mass(z, (0,), lower) == pytest.approx(0.3)
    # Both are right from θ = −1000 up to 1000, and 0 lies between.
    assert best_shift_by_labels(z, torch.tensor([0, 1]), (0,)).item() == 0
    assert best_shift_by_labels(z, torch.tensor([0, 0]), (0,)).item() == pytest.approx(1000.001)
    assert best_shift_by_labels(z, torch.tensor([1, 1]), (0,)).item() == pytest.approx(-1000.001)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [(1,), (1, 4), (0, 2, 3, 5)])
def test_the_oracle_errs_no_more_than_any_of_all_places(seed, classes):
    """Against the errors between each two thresholds, one at a time, and the nearest such place."""
    z, y = predictions(30, seed=seed)
    inside = z.double()[:, list(classes)].amax(1)
    rest = [k for k in range(6) if k not in classes]
    ends = (z.double()[:, rest].amax(1) - inside).sort().values.tolist()
    places = [
        ends[0] - 1,
        *((a + b) / 2 for a, b in pairwise(ends)),
        ends[-1] + 1,
    ]
    counted = [errors(z, y, classes, b) for b in places]
    found = best_shift_by_labels(z, y, classes)
    assert found.dtype == F64
    assert errors(z, y, classes, found) == min(counted) <= errors(z, y, classes, 0.0)
    # No place nearer to 0, by more than a margin, is as good.
    nearer = places + [end + side for end in ends for side in (-1e-6, 1e-6)]
    nearer = [b for b in nearer if abs(b) < found.abs().item() - 2e-3]
    assert all(errors(z, y, classes, b) > min(counted) for b in nearer)


def test_the_oracle_by_hand():
    """Thresholds 2 (right above) and 5 (right below): best in (2, 5), and nearest to 0 there.

    A third sample, whose prediction is wrong on either side, has no part.
    """
    z = torch.tensor([[0.0, 2.0, -9.0], [0.0, 5.0, -9.0], [0.0, 2.5, -9.0]])
    y = torch.tensor([0, 1, 2])
    assert best_shift_by_labels(z, y, (0,)).item() == pytest.approx(2.001)
    # Within the classes the order stays: the label 1 is never said, whatever the shift.
    z = torch.tensor([[1.0, 0.0, 2.0]])
    assert best_shift_by_labels(z, torch.tensor([1]), (0, 1)).item() == 0
    # Two places, below −3 and above 1, are as good: the nearer one.
    z = torch.tensor([[0.0, -3.0], [0.0, 1.0]])
    assert best_shift_by_labels(z, torch.tensor([1, 0]), (0,)).item() == pytest.approx(1.001)
    assert best_shift_by_labels(-z, torch.tensor([0, 1]), (0,)).item() == pytest.approx(-1.001)


def test_the_oracle_stays_where_nothing_is_better():
    z, y = predictions()
    right = shifted(4 * z, (1, 4), 20.0)
    assert best_shift_by_labels(right, right.argmax(1), (1, 4)).item() == 0
    never = torch.full_like(y, 3)
    assert best_shift_by_labels(z[:, :3], never, (0,)).item() == 0


def test_shifts_help_a_network_that_lacks_classes():
    """Both raise them by about the 5 that was taken away, and a third of the errors is gone."""
    z, y = predictions(2000)
    before = errors(z, y, (1, 4), 0.0)
    oracle, free = best_shift_by_labels(z, y, (1, 4)), label_free_shift(z, (1, 4), 1 / 3)
    assert oracle.item() == pytest.approx(5, abs=0.7) and free.item() == pytest.approx(5, abs=0.7)
    assert errors(z, y, (1, 4), oracle) <= errors(z, y, (1, 4), free) < before * 2 / 3


@pytest.mark.parametrize("classes", [(), (0, 1, 2, 3, 4, 5), (6,), (-1,)])
def test_other_classes_are_refused(classes):
    z, y = predictions()
    for call in (
        lambda: shifted(z, classes, 1.0),
        lambda: label_free_shift(z, classes, 0.1),
        lambda: best_shift_by_labels(z, y, classes),
    ):
        with pytest.raises(ValueError, match="some, but not all, of 0 to 5"):
            call()


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, float("nan")])
def test_other_priors_are_refused(prior):
    with pytest.raises(ValueError, match="within"):
        label_free_shift(predictions()[0], (1,), prior)


@pytest.mark.parametrize("z", [torch.zeros(0, 3), torch.tensor([[0.0, float("nan"), 1.0]])])
def test_shifts_need_finite_samples(z):
    with pytest.raises(ValueError, match="samples with finite logits"):
        label_free_shift(z, (1,), 0.1)
    with pytest.raises(ValueError, match="samples with finite logits"):
        best_shift_by_labels(z, torch.zeros(len(z), dtype=torch.int64), (1,))
