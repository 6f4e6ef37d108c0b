"""Domains: a labelled source, an unlabelled target, and the target's labels under seal.

Training and selection are given a `Pair`, whose target has no labels: its type has no place for
them. Labels of the target lie in a `Sealed`, which only the report is handed and which opens for a
`Frozen` alone; that is made of the final weights, and the record keeps its digest. What draws a
batch or adapts never holds the seal, so no training and no choice of a model depends on them.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from tlresearch.errors import UserError


@dataclass(frozen=True, eq=False)
class Labelled:
    """Inputs and labels."""

    images: Tensor
    """(n, channels, rows, columns), uint8 pixels or features of a floating type."""
    labels: Int64[Tensor, " n"]
    """0 … classes − 1."""

    def to(self, device: torch.device) -> "Labelled":
        """The same on a device."""
        return Labelled(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Domain:
    """A data set as one side of a pair, read and checked, its labels still on it."""

    name: str
    train: Labelled
    test: Labelled | None
    """None: there is no test part, and methods are measured on the training inputs that they
    adapt to (transductive)."""
    class_names: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Inputs of a target. Labels have no place here, and what carries some is refused."""

    images: Tensor
    """As in `Labelled`."""

    def __post_init__(self) -> None:
        if not isinstance(self.images, Tensor):
            raise UserError(
                "the target's training set is inputs alone, a tensor (n, channels, rows, "
                f"columns), but was handed over as {type(self.images).__name__}"
                f"{', with labels' if hasattr(self.images, 'labels') else ''}; pass the images only"
            )


@dataclass(frozen=True)
class Pair:
    """All that training and selection may see of two domains, for S seeds."""

    seeds: list[int]
    source: Labelled
    target: Unlabelled
    source_pools: list[Int64[Tensor, " n"]]
    """Of each seed: places in `source` that are trained on."""
    held_out_pools: list[Int64[Tensor, " m"]]
    """Of each seed: places in `source` that are held out, for source validation."""
    target_pools: list[Int64[Tensor, " k"]]
    """Of each seed: places in `target` that are adapted to."""
    classes: int
    scale: Tensor
    """What an input is multiplied by, of the type of the networks."""
    shift: Tensor
    """What is then subtracted; of the shape of an input, or ()."""
    own_labels: list[Int64[Tensor, " all"]] | None = None
    """Of each seed: labels of `source`, where a model gave them; None: `source` has them."""

    def labels(self, place: int) -> Int64[Tensor, " all"]:
        """Labels of `source`, as the seed at this place sees them."""
        return self.source.labels if self.own_labels is None else self.own_labels[place]

    def labels_at(self, places: Int64[Tensor, "seeds batch"]) -> Int64[Tensor, "seeds batch"]:
        """Labels of source samples, a row for each seed."""
        if self.own_labels is None:
            return self.source.labels[places]
        return torch.stack([own[row] for own, row in zip(self.own_labels, places, strict=True)])

    def __post_init__(self) -> None:
        if not isinstance(self.target, Unlabelled):
            raise UserError(
                "a pair's target is Unlabelled, its inputs alone, but was handed over as "
                f"{type(self.target).__name__}; pass Unlabelled(images)"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of an input."""
        channels, rows, columns = self.source.images.shape[1:]
        return channels, rows, columns

    def inputs(self, images: Tensor) -> Tensor:
        """What networks are given for images of either domain: the same for both."""
        return images.to(self.scale.dtype) * self.scale - self.shift


class Frozen:
    """Says that nothing will be chosen any more: made of what was chosen, kept as its digest."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        """Remembers the digest of the final weights.

        Args:
            weights: of the final networks, or what stands for them in an estimator.
        """
        from tlresearch.data.checksums import tensor_digest

        if not weights:
            raise ValueError("nothing was chosen: a Frozen is made of the final weights")
        self.digest = tensor_digest(*(weights[name] for name in sorted(weights)))


@dataclass(frozen=True)
class Opened:
    """The target with its labels, for a report."""

    test: Labelled
    """Inputs and labels that methods are measured on."""
    training_labels: list[Int64[Tensor, " k"]]
    """Labels of each seed's target pool: for a report on pseudo-labels, and for nothing else."""
    source_test: Labelled | None = None
    """The source's test part; None: it has none."""


@dataclass(frozen=True, eq=False)
class Sealed:
    """The target's labels. Its contents are out of reach but through `open`."""

    _open: Any = field(repr=False)

    @staticmethod
    def of(opened: Opened) -> "Sealed":
        """Puts labels under seal: within a closure, where no attribute leads to them."""
        return Sealed(lambda frozen: opened if isinstance(frozen, Frozen) else None)

    def open(self, frozen: Frozen) -> Opened:
        """The labels, once training and selection are over.

        Raises:
            TypeError: what was given is not a `Frozen`.
        """
        opened = self._open(frozen)
        if opened is None:
            raise TypeError(
                "the target's labels are sealed until a Frozen says that training and selection "
                f"are over; got {type(frozen).__name__}"
            )
        return opened
