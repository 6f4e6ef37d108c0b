"""Verdicts by equivalence: hand-worked intervals, Welch by scipy, and what must always hold."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from tlresearch.results.statistics import Summary, student_quantile, summarise
from tlresearch.results.verdicts import verdict, welch_freedom

FLIPPED = {"differs +": "differs -", "differs -": "differs +"}


def summary(mean: float, sem: float, n: int) -> Summary:
    ci95 = student_quantile(n - 1) * sem if n > 1 else math.nan
    return Summary(mean, ci95, sem, sem * math.sqrt(n), n)


def test_agrees_by_hand():
    """sem .003 and .004 make .005; ν = (9+16)²/(81/4+256/4) = 7.41; t = 2.338; h = .01169."""
    result = verdict(summary(0.902, 0.003, 5), 0.9, 0.004, 5, tolerance=0.02)
    assert welch_freedom(0.003, 5, 0.004, 5) == pytest.approx(625 / (81 / 4 + 256 / 4))
    assert result.word == "agrees"
    assert result.difference == pytest.approx(0.002)
    assert result.high - result.difference == pytest.approx(0.01169, abs=5e-6)
    assert result.difference - result.low == pytest.approx(0.01169, abs=5e-6)


@pytest.mark.parametrize(
    ("mean", "word"),
    [
        (0.80, "agrees"),
        (0.805, "agrees"),
        (0.808, "inconclusive"),  # [.0038, .0122] sticks out of ±.01
        (0.813, "inconclusive"),  # [.0088, .0172]
        (0.815, "differs +"),  # [.0108, .0192]
        (0.792, "inconclusive"),
        (0.785, "differs -"),
    ],
)
def test_each_word(mean, word):
    """t₀.₉₇₅(4) = 2.776; sem .0015 makes h = .00416, and the published number is exact."""
    assert verdict(summary(mean, 0.0015, 5), 0.8, tolerance=0.01).word == word


def test_a_wide_interval_is_never_agreement():
    """Not significantly different from the paper, and still not the same."""
    assert verdict(summary(0.8, 0.02, 5), 0.8).word == "inconclusive"


def test_the_interval_is_welchs():
    generator = np.random.default_rng(3)
    ours, theirs = generator.normal(0.8, 0.02, 5), generator.normal(0.78, 0.05, 9)
    published = summarise(theirs)
    result = verdict(summarise(ours), published.mean, published.sem, 9)
    oracle = scipy.stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((oracle.low, oracle.high), rel=1e-9)


def test_unknown_published_spread_or_runs_leave_our_degrees_of_freedom():
    ours = summary(0.8, 0.003, 6)
    t = student_quantile(5)
    assert verdict(ours, 0.8).high == pytest.approx(t * 0.003)
    assert verdict(ours, 0.8, 0.004).high == pytest.approx(t * 0.005)
    assert verdict(ours, 0.8, 0.004, 1).high == pytest.approx(t * 0.005)
    assert verdict(ours, 0.8, 0.0, 20).high == pytest.approx(t * 0.003)


def test_no_spread_at_all():
    """0/0 degrees of freedom: the interval is the point itself."""
    exact = summary(0.5, 0.0, 3)
    assert verdict(exact, 0.5, 0.0, 3, tolerance=0.01).word == "agrees"
    assert verdict(exact, 0.25, tolerance=0.01).word == "differs +"
    assert verdict(exact, 0.5, 0.004, 3).high == pytest.approx(student_quantile(2) * 0.004)


def test_recalled_numbers_and_single_seeds_get_no_verdict():
    recalled = verdict(summary(0.8, 0.001, 5), 0.8, status="recalled")
    assert recalled.word == "" and recalled.low < 0 < recalled.high
    single = verdict(summarise([0.8]), 0.7)
    assert single.word == "" and single.difference == pytest.approx(0.1)
    assert math.isnan(single.low) and math.isnan(single.high)
    assert verdict(summarise([]), 0.7).word == ""


@pytest.mark.parametrize(
    ("mean", "published", "chance", "ceiling", "saturated"),
    [
        (0.95, 0.95, None, 0.99, False),
        (0.995, 0.95, None, 0.99, True),
        (0.95, 0.995, None, 0.99, True),
        (0.995, 0.995, None, None, False),
        (0.505, 0.6, 0.5, 0.99, True),
        (0.6, 0.495, 0.5, 0.99, True),
        (0.515, 0.6, 0.5, 0.99, False),
    ],
)
def test_saturation(mean, published, chance, ceiling, saturated):
    result = verdict(summary(mean, 0.001, 5), published, chance=chance, ceiling=ceiling)
    assert result.saturated is saturated


means = st.floats(0, 1)
sems = st.floats(1e-6, 0.1)
sizes = st.integers(2, 30)


@given(means, sems, sizes, means, sems, sizes)
def test_exchanging_ours_and_theirs_turns_the_sign(mean, sem, n, other, other_sem, m):
    there = verdict(summary(mean, sem, n), other, other_sem, m)
    back = verdict(summary(other, other_sem, m), mean, sem, n)
    assert back.word == FLIPPED.get(there.word, there.word)
    assert back.difference == -there.difference
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-12)


@given(means, sems, sizes, means, sems, sizes, st.floats(0, 1))
def test_less_spread_never_takes_a_verdict_back(mean, sem, n, other, other_sem, m, shrink):
    """Both spreads times the same factor: the interval shrinks around the same difference."""
    before = verdict(summary(mean, sem, n), other, other_sem, m)
    after = verdict(summary(mean, shrink * sem, n), other, shrink * other_sem, m)
    assert after.high - after.low <= before.high - before.low + 1e-12
    assume(before.word != "inconclusive")
    assert after.word == before.word


@given(means, sems, sizes, means, st.floats(0.001, 0.2), st.floats(0.001, 0.2))
def test_a_wider_tolerance_never_ends_agreement(mean, sem, n, other, one, another):
    narrow, wide = sorted((one, another))
    if verdict(summary(mean, sem, n), other, tolerance=narrow).word == "agrees":
        assert verdict(summary(mean, sem, n), other, tolerance=wide).word == "agrees"


@given(sems, sizes, sems, sizes)
def test_welchs_degrees_of_freedom_have_their_bounds(sem, n, other, m):
    freedom = welch_freedom(sem, n, other, m)
    assert min(n, m) - 1 - 1e-9 <= freedom <= n + m - 2 + 1e-9
