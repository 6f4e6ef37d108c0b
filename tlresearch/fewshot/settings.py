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
    """What is trained on: the name of a data set whose classes are split, or `sinusoid`."""
    split: str | None = None
    """How its classes divide into training, validation and test, e.g. `vinyals` of omniglot; null:
    the first of its splits (docs/fewshot.md lists them)."""
    size: Annotated[int, Bounds(ge=8)] | None = None
    """Rows and columns that images are resized to; null: as they are."""
    rotations: bool = False
    """Whether the turns of a class by 90, 180 and 270 degrees are further classes, in all parts."""
    ways: Count = 5
    """N, classes of a test episode."""
    shots: Count = 1
    """K, labelled samples of each class."""
    queries: Count = 15
    """Samples of each class that are to be predicted."""
    episodes: Count = 1000
    """Test episodes, the same ones for every method and seed."""
    evaluate: Literal["test", "validation"] = "test"
    """Which classes they are drawn from; a selection measures on `validation`."""
    draw: Literal["classes", "group", "lake"] = "classes"
    """How: N of all those classes; N of one group of them (Omniglot: an alphabet, glyphs: a
    script); or Lake's 20 published runs, which have 20 ways, 1 shot and 1 query."""
    curve: Annotated[int, Bounds(ge=0)] = 0
    """Inner steps that an adaptation curve goes to, if that is more than the method's `test_steps`;
    the value that counts in the table is still the one after `test_steps`."""
    target: str | None = None
    """Another data set that the episodes are drawn from, its images made like those of `dataset`,
    on which methods are trained; null: the same."""


EVALUATION_ONLY = ("ways", "shots", "queries", "episodes", "evaluate", "draw", "curve", "target")
"""Fields that training does not depend on, but through a method's own nulls."""
