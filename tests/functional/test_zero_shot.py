"""Zero-shot scores against hand-worked numbers and plain loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlresearch.functional import random
from tlresearch.functional.zero_shot import (
    accuracy_by_class,
    area_under_curve,
    calibrated,
    distinguishable,
    harmonic_mean,
    per_class_accuracy,
    seen_unseen_curve,
)

INF = float("inf")


def test_a_mean_over_classes_is_not_one_over_samples():
    """Nine of ten right in class 0, none of two in class 1: (.9 + 0) / 2, not 9 / 12."""
    labels = torch.tensor([0] * 10 + [1] * 2)
    predicted = torch.tensor([0] * 9 + [1] + [0] * 2)
    assert per_class_accuracy(predicted, labels).item() == pytest.approx(0.45)


def test_classes_without_samples_do_not_count():
    labels, predicted = torch.tensor([0, 0, 3]), torch.tensor([0, 1, 3])
    by_class = accuracy_by_class(predicted, labels, 5)
    assert by_class[[0, 3]].tolist() == [0.5, 1.0] and by_class[[1, 2, 4]].isnan().all()
    assert per_class_accuracy(predicted, labels).item() == 0.75
    assert per_class_accuracy(labels[:0], labels[:0]).isnan()


@pytest.mark.parametrize(
    ("seen", "unseen", "mean"), [(0.8, 0.2, 0.32), (1, 0, 0), (0, 0, 0), (0.5, 0.5, 0.5)]
)
def test_harmonic_mean_worked_by_hand(seen, unseen, mean):
    """2 · .8 · .2 / 1 = .32, which is no arithmetic (.5) and no geometric (.4) mean."""
    found = harmonic_mean(*torch.tensor([seen, unseen], dtype=torch.float64))
    assert found.item() == pytest.approx(mean)


@given(st.floats(0, 1), st.floats(0, 1))
def test_harmonic_mean_lies_between_the_smaller_and_the_arithmetic_mean(s, u):
    h = harmonic_mean(*torch.tensor([s, u], dtype=torch.float64)).item()
    assert min(s, u) - 1e-12 <= h <= (s + u) / 2 + 1e-12


def test_calibration_takes_from_seen_classes_only():
    scores = torch.tensor([[1.0, 0.25, 0.75]])
    seen = torch.tensor([True, False, True])
    assert calibrated(scores, seen, 0.5).tolist() == [[0.5, 0.25, 0.25]]
    assert calibrated(scores, seen, 0.0).tolist() == scores.tolist()
    assert calibrated(scores, seen, INF).argmax().item() == 1


def problem(seed: int, decimals: int):
    """Scores of 30 samples in 6 classes, 4 of them seen; rounded, so that margins tie."""
    key = random.make_key(seed, "test")
    labels = random.integers(random.fold(key, 0), 6, (30,))
    scores = random.normal(random.fold(key, 1), (30, 6), torch.float64)
    scores[torch.arange(30), labels] += 1
    seen = torch.tensor([True, False, True, True, False, True])
    return scores.round(decimals=decimals), labels, seen


@pytest.mark.parametrize("decimals", [6, 0])
@pytest.mark.parametrize("seed", range(3))
def test_curve_equals_a_loop_over_constants(seed, decimals):
    """Each γ between two margins, by calibrated stacking itself and a loop over classes."""
    scores, labels, seen = problem(seed, decimals)
    margins = (
        scores.masked_fill(~seen, -INF).amax(1) - scores.masked_fill(seen, -INF).amax(1)
    ).unique()
    between = (margins[1:] + margins[:-1]) / 2
    constants = [margins[0].item() - 1, *between.tolist(), margins[-1].item() + 1]
    expected = []
    for constant in constants:
        predicted = calibrated(scores, seen, constant).argmax(1)
        by_class = [
            (predicted[labels == c] == c).double().mean() for c in range(6) if (labels == c).any()
        ]
        present = [c for c in range(6) if (labels == c).any()]
        sides = [
            [a for a, c in zip(by_class, present, strict=True) if bool(seen[c]) == side]
            for side in (True, False)
        ]
        expected.append([torch.stack(side).mean() for side in sides])
    found = torch.stack(seen_unseen_curve(scores, labels, seen), 1)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_area_of_perfect_and_of_blind_scores():
    """Both kinds always right: 1. A seen image always takes an unseen class's place: 0."""
    labels = torch.tensor([0, 1])
    seen = torch.tensor([True, False])
    perfect = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert area_under_curve(*seen_unseen_curve(perfect, labels, seen)).item() == 1
    turned = 1 - perfect
    assert area_under_curve(*seen_unseen_curve(turned, labels, seen)).item() == 0


def test_classes_of_equal_attributes_cannot_be_told_apart():
    assert distinguishable(torch.tensor([[1.0, 0], [1, 0], [0, 1], [1, 1]])).item() == 0.75
