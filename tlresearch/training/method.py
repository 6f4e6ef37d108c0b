"""The contract between a method and the loop (docs/design.md, "The method's contract").

A method is a frozen dataclass: its fields are its hyperparameters, its functions are pure. What
it remembers is a *state*, a tree of tensors that goes in and comes out. It is written for one
seed; the loop maps `loss` over a stack of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from tlresearch.functional.losses import cross_entropy, mask_logits
from tlresearch.training.tree import Tree


class Labelled(NamedTuple):
    """A batch of labelled inputs, for one seed (in the loop: with a leading seed dimension)."""

    x: Float[Tensor, "batch *shape"]
    y: Int64[Tensor, " batch"]
    mask: Bool[Tensor, "*active"] | None = None
    """Active classes, (classes,) or (batch, classes); None: all."""


class Loss(NamedTuple):
    """What a step minimises, and its parts by name for the log (unweighted, in nats)."""

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]


class Phase(NamedTuple):
    """A part of a step: a loss, and the parameters that follow its gradient.

    All parts of a step see the same batch. The other parameters keep their weights and what the
    optimiser remembers of them; running statistics move in every forward pass.
    """

    loss: str
    """Name of the method's function (networks, state, batch) to `Loss`."""
    parameters: tuple[str, ...] = ("",)
    """What the names of those parameters begin with, e.g. "head."; "" is all of them."""
    repeats: int = 1
    """How often in a step, at least 1; with masks of their own in dropout."""

    def trains(self, name: str) -> bool:
        """Whether a parameter of this name follows it."""
        return name.startswith(self.parameters)


@runtime_checkable
class TaskData(Protocol):
    """The training data of one task for one seed, as `after_task` sees it.

    Of several processes each sees its part: a statistic of it has to go through `average`.
    """

    def batches(
        self, samples: int | None = None, multiple: int = 1
    ) -> Iterable[tuple[Tensor, Tensor, Tensor | None]]:
        """(x, y, mask) in chunks: all data in order, or `samples` without replacement.

        Of several processes each has a contiguous part of them, possibly empty, that begins at a
        multiple of `multiple`.
        """
        ...

    def places(self, samples: int | None = None, multiple: int = 1) -> range:
        """Where this process's part lies among the samples of all; see `batches`."""
        ...

    def average(self, tree: Tree, weight: float, /) -> Tree:
        """The mean of a tree of tensors over processes, by weights such as numbers of samples.

        To be called by all processes, in the same order.
        """
        ...

    def key(self, purpose: str) -> Tensor:
        """A random key for this seed, task and purpose."""
        ...


@dataclass(frozen=True)
class Method:
    """Supervised training of a backbone and a linear head; the base of the methods."""

    second_order: ClassVar[bool] = False
    """Whether `loss` differentiates a gradient; then norms must be exact in second order."""
    Batch: ClassVar[type] = Labelled
    """What `loss` is given: a NamedTuple of tensors, or None, each with the seeds first in the
    loop's batches."""

    def networks(
        self, backbone: Any, shape: tuple[int, int, int], classes: int, seed: int
    ) -> nn.Module:
        """What is trained: a classifier with parameters drawn under `seed`.

        Args:
            backbone: settings of a backbone (of a class in `backbones.BACKBONES`, or foreign).
            shape: (channels, height, width) of an input.
            classes: units of the head.
            seed: seed of the initialisation.
        """
        from tlresearch.backbones import build

        return build(backbone, shape, classes, seed)

    def init(self, networks: nn.Module) -> Tree:
        """The state before the first step."""
        return {}

    def loss(self, networks: nn.Module, state: Tree, batch: Labelled) -> Loss:
        """Mean cross-entropy of the batch over its active classes, in nats."""
        value = cross_entropy(networks(batch.x), batch.y, batch.mask)
        return Loss(value, {"cross_entropy": value})

    def phases(self) -> tuple[Phase, ...]:
        """The parts of each step, in order; here one: `loss`, of all parameters."""
        return (Phase("loss"),)

    def predict(
        self, networks: nn.Module, state: Tree, x: Tensor, context: Tensor | None
    ) -> Float[Tensor, "batch classes"]:
        """Scores whose largest is the prediction; −∞ for classes that `context` rules out."""
        return mask_logits(networks(x), context)

    def after_task(self, networks: nn.Module, state: Tree, data: TaskData) -> Tree:
        """The state after a task, for one seed, on its own weights."""
        return state
