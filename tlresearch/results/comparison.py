"""Whether two records of one cell hold the same numbers, bit for bit.

What a run cost (seconds, memory) differs each time and is left out; a record holds such things
beside its metrics, or as metrics in seconds or of memory.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlresearch.results.formats import metric_format
from tlresearch.results.store import digest

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """Where a number that was made again is another one."""

    name: str
    """The first that differs, e.g. `acc`, or `curve[3]` of an array."""
    seed: int
    stored: Any
    now: Any
    largest: float
    """Largest |stored − now| over all numbers of the runs compared; NaN where none has both."""
    largest_name: str
    """Which number that is, of which seed; empty where `largest` is NaN."""

    def __str__(self) -> str:
        """`acc of seed 0, stored 0.9, now 0.8, largest difference 0.1 (acc of seed 0)`."""
        text = f"{self.name} of seed {self.seed}, stored {_text(self.stored)}, now "
        text += _text(self.now)
        if not self.largest_name:
            return text + ", no difference of numbers"
        return text + f", largest difference {self.largest:.3g} ({self.largest_name})"


def numbers(record: Record) -> dict[str, Any]:
    """What of a record a rerun has to give again: how it ended, metrics and arrays."""
    metrics = {name: value for name, value in record["metrics"].items() if not _is_cost(name)}
    whole = {name: record[name] for name in ("status", "reason", "arrays")}
    return whole | {"metrics": metrics}


def numbers_digest(record: Record) -> str:
    """SHA-256 of `numbers`; a float counts with all its digits, and −0 is not 0."""
    return digest(numbers(record))


def first_difference(
    stored: Mapping[int, Record], now: Mapping[int, Record], metrics: Sequence[str] = ()
) -> Difference | None:
    """Where the runs of a row differ from what is stored; None if they are the same bit for bit.

    Args:
        stored: the records by seed; at least those of `now`.
        now: the same cells, made again.
        metrics: whose order decides which difference is named.
    """
    found = [
        (name, seed, old, new)
        for seed in now
        for name, old, new in _differences(stored[seed], now[seed], metrics)
    ]
    if not found:
        return None
    sizes = [
        (abs(old - new), f"{name} of seed {seed}")
        for name, seed, old, new in found
        if _is_number(old) and _is_number(new)
    ]
    largest, where = max(sizes, key=lambda size: size[0], default=(float("nan"), ""))
    name, seed, old, new = found[0]
    return Difference(name, seed, old, new, largest, where)


def _differences(
    stored: Record, now: Record, metrics: Sequence[str]
) -> Iterator[tuple[str, Any, Any]]:
    """Name, stored and new value of each single value that differs."""
    old, new = numbers(stored), numbers(now)
    for part in ("status", "reason"):
        if old[part] != new[part]:
            yield part, old[part], new[part]
    order = dict.fromkeys([*metrics, *old["metrics"], *new["metrics"]])
    for name in order:
        yield from _unlike(name, old["metrics"].get(name), new["metrics"].get(name))
    for name in old["arrays"] | new["arrays"]:
        yield from _unlike(name, old["arrays"].get(name), new["arrays"].get(name))


def _unlike(name: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """The values that differ in two nested lists; lists of other lengths differ as wholes."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _unlike(f"{name}[{place}]", one, other)
    elif json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):
        yield name, old, new


def _is_cost(metric: str) -> bool:
    """Whether a metric is a time or a size of memory, which no two runs share."""
    return metric_format(metric).unit == "s" or "memory" in metric or "second" in metric


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    """A value with all its digits; what is long is cut."""
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
