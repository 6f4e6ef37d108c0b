"""Metrics of the accuracy matrix on matrices worked by hand."""

import math

import pytest
import torch

from tlresearch.functional import metrics
from tlresearch.functional.metrics import METRICS

# Task 1's best accuracy is not on the diagonal: 0.95 after task 2, and after all, 0.6.
#              task 1  task 2  task 3
R = torch.tensor(
    [
        [0.10, 0.20, 0.30],  # at initialisation
        [0.90, 0.25, 0.15],  # after task 1
        [0.95, 0.80, 0.50],  # after task 2
        [0.60, 0.70, 0.85],  # after task 3
    ],
    dtype=torch.float64,
)
BY_HAND = {
    # (.60 + .70 + .85) / 3
    "acc": 2.15 / 3,
    # ((.60 − .90) + (.70 − .80)) / 2
    "bwt": -0.20,
    # ((.25 − .20) + (.50 − .30)) / 2: after task j − 1, less at initialisation
    "fwt": 0.125,
    # ((max(.90, .95) − .60) + (max(.25, .80) − .70)) / 2 = (.35 + .10) / 2
    "forgetting": 0.225,
    # ((.90 − .60) + (.80 − .70)) / 2
    "forgetting_first_minus_last": 0.20,
    # (.90 + .80 + .85) / 3
    "learning_accuracy": 0.85,
    # (.90 + (.95 + .80) / 2 + (.60 + .70 + .85) / 3) / 3
    "average_incremental_accuracy": (0.90 + 0.875 + 2.15 / 3) / 3,
    # .85 / 3 + (2 / 3) · (min(.90, .95, .60) + min(.80, .70)) / 2 = (.85 + .60 + .70) / 3
    "worst_case_accuracy": 2.15 / 3,
}

# Task 1 dips after task 2 and comes back; task 2 is at its best at the end (backward transfer).
DIP = torch.tensor(
    [
        [0.5, 0.4, 0.3],
        [0.8, 0.6, 0.2],
        [0.3, 0.7, 0.5],
        [0.7, 0.9, 0.6],
    ],
    dtype=torch.float64,
)
DIP_BY_HAND = {
    "acc": 2.2 / 3,  # (.7 + .9 + .6) / 3
    "bwt": 0.05,  # ((.7 − .8) + (.9 − .7)) / 2
    "fwt": 0.20,  # ((.6 − .4) + (.5 − .3)) / 2
    "forgetting": -0.05,  # ((max(.8, .3) − .7) + (max(.6, .7) − .9)) / 2, not the last row
    "forgetting_first_minus_last": -0.05,  # ((.8 − .7) + (.7 − .9)) / 2
    "learning_accuracy": 0.7,  # (.8 + .7 + .6) / 3
    "average_incremental_accuracy": (0.8 + 0.5 + 2.2 / 3) / 3,  # (.3 + .7) / 2 after task 2
    "worst_case_accuracy": 1.6 / 3,  # (.6 + min(.8, .3, .7) + min(.7, .9)) / 3
}


@pytest.mark.parametrize("name", METRICS)
def test_worked_by_hand(name):
    """Three tasks, in two matrices that wrong rows or columns do not both satisfy."""
    assert METRICS[name](R).item() == pytest.approx(BY_HAND[name], abs=1e-15)
    assert METRICS[name](DIP).item() == pytest.approx(DIP_BY_HAND[name], abs=1e-15)


def test_every_metric_of_the_table_is_worked_by_hand():
    """A metric without a worked example is not to be trusted."""
    assert set(METRICS) == set(BY_HAND) == set(DIP_BY_HAND)


@pytest.mark.parametrize("name", METRICS)
def test_seeds_are_kept(name):
    """Leading dimensions give one score each."""
    both = torch.stack([R, DIP])
    expected = torch.tensor([BY_HAND[name], DIP_BY_HAND[name]], dtype=torch.float64)
    torch.testing.assert_close(METRICS[name](both), expected, atol=1e-15, rtol=0)
    grid = both.expand(5, 2, 4, 3)
    torch.testing.assert_close(METRICS[name](grid), expected.expand(5, 2), atol=1e-15, rtol=0)


