"""A shallow classifier trained on the target's labels: the upper reference of its table.

Where the target has no test part it is measured on what it was trained on, and says nothing.
"""

from dataclasses import dataclass
from typing import ClassVar

from tlresearch.adaptation.shallow import Shallow


@dataclass(frozen=True)
class ShallowOracle(Shallow):
    """As `Shallow`, with the target's labelled training set in the source's place."""

    oracle: ClassVar[bool] = True

    def notes(self) -> dict[str, str]:
        return {"target labels": "seen in training"}
