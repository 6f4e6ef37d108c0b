"""Statistics against hand-worked numbers, scipy and statsmodels."""

import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from tlresearch.results.statistics import holm, paired_tests, student_quantile, summarise


def test_summary_by_hand():
    """1, 2, 3: mean 2, sd 1, sem 1/√3, and t₀.₉₇₅(2) = 4.302653 (any table of Student's t)."""
    summary = summarise([1.0, 2.0, 3.0])
    assert (summary.mean, summary.sd, summary.n) == (2.0, 1.0, 3)
    assert summary.sem == pytest.approx(1 / math.sqrt(3))
    assert summary.ci95 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_interval_is_scipys():
    values = np.random.default_rng(0).normal(0.8, 0.05, 7)
    summary = summarise(values)
    low, high = scipy.stats.t.interval(0.95, 6, values.mean(), scipy.stats.sem(values))
    assert summary.mean - summary.ci95 == pytest.approx(low, rel=1e-12)
    assert summary.mean + summary.ci95 == pytest.approx(high, rel=1e-12)
    assert summary.sd == pytest.approx(values.std(ddof=1), rel=1e-12)


def test_one_value_and_none():
    one, none = summarise([0.3]), summarise([])
    assert (one.mean, one.n, none.n) == (0.3, 1, 0)
    assert all(map(math.isnan, (one.ci95, one.sem, one.sd, none.mean, none.ci95)))


def test_equal_values_have_no_spread_at_all():
    """0.1 + 0.1 + 0.1 is not 0.3 in binary; the spread is 0 all the same."""
    summary = summarise([0.1] * 3)
    assert (summary.mean, summary.sd, summary.sem, summary.ci95) == (0.1, 0.0, 0.0, 0.0)


def test_quantile_of_many_degrees_is_the_normal_one():
    assert student_quantile(math.inf) == pytest.approx(1.959963985, rel=1e-9)


def test_holm_by_hand():
    """0.01·3 = 0.03; 0.03·2 = 0.06; 0.04·1 = 0.04, raised to 0.06 to stay in order."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_holm_is_statsmodels(count):
    """With ties, zeros and ones among them."""
    p_values = np.random.default_rng(count).random(count).round(1) ** 2
    expected = np.asarray(multipletests(p_values, method="holm")[1])
    np.testing.assert_allclose(holm(list(p_values)), expected, rtol=1e-12, atol=0)


def test_holm_does_not_count_what_was_not_tested():
    adjusted = holm([0.01, math.nan, 0.03])
    assert math.isnan(adjusted[1])
    assert [adjusted[0], adjusted[2]] == pytest.approx([0.02, 0.03])


def test_paired_tests_are_scipys_over_the_shared_seeds():
    generator = np.random.default_rng(1)
    values = {m: dict(enumerate(generator.normal(0.5, 0.1, 6))) for m in ("a", "b", "c")}
    values["b"][9] = 100.0  # a seed that the others do not have
    del values["c"][0]
    tests = paired_tests(values)
    assert [(t.first, t.second, t.n) for t in tests] == [
        ("a", "b", 6),
        ("a", "c", 5),
        ("b", "c", 5),
    ]
    for test in tests:
        seeds = sorted(values[test.first].keys() & values[test.second].keys())
        first = [values[test.first][s] for s in seeds]
        second = [values[test.second][s] for s in seeds]
        oracle = scipy.stats.ttest_rel(first, second)
        low, high = oracle.confidence_interval(0.95)
        assert test.p == pytest.approx(oracle.pvalue, rel=1e-10)
        assert test.difference - test.ci95 == pytest.approx(low, rel=1e-10)
        assert test.difference + test.ci95 == pytest.approx(high, rel=1e-10)
    corrected = np.asarray(multipletests([t.p for t in tests], method="holm")[1])
    np.testing.assert_allclose([t.p_holm for t in tests], corrected, rtol=1e-12)


def test_pairs_without_variance():
    """Equal values: p = 1. A constant difference other than 0: p = 0."""
    same = {0: 0.5, 1: 0.25, 2: 0.75}
    shifted = {seed: value + 0.25 for seed, value in same.items()}
    equal, constant, _ = paired_tests({"a": same, "b": dict(same), "c": shifted})
    assert (equal.p, equal.difference, equal.ci95) == (1.0, 0.0, 0.0)
    assert (constant.p, constant.difference, constant.ci95) == (0.0, -0.25, 0.0)


def test_a_pair_with_one_shared_seed_is_listed_untested():
    lonely, tested, _ = paired_tests(
        {"a": {0: 1.0, 1: 2.0, 2: 2.5}, "b": {2: 1.0, 3: 1.0}, "c": {0: 0.0, 1: 0.5, 2: 0.0}}
    )
    assert (lonely.n, lonely.difference) == (1, 1.5)
    assert math.isnan(lonely.p) and math.isnan(lonely.p_holm)
    assert tested.p_holm == tested.p  # the only test made: nothing to correct
