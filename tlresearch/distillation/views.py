"""The inputs of a transfer set in K views, each made again exactly.

View k of sample i is augmented with the key fold(key(seed, "view", k), i) of `functional.random`:
a function of (seed, view, sample), whatever the batch, so that the student sees what the teacher
saw when its answers were kept, and the live teacher the same as the student.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from tlresearch.errors import UserError
from tlresearch.functional import random
from tlresearch.functional.random import Key

Augment = Callable[[Key, Tensor], Tensor]
"""(keys (batch,), inputs (batch, …)) to inputs; a row depends on its own key and input alone."""


@dataclass(frozen=True)
class Views:
    """The samples of a transfer set as the networks see them."""

    samples: Tensor
    """(samples, …), as they are kept, such as uint8 images."""
    data: str
    """Fingerprint of `samples`: `tensor_digest` of them, or the data set's and which part."""
    prepare: Callable[[Tensor], Tensor] | None = None
    """From rows of `samples` to inputs, row by row; None: they are inputs."""
    augment: Augment | None = None
    """Of prepared inputs; None: the one view is the inputs themselves."""
    recipe: str = "as they are"
    """`prepare` and `augment` in words, with all their settings: part of what names a view."""
    seed: int = 0
    """Of the augmentation."""
    count: int = 1
    """K, at least 1; 1 without augmentation."""

    def __post_init__(self) -> None:
        if not len(self.samples):
            raise UserError("A teacher was given no samples to answer for; expected at least one.")
        if self.count < 1 or (self.augment is None and self.count > 1):
            raise UserError(
                f"{self.count} views were asked for; expected at least 1, and exactly 1 without "
                "augmentation, as all of them would be equal."
            )
        if (self.augment or self.prepare) and self.recipe == Views.recipe:
            raise ValueError("a transfer set that is prepared or augmented needs a recipe")

    def inputs(self, indices: Int64[Tensor, " batch"], view: int | Tensor = 0) -> Tensor:
        """The inputs of some samples in a view.

        Args:
            indices: of samples, where `samples` lie.
            view: one for all, or one for each, (batch,).
        """
        x = self.samples.index_select(0, indices)
        x = x if self.prepare is None else self.prepare(x)
        if self.augment is None:
            return x
        keys = random.fold(random.make_key(self.seed, "view", view), indices)
        return self.augment(keys, x)

    def name(self, view: int) -> str:
        """What tells a view from all others of the same data."""
        if self.augment is None:
            return self.recipe
        return f"{self.recipe}; seed {self.seed}, view {view}"

    def which(self, key: Key, batch: tuple[int, ...]) -> Int64[Tensor, "*batch"]:
        """A view for each sample of a batch, drawn uniformly."""
        return random.integers(key, self.count, batch)
