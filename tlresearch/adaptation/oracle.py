"""Supervised training on the target's labels: the upper reference, and no adaptation at all."""

from dataclasses import dataclass
from typing import ClassVar

from tlresearch.adaptation.source_only import SourceOnly


@dataclass(frozen=True)
class Oracle(SourceOnly):
    """As `SourceOnly`, with the target's labelled training set in the source's place.

    The one method to which the protocol hands target labels, before any training and by making
    another pair of domains; `oracle` in a table says so.
    """

    oracle: ClassVar[bool] = True

    def notes(self) -> dict[str, str]:
        return {"target labels": "seen in training"}
