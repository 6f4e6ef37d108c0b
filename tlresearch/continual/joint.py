"""Joint (offline) training: the upper bound, which may keep all data.

van de Ven and Tolias (arXiv:1904.07734, "offline"): at task k the network trains on the data of
tasks 1 … k together, going on from its weights, for as many steps and with the same batch size
as the other methods at that task. So it sees T · steps · batch samples in all, drawn uniformly from
the samples of all tasks so far; with later tasks it sees less of each.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from tlresearch.continual.method import ContinualMethod


@dataclass(frozen=True)
class Joint(ContinualMethod):
    """Trains on the data of all tasks so far."""

    sees: ClassVar[Literal["task", "tasks so far"]] = "tasks so far"
