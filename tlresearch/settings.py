"""Bounds of numeric settings, written beside the type of a field.

A settings dataclass says `dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0`; whoever reads
an experiment file asks `violations` and names the field in its error.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """The interval a number must lie in; a side that is None is open to infinity."""

    ge: float | int | None = None
    """At least this."""

    gt: float | int | None = None
    """Above this."""

    le: float | int | None = None
    """At most this."""

    lt: float | int | None = None
    """Below this."""

    def __str__(self) -> str:
        """The interval in words, e.g. `at least 0 and below 1`; `any number` without sides."""
        sides = (
            ("at least", self.ge),
            ("above", self.gt),
            ("at most", self.le),
            ("below", self.lt),
        )
        return " and ".join(f"{word} {side}" for word, side in sides if side is not None) or (
            "any number"
        )


def violations(value: float | int, bounds: Bounds) -> str | None:
    """What `value` had to be, in words (`at least 0 and below 1`), or None if it is that.

    A value that compares with nothing (NaN) violates any side.
    """
    fits = (
        (bounds.ge is None or value >= bounds.ge)
        and (bounds.gt is None or value > bounds.gt)
        and (bounds.le is None or value <= bounds.le)
        and (bounds.lt is None or value < bounds.lt)
    )
    return None if fits else str(bounds)
