"""Who works on which part of a batch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One of several contiguous parts, as equal as possible: what one process works on."""

    index: int = 0
    parts: int = 1

    def places(self, total: int, multiple: int = 1) -> range:
        """Its places among `total`, cut at multiples of `multiple`; may be empty."""
        blocks = -(-total // multiple)
        cuts = (blocks * i // self.parts * multiple for i in (self.index, self.index + 1))
        return range(*(min(total, cut) for cut in cuts))


WHOLE = Part()
