"""Honest small-sample statistics: intervals by Student's t, paired tests, Holm's correction.

Student, "The probable error of a mean", Biometrika 1908. Holm, "A simple sequentially
rejective multiple test procedure", Scandinavian Journal of Statistics 1979.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """What a sample of one number per seed says about its mean, in the unit of the sample."""

    mean: float
    """x̄; NaN for an empty sample."""
    ci95: float
    """Half-width of the 95 % interval of the mean, t₀.₉₇₅(n − 1) · sem; NaN for n < 2."""
    sem: float
    """Standard error of the mean, sd / √n; NaN for n < 2."""
    sd: float
    """Standard deviation with the divisor n − 1; NaN for n < 2."""
    n: int
    """Number of values."""


@dataclass(frozen=True)
class PairedTest:
    """Two methods compared over the seeds that both have."""

    first: str
    second: str
    difference: float
    """Mean of first − second over the shared seeds."""
    ci95: float
    """Half-width of the 95 % interval of the difference; NaN for n < 2."""
    p: float
    """Two-sided p of the paired t test; NaN for n < 2."""
    p_holm: float
    """`p` after Holm's correction over all the pairs tested together."""
    n: int
    """Number of shared seeds."""


def student_quantile(freedom: float, coverage: float = 0.95) -> float:
    """The t with P(|T| ≤ t) = `coverage`, for `freedom` > 0 degrees of freedom (any real)."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + coverage / 2))


def summarise(values: Iterable[float]) -> Summary:
    """x̄ and t₀.₉₇₅(n − 1) · s / √n, with s² = Σ (xᵢ − x̄)² / (n − 1).

    Deviations are taken from the first value, so equal values have a spread of exactly 0.
    A NaN among the values makes every result NaN.
    """
    sample = np.asarray(list(values), dtype=np.float64)
    n = sample.size
    if n == 0:
        return Summary(math.nan, math.nan, math.nan, math.nan, 0)
    deviation = sample - sample[0]
    mean = float(sample[0] + deviation.mean())
    if n == 1:
        return Summary(mean, math.nan, math.nan, math.nan, 1)
    sd = float(deviation.std(ddof=1))
    sem = sd / math.sqrt(n)
    return Summary(mean, student_quantile(n - 1) * sem, sem, sd, n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p: the k-th smallest of m becomes max over i ≤ k of (m − i + 1) p₍ᵢ₎.

    Args:
        p_values: in [0, 1], in any order; NaN marks a test that could not be made.

    Returns:
        Adjusted values in the same order, at most 1; NaN stays NaN and is not counted in m.
    """
    order = sorted(
        (i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i]
    )
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, (len(order) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted


def paired_p(differences: Summary) -> float:
    """Two-sided p of t = d̄ / sem against Student's t with n − 1 degrees of freedom.

    Where all differences are equal t is not defined: p is 1 if they are 0, else 0.
    """
    from scipy.special import stdtr

    if differences.n < 2:
        return math.nan
    if differences.sem == 0:
        return 1.0 if differences.mean == 0 else 0.0
    return float(2 * stdtr(differences.n - 1, -abs(differences.mean / differences.sem)))


def paired_tests(values: Mapping[str, Mapping[int, float]]) -> list[PairedTest]:
    """A paired t test for every pair of labels over their shared seeds, corrected by Holm.

    Args:
        values: one number per seed, by label; finite.

    Returns:
        All pairs in the order of the labels. A pair with fewer than two shared seeds is listed
        with p = NaN and does not count in the correction.
    """
    pairs = list(itertools.combinations(values, 2))
    samples = [
        summarise(values[a][s] - values[b][s] for s in sorted(values[a].keys() & values[b].keys()))
        for a, b in pairs
    ]
    p = [paired_p(sample) for sample in samples]
    return [
        PairedTest(a, b, sample.mean, sample.ci95, raw, corrected, sample.n)
        for (a, b), sample, raw, corrected in zip(pairs, samples, p, holm(p), strict=True)
    ]
