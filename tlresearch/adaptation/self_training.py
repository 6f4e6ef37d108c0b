"""Iterative self-training with pseudo-labels.

The classifier labels the target by its own predictions, is trained on the source and on those
that it keeps, and labels the target anew: Lee, "Pseudo-label", ICML 2013 workshop; with a
threshold of confidence, with the best k of each predicted class, or with a fraction of each class
that grows from round to round (Zou, Yu, Kumar and Wang, "Unsupervised domain adaptation for
semantic segmentation via class-balanced self-training", ECCV 2018, arXiv:1810.07911).

Differs from the papers: in Lee the labels change with every batch, here from round to round and
for the whole pool at once. Zou et al. choose pixels of images; their spatial priors are left out,
and their fraction is of each predicted class.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.adaptation.method import (
    AdaptationMethod,
    Chosen,
    DomainBatch,
    DomainData,
    Round,
    changed,
    over,
)
from tlresearch.adaptation.networks import AdaptedClassifier
from tlresearch.adaptation.norms import adopt_source, passing
from tlresearch.adaptation.passes import BatchNorms, both, one
from tlresearch.adaptation.round_log import changed_fraction
from tlresearch.functional.calibration import best_temperature
from tlresearch.functional.losses import cross_entropy
from tlresearch.functional.pseudo_labels import above_threshold, growing_share, most_confident
from tlresearch.settings import Bounds
from tlresearch.training.method import Loss
from tlresearch.training.settings import Count, Fraction, Train
from tlresearch.training.tree import Tree

Share = Annotated[float, Bounds(ge=0, le=1)]

_READ_BY = {
    "threshold": "threshold",
    "top_count": "top_k",
    "top_fraction": "top_k",
    "first": "growing",
    "last": "growing",
    "balanced": "growing",
}
"""The value of `select` that reads a setting."""


def soft_cross_entropy(
    logits: Float[Tensor, "batch classes"], p: Float[Tensor, "batch classes"]
) -> Float[Tensor, ""]:
    """−(1/N) Σₙ Σₖ pₙₖ log softmax(zₙ)ₖ, in nats."""
    return -(p * logits.log_softmax(-1)).sum(-1).mean()


@dataclass(frozen=True)
class SelfTraining(AdaptationMethod):
    """A round on the source, then rounds on source and pseudo-labelled target, half and half.

    Before each of them the whole target pool is predicted, in evaluation mode and without
    augmentation, and all pseudo-labels are made anew.
    """

    rounds: Count = 5
    """R, rounds with pseudo-labels, after the one on the source alone."""
    round_steps: Count | None = None
    """Steps of each of them; null: train.steps."""
    select: Literal["threshold", "top_k", "growing"] = "threshold"
    """What is kept: confidences above `threshold`; of each predicted class its most confident
    samples; or a fraction of them that grows from round to round."""
    threshold: Share = 0.9
    """Threshold: τ, of the largest probability; it is kept if above it, so that 1 keeps nothing."""
    top_count: Count | None = None
    """Top_k: samples of each predicted class; null: `top_fraction` of them."""
    top_fraction: Share = 0.5
    """Top_k: fraction of each predicted class, where `top_count` is null."""
    first: Share = 0.2
    """Growing: fraction in the first round with pseudo-labels."""
    last: Share = 0.8
    """Growing: fraction in the last round; it grows linearly."""
    balanced: bool = True
    """Growing: whether it is a fraction of each predicted class, or of the pool as a whole."""
    labels: Literal["hard", "soft"] = "hard"
    """Pseudo-labels: the most probable class, or all probabilities."""
    start: Literal["warm", "scratch"] = "warm"
    """Whether a round goes on with the weights of the one before, or begins with the initial ones
    and a new optimiser."""
    calibrate: bool = False
    """Whether probabilities are those at the temperature that is best on the held-out part of the
    source, found anew before each round."""
    least_change: Fraction = 0.005
    """Training ends when a smaller fraction of the pool's labels changed since the last round."""
    batch_norm: BatchNorms = "joint"
    """Which samples share batch norm's statistics: see `passes.both`."""

    def problem(self) -> str | None:
        given = changed(self)
        for name, reader in _READ_BY.items():
            if name in given and self.select != reader:
                return f"{name}: select '{self.select}' does not use it; remove one of them"
        if {"top_count", "top_fraction"} <= given:
            return "top_fraction: top_count goes before it; remove one of them"
        if self.rounds == 1 and "first" in given:
            return "first: with one round the fraction is 'last'; remove it or take more rounds"
        if self.select == "growing" and self.last < self.first:
            return f"last: {self.last:g} is below first, {self.first:g}; a growing fraction grows"
        return None

    def held_out_for(self) -> str | None:
        return "calibrate" if self.calibrate else None

    def parts(self, train: Train) -> tuple[Round, ...]:
        later = Round(self.round_steps or train.steps, fresh=self.start == "scratch")
        return (Round(train.steps, target=False), *[later] * self.rounds)

    def before_round(
        self, networks: AdaptedClassifier, state: Tree, number: int, data: DomainData
    ) -> tuple[Tree, Chosen | None]:
        """The pool's predictions, and those of them that are kept."""
        if number == 0:
            return state, None
        if number == 1:
            adopt_source(networks)
        p = (over(data.target(), networks) / self._temperature(networks, data)).softmax(-1)
        confidence, predicted = p.max(-1)
        if self._settled(predicted, data.previous()):
            return state, Chosen(predicted[:0], None, predicted, settled=True)
        places = self._kept(confidence, predicted, p.shape[1], number)
        labels = p[places] if self.labels == "soft" else predicted[places]
        return state, Chosen(places, labels, predicted)

    def _settled(self, predicted: Tensor, before: Chosen | None) -> bool:
        """Whether hardly any label changed since the round before."""
        if before is None or before.predicted is None:
            return False
        return changed_fraction(predicted, before.predicted) < self.least_change

    def _temperature(self, networks: AdaptedClassifier, data: DomainData) -> Tensor | float:
        if not self.calibrate:
            return 1.0
        held_out = data.held_out()
        with passing(networks, "source"):
            logits = over([x for x, _ in held_out], networks)
        return best_temperature(logits, torch.cat([y for _, y in held_out])).to(logits.dtype)

    def _kept(self, confidence: Tensor, predicted: Tensor, classes: int, number: int) -> Tensor:
        """Places in the pool."""
        if self.select == "threshold":
            return above_threshold(confidence, self.threshold)
        if self.select == "top_k":
            count, share = self.top_count, self.top_fraction
            return most_confident(confidence, predicted, classes, share, count)
        share = growing_share(number, self.rounds, self.first, self.last)
        if self.balanced:
            return most_confident(confidence, predicted, classes, share)
        return most_confident(confidence, torch.zeros_like(predicted), 1, share)

    def loss(self, networks: AdaptedClassifier, state: Tree, batch: DomainBatch) -> Loss:
        """½ (cross-entropy of the source + of the pseudo-labels); the source's alone at first."""
        if batch.target_y is None:
            value = cross_entropy(one(networks, batch.source_x, "source").logits, batch.source_y)
            return Loss(value, {"cross_entropy": value})
        source, target = both(networks, batch, self.batch_norm)
        value = cross_entropy(source.logits, batch.source_y)
        of_labels = soft_cross_entropy if batch.target_y.ndim == 2 else cross_entropy
        pseudo = of_labels(target.logits, batch.target_y)
        return Loss(0.5 * (value + pseudo), {"cross_entropy": value, "pseudo": pseudo})
