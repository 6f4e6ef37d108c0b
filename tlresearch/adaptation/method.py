"""What a method of domain adaptation says to its protocol, beyond the common contract."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from tlresearch.adaptation.networks import AdaptedClassifier
from tlresearch.adaptation.norms import passing, separate_norms
from tlresearch.functional.losses import mask_logits
from tlresearch.training.method import Method
from tlresearch.training.settings import Count, Train
from tlresearch.training.tree import Tree

CHUNK = 1000
"""Samples per chunk where a whole pool is read; a matter of memory, not of results."""


class DomainBatch(NamedTuple):
    """A batch of each domain, for one seed (in the loop: with a leading seed dimension)."""

    source_x: Float[Tensor, "source *shape"]
    """Not there (None) in a round without source samples; so is `source_y`."""
    source_y: Int64[Tensor, " source"]
    target_x: Float[Tensor, "target *shape"]
    """Not there (None) in a round without target samples."""
    target_y: Tensor | None
    """Pseudo-labels of the target samples: (target,) classes or (target, classes) probabilities;
    None: the round has none. They never are true labels."""
    progress: Float[Tensor, ""]
    """p, the fraction of the round's steps that are done, in [0, 1)."""


class Round(NamedTuple):
    """One part of a training, with its own batches and its own run of the schedules."""

    steps: int
    source: bool = True
    """Whether batches have samples of the source."""
    target: bool = True
    """Whether batches have samples of the target."""
    fresh: bool = False
    """Whether weights, running statistics and optimiser begin anew, from the same initialisation
    as the first round."""


class Chosen(NamedTuple):
    """What a round trains on of one seed's target pool."""

    places: Int64[Tensor, " k"]
    """In the pool; none of them ends the seed's training with the weights that it has, and its
    record says so in a warning."""
    labels: Tensor | None = None
    """Pseudo-labels: (k,) classes or (k, classes) probabilities; None: no labels."""
    predicted: Tensor | None = None
    """(n,) the class that the whole pool is predicted as, kept or not: for the log, and for
    `DomainData.previous` in the next round."""
    settled: bool = False
    """True with no places: training is over because there is nothing more to learn, which is no
    reason to warn."""


@runtime_checkable
class DomainData(Protocol):
    """What a method sees between rounds, for one seed: everything but the target's labels."""

    def target(self) -> list[Tensor]:
        """Inputs of the target pool in chunks, in order."""
        ...

    def source(self) -> list[tuple[Tensor, Tensor]]:
        """Inputs and labels of the source pool in chunks, in order."""
        ...

    def held_out(self) -> list[tuple[Tensor, Tensor]]:
        """Inputs and labels of the held-out source samples in chunks, in order."""
        ...

    def previous(self) -> Chosen | None:
        """What the round before this one chose; None in the first round, and where it chose all."""
        ...

    def key(self, purpose: str) -> Tensor:
        """A random key for this seed, round and purpose."""
        ...


@dataclass(frozen=True)
class AdaptationMethod(Method):
    """A method that is measured on a target; here: training on the source alone."""

    Batch: ClassVar[type] = DomainBatch
    oracle: ClassVar[bool] = False
    """Whether it is given the target's labels as a source: the upper reference, under that name."""
    least_batch: ClassVar[int] = 1
    """Fewest samples of a domain that a batch must have."""

    head: tuple[Count, ...] = ()
    """Units of hidden layers between features and logits."""

    def networks(
        self, backbone: Any, shape: tuple[int, int, int], classes: int, seed: int
    ) -> AdaptedClassifier:
        """Backbone and head, with parameters drawn under `seed`; then `extend` adds its own."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = AdaptedClassifier(backbone.build(shape), classes, self.head)
            self.extend(networks, classes)
        if getattr(self, "batch_norm", None) == "domain_specific":
            separate_norms(networks.backbone, "batch_norm: domain_specific")
        return networks

    def extend(self, networks: AdaptedClassifier, classes: int) -> None:
        """Adds what else is trained, such as a discriminator, as submodules."""

    @property
    def probabilistic(self) -> bool:
        """Whether softmax of what it predicts is meant as probabilities."""
        return True

    def held_out_for(self) -> str | None:
        """The setting that needs held-out source samples before the end of training, or None."""
        return None

    def problem(self) -> str | None:
        """What contradicts itself in the settings: one sentence that begins with a key, or None."""
        return None

    def notes(self) -> dict[str, str]:
        """Columns of text that its rows have in a table."""
        return {}

    def parts(self, train: Train) -> tuple[Round, ...]:
        """The parts of its training, in order; at least one."""
        return (Round(train.steps),)

    def before_round(
        self, networks: AdaptedClassifier, state: Tree, number: int, data: DomainData
    ) -> tuple[Tree, Chosen | None]:
        """State and target samples of round `number`, from 0; for one seed, in evaluation mode.

        None: all target samples, without labels. In a stack all seeds choose with labels of one
        kind, or all without; and once a round has chosen, the state keeps its structure.
        """
        return state, None

    def domain_logits(
        self, networks: AdaptedClassifier, x: Tensor
    ) -> Float[Tensor, " batch"] | None:
        """Its discriminator's logits of "this is source"; None: it has no discriminator."""
        return None

    def after_training(self, networks: AdaptedClassifier, state: Tree, data: DomainData) -> Tree:
        """The state that it predicts with; for one seed, in evaluation mode."""
        return state

    def predict(
        self, networks: nn.Module, state: Tree, x: Tensor, context: Tensor | None
    ) -> Float[Tensor, "batch classes"]:
        """Logits of target samples; within `norms.passing(networks, "source")`, of the source's."""
        return mask_logits(networks(x), context)

    def predict_all(
        self, networks: nn.Module, state: Tree, count: int, inputs: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "count classes"]:
        """Logits of a whole set of target samples, by default of each by itself with `predict`.

        For one seed, in evaluation mode and without gradients. A method that adapts at test time
        replaces it: each call begins with `networks` as they were trained and leaves them so.

        Args:
            networks: trained.
            state: what it predicts with.
            count: samples in the set.
            inputs: of the samples at some places of the set, (k, …) for places (k,). There are no
                labels to ask for.
        """
        parts = torch.arange(count).split(CHUNK)
        return torch.cat([self.predict(networks, state, inputs(part), None) for part in parts])

    def predict_source(self, networks: nn.Module, state: Tree, x: Tensor) -> Tensor:
        """Logits of source samples that were not trained on."""
        with passing(networks, "source"):
            return self.predict(networks, state, x, None)

    def source_features(self, networks: nn.Module, x: Tensor) -> Float[Tensor, "batch width"]:
        """z of source samples, as it is compared with that of target samples."""
        with passing(networks, "source"):
            return networks.features(x)  # type: ignore[operator]


def changed(method: AdaptationMethod) -> set[str]:
    """The settings that are not at their defaults, for what a method has to say of them."""
    fields = dataclasses.fields(method)
    return {f.name for f in fields if getattr(method, f.name) != f.default}


@torch.no_grad()
def over(chunks: list[Tensor], function: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of inputs over all chunks, as one tensor."""
    return torch.cat([function(x) for x in chunks])
