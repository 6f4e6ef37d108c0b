"""Does our number reproduce the published one? A verdict by equivalence.

The interval form of the two one-sided tests (Schuirmann, "A comparison of the two one-sided
tests procedure and the power approach", J. Pharmacokinetics and Biopharmaceutics 1987): two
numbers agree when the interval of their difference lies inside a tolerance that was fixed
before the run, so "not significantly different" is never taken for agreement. Degrees of
freedom by Welch, "The generalization of Student's problem", Biometrika 1947.

Differs from Schuirmann: the 95 % interval instead of the 90 % one, which is stricter.
"""

import math
from dataclasses import dataclass

from tlresearch.results.published import Status
from tlresearch.results.statistics import Summary, student_quantile


@dataclass(frozen=True)
class Verdict:
    """The comparison of one of our means with one published number, in the metric's unit."""

    word: str
    """`agrees`, `differs +`, `differs -`, `inconclusive`, or empty where there is no verdict."""
    difference: float
    """Ours − published; + is ours higher."""
    low: float
    """Lower end of the 95 % interval of the difference; NaN with fewer than two seeds."""
    high: float
    """Upper end of the interval."""
    saturated: bool
    """Ours or theirs is above the ceiling or at chance, where agreement says little."""


def welch_freedom(sem: float, n: int, other_sem: float, other_n: int) -> float:
    """(a + b)² / (a² / (n − 1) + b² / (m − 1)) with a, b the squared standard errors.

    Args:
        sem: standard error of the first mean; not both may be 0.
        n: how many values the first mean is over, at least 2.
        other_sem: standard error of the second mean.
        other_n: m, how many values the second mean is over, at least 2.
    """
    largest = max(sem, other_sem)
    a, b = (sem / largest) ** 2, (other_sem / largest) ** 2
    return (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (other_n - 1))


def half_width(ours: Summary, published_sem: float | None, runs: int | None) -> float:
    """t₀.₉₇₅(ν) · √(sem_ours² + sem_published²), ν by Welch and Satterthwaite.

    An unknown published spread counts as 0, and ν = n − 1. An unknown number of runs leaves
    ν = n − 1 too: the smallest ν that Welch can give if the paper ran at least as many seeds.
    """
    theirs = published_sem or 0.0
    error = math.hypot(ours.sem, theirs)
    if error == 0:
        return 0.0
    if theirs == 0 or runs is None or runs < 2:
        return student_quantile(ours.n - 1) * error
    return student_quantile(welch_freedom(ours.sem, ours.n, theirs, runs)) * error


def is_saturated(
    means: tuple[float, float], tolerance: float, chance: float | None, ceiling: float | None
) -> bool:
    """Whether either mean is above `ceiling` or within `tolerance` of `chance`; None: no such."""
    return any(
        (ceiling is not None and mean > ceiling)
        or (chance is not None and abs(mean - chance) <= tolerance)
        for mean in means
    )


def verdict(
    ours: Summary,
    published: float,
    published_sem: float | None = None,
    runs: int | None = None,
    *,
    tolerance: float = 0.01,
    status: Status = "read",
    chance: float | None = None,
    ceiling: float | None = 0.99,
) -> Verdict:
    """`agrees` if [d − h, d + h] ⊆ [−tolerance, tolerance], d = ours − published.

    `differs +` or `differs -` (the sign of d) if the interval lies wholly outside, else
    `inconclusive`, which is not agreement. h is `half_width`: where the published spread is
    unknown only ours counts, so the published number is then taken to be exact.

    Args:
        ours: our mean, its standard error and n seeds.
        published: the published mean in our unit (accuracy in [0, 1]).
        published_sem: its standard error, or None where the paper gives none.
        runs: how many values the published mean is over, or None.
        tolerance: largest difference that counts as the same; positive, same unit.
        status: `recalled` numbers get no verdict, as does n < 2; the word is then empty.
        chance: value of a guess; a mean within `tolerance` of it is saturated.
        ceiling: a mean above it is saturated; None for metrics that are no accuracies.
    """
    difference = ours.mean - published
    saturated = is_saturated((ours.mean, published), tolerance, chance, ceiling)
    if ours.n < 2 or not math.isfinite(difference):
        return Verdict("", difference, math.nan, math.nan, saturated)
    half = half_width(ours, published_sem, runs)
    low, high = difference - half, difference + half
    if status == "recalled":
        word = ""
    elif -tolerance <= low and high <= tolerance:
        word = "agrees"
    elif low > tolerance:
        word = "differs +"
    elif high < -tolerance:
        word = "differs -"
    else:
        word = "inconclusive"
    return Verdict(word, difference, low, high, saturated)