@pytest.mark.parametrize("name", METRICS)
def test_one_task(name):
    """Means over earlier (or later) tasks are NaN; the others are the one accuracy."""
    one = torch.tensor([[[0.1], [0.7]], [[0.2], [0.9]]], dtype=torch.float64)
    scores = METRICS[name](one)
    assert scores.shape == (2,)
    if name in ("bwt", "fwt", "forgetting", "forgetting_first_minus_last"):
        assert scores.isnan().all()
    else:
        assert scores.tolist() == [0.7, 0.9]


def test_two_definitions_of_forgetting_differ():
    """Maximum over the earlier rows against the diagonal: they part where the best came later."""
    assert metrics.forgetting(R).item() == pytest.approx(0.225)
    assert metrics.forgetting_first_minus_last(R).item() == pytest.approx(0.200)
    diagonal_best = R.clone()
    diagonal_best[2, 0] = 0.85
    same = metrics.forgetting_first_minus_last(diagonal_best)
    assert metrics.forgetting(diagonal_best).item() == pytest.approx(same.item())


def test_forgetting_excludes_the_last_row_and_the_initialisation():
    """A gain in the last task is negative forgetting; row 0 is not counted."""
    gain = R.clone()
    gain[3, :2] = 1.0
    # ((.95 − 1) + (.80 − 1)) / 2
    assert metrics.forgetting(gain).item() == pytest.approx(-0.125)
    gifted = R.clone()
    gifted[0] = 1.0
    assert metrics.forgetting(gifted).item() == pytest.approx(0.225)


@pytest.mark.parametrize("name", [n for n in METRICS if n != "fwt"])
def test_initialisation_matters_to_forward_transfer_only(name):
    """Row 0 enters no other metric."""
    changed = R.clone()
    changed[0] = torch.tensor([0.9, 0.1, 0.7])
    assert METRICS[name](changed).item() == METRICS[name](R).item()
    assert metrics.forward_transfer(changed).item() != metrics.forward_transfer(R).item()


def test_backward_transfer_is_minus_first_minus_last():
    """The identity that their names state."""
    torch.manual_seed(0)
    many = torch.rand(7, 6, 5, dtype=torch.float64)
    assert torch.equal(metrics.backward_transfer(many), -metrics.forgetting_first_minus_last(many))


def test_intransigence_worked_by_hand():
    """((.92 − .90) + (.90 − .80) + (.85 − .85)) / 3, kept by seed."""
    reference = torch.tensor([0.92, 0.90, 0.85], dtype=torch.float64)
    assert metrics.intransigence(R, reference).item() == pytest.approx(0.12 / 3)
    both = metrics.intransigence(torch.stack([R, DIP]), torch.stack([reference, reference]))
    # For the second: ((.92 − .8) + (.90 − .7) + (.85 − .6)) / 3
    assert both.tolist() == pytest.approx([0.04, 0.57 / 3])


def test_perfect_memory():
    """A matrix of ones after learning: nothing forgotten, everything accurate."""
    ones = torch.ones(5, 4)
    zero = {"bwt", "fwt", "forgetting", "forgetting_first_minus_last"}
    for name, metric in METRICS.items():
        assert metric(ones).item() == (0.0 if name in zero else 1.0)


def test_a_stopped_seed_is_not_a_number():
    """NaN rows of a seed that failed do not turn into accuracies, nor touch its neighbour."""
    failed = R.clone()
    failed[2:] = math.nan
    for name, metric in METRICS.items():
        scores = metric(torch.stack([failed, R]))
        assert scores[0].isnan() and scores[1].item() == pytest.approx(BY_HAND[name])
