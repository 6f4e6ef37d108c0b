"""Methods compared over the episodes on which all of them were measured.

A record of few-shot learning holds `arrays["episodes"]`, its accuracy (or squared error) in each
test episode, and `arrays["episodes_id"]`, a hash of the episodes. Where two methods share the hash,
a difference can be taken in each episode, which removes how hard the episode is.

The interval is that of the few-shot literature, 1.96 s / √n over n episodes (Finn et al.,
arXiv:1703.03400, Table 1). It speaks of these trained networks on other episodes, and not of
networks trained anew: that is what the tests over seeds are for.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlresearch.results.formats import MetricFormat, metric_format
from tlresearch.results.statistics import holm, paired_p, summarise

NORMAL = 1.96
"""The quantile of the normal distribution in intervals over episodes, as papers round it."""

EPISODES_NOTE = (
    "Over episodes: each episode's value is the mean over seeds; ± 1.96 s / √n and a paired t test "
    "over the n episodes that both methods were measured on; Holm's correction over the pairs of "
    "one setting. This is the spread over episodes for these trained networks; the tests over "
    "seeds speak of training."
)
"""What stands below a table with such tests."""


@dataclass(frozen=True)
class EpisodeTest:
    """Two methods compared over the same episodes."""

    first: str
    second: str
    difference: float
    """Mean over episodes of first − second, each the mean over the method's seeds."""
    ci95: float
    """1.96 s / √n, half-width of the 95 % interval over episodes; NaN for n < 2."""
    p: float
    """Two-sided p of the paired t test over episodes; NaN for n < 2."""
    p_holm: float
    """`p` after Holm's correction over all the pairs tested together."""
    n: int
    """Number of episodes."""


def episode_tests(
    values: Mapping[str, np.ndarray], shared: Mapping[str, str] | None = None
) -> list[EpisodeTest]:
    """d̄ ± 1.96 s / √n with d = first − second by episode, and its paired t test.

    Args:
        values: by label, one number an episode.
        shared: by label, the name of the episodes; labels of other names are no pair. None: all
            have the same.

    Returns:
        The pairs in the order of the labels, corrected by Holm together.

    Raises:
        ValueError: two labels share their episodes' name, but not their number.
    """
    names = shared or dict.fromkeys(values, "")
    pairs = [(a, b) for a, b in itertools.combinations(values, 2) if names[a] == names[b]]
    for a, b in pairs:
        if len(values[a]) != len(values[b]):
            raise ValueError(f"{a!r} has {len(values[a])} episodes and {b!r} {len(values[b])}")
    samples = [summarise(values[a] - values[b]) for a, b in pairs]
    p = [paired_p(sample) for sample in samples]
    return [
        EpisodeTest(a, b, sample.mean, NORMAL * sample.sem, raw, corrected, sample.n)
        for (a, b), sample, raw, corrected in zip(pairs, samples, p, holm(p), strict=True)
    ]


def compare_over_episodes(
    finished: Mapping[str, Mapping[int, Mapping[str, Any]]],
) -> list[EpisodeTest]:
    """The tests of one setting's methods, from their finished records.

    Args:
        finished: records by label and seed. A label counts if all its records hold the values of
            the same episodes (null is NaN); it may have other seeds than the others.
    """
    values, shared = {}, {}
    for label, records in finished.items():
        arrays = [record.get("arrays", {}) for record in records.values()]
        rows = [a.get("episodes") or [] for a in arrays]
        names = {f"{a.get('episodes_id')}, {len(row)}" for a, row in zip(arrays, rows, strict=True)}
        if len(names) == 1 and rows[0] and "episodes_id" in arrays[0]:
            values[label] = np.array(rows, dtype=np.float64).mean(axis=0)
            shared[label] = names.pop()
    return episode_tests(values, shared)


def half_width(values: Sequence[float]) -> float:
    """1.96 s / √n, s² = Σ (xᵢ − x̄)² / (n − 1): the 95 % interval over episodes of one network."""
    return NORMAL * summarise(values).sem


def episode_format(metrics: Sequence[str]) -> MetricFormat:
    """How values of episodes are printed: as MSE where a table's metrics are, else as accuracy."""
    errors = any(metric.split("_")[0] == "mse" for metric in metrics)
    return metric_format("mse" if errors else "acc")
