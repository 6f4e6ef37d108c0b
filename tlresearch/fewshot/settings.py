"""The `benchmark:` section of a few-shot experiment."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tlresearch.settings import Bounds
from tlresearch.training.settings import Count

SINUSOID = "sinusoid"
"""Name of the data set that is no images."""


@dataclass(frozen=True)
class FewShotSettings:
    """Which classes (or functions) are learned from, and on which episodes methods are measured."""

    dataset: str
    """Name of a data set, or `sinusoid`."""
    split: str | None = None
    """How its classes divide into training, validation and test; null: its first."""
    size: Annotated[int, Bounds(ge=8)] | None = None
    """Pixels of a side that images are resized to; null: as they are."""
    rotations: bool = False
    """Whether the turns of a class by 90, 180 and 270 degrees are classes of their own."""
    ways: Count = 5
    """N: classes of an episode."""
    shots: Count = 1
    """K: labelled samples of a class."""
    queries: Count = 15
    """Samples of a class that are to be predicted."""
    episodes: Count = 1000
    """How many are measured on; the same for every method and seed."""
    evaluate: Literal["test", "validation"] = "test"
    """The classes that they are drawn from; settings are chosen on `validation`."""
    draw: Literal["classes", "group", "lake"] = "classes"
    """Ways among all those classes, or within a group (Omniglot: an alphabet), or Lake's 20 runs
    of 20 ways, 1 shot and 1 query."""
    curve: Annotated[int, Bounds(ge=0)] = 0
    """Inner steps to which adaptation curves go, where that is more than count; the rows of a
    table are measured after the steps that a method says."""
    target: str | None = None
    """Another data set whose classes episodes are drawn from, after training on `dataset`."""


EVALUATION_ONLY = ("ways", "shots", "queries", "episodes", "evaluate", "draw", "curve", "target")
"""Fields that training does not depend on, but through a method's own nulls."""
