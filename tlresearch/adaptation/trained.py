"""One seed's trained model, as scores and reports look at it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.adaptation.batches import SeedData
from tlresearch.adaptation.estimator import Fitted
from tlresearch.adaptation.method import CHUNK, AdaptationMethod
from tlresearch.adaptation.networks import AdaptedClassifier
from tlresearch.adaptation.norms import Domain
from tlresearch.functional import random
from tlresearch.training.tree import Tree


@dataclass(frozen=True)
class Trained:
    """A method with its final networks, and the seed's view of the pair."""

    method: AdaptationMethod
    """With the seed's own settings."""
    networks: AdaptedClassifier | Fitted
    """In evaluation mode; or what an estimator learned."""
    state: Tree
    """What it predicts with."""
    data: SeedData

    def target_scores(self, images: Tensor) -> Float[Tensor, "samples classes"]:
        """Logits of target images, a whole set of them: a method may adapt to it."""
        inputs = self.data.pair.inputs
        return self.method.predict_all(
            self.networks, self.state, len(images), lambda places: inputs(images[places])
        )

    def scores(self, images: Tensor) -> Float[Tensor, "samples classes"]:
        """Logits of images of the source, each by itself."""
        source = self.method.predict_source
        return torch.cat([source(self.networks, self.state, x) for x in self.inputs(images)])

    def features(self, images: Tensor, domain: Domain) -> Float[Tensor, "samples width"]:
        """z of images of a domain."""
        z = self.networks.features
        if domain == "source":
            z = partial(self.method.source_features, self.networks)
        return torch.cat([z(x) for x in self.inputs(images)])

    def inputs(self, images: Tensor) -> Iterator[Tensor]:
        """What the networks are given for images, in chunks."""
        return (self.data.pair.inputs(part) for part in images.split(CHUNK))

    def key(self, purpose: str) -> Tensor:
        """A random key for this seed and purpose, whatever the method and its rounds."""
        return random.make_key(self.data.pair.seeds[self.data.place], purpose)

    def drawn(self, places: Tensor, samples: int, purpose: str) -> Tensor:
        """At most `samples` of some places, the same for every method of this seed, rising."""
        if len(places) <= samples:
            return places
        order = random.permutation(self.key(purpose), len(places))[:samples]
        return places[order.to(places.device).sort().values]


def probabilities(scores: Float[Tensor, "samples classes"]) -> Float[Tensor, "samples classes"]:
    """softmax(scores) in float64."""
    return scores.double().softmax(-1)


def fraction(values: Iterable[Tensor] | Tensor) -> float:
    """Mean of truth values."""
    both = values if isinstance(values, Tensor) else torch.cat(list(values))
    return both.double().mean().item()
