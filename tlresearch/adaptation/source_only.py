"""Source only: no adaptation, the lower reference of every table."""

from dataclasses import dataclass

from torch import nn

from tlresearch.adaptation.method import AdaptationMethod, DomainBatch, Round
from tlresearch.functional.losses import cross_entropy
from tlresearch.training.method import Loss
from tlresearch.training.settings import Train
from tlresearch.training.tree import Tree


@dataclass(frozen=True)
class SourceOnly(AdaptationMethod):
    """Supervised training on the source; the target is seen only by the evaluator."""

    def parts(self, train: Train) -> tuple[Round, ...]:
        return (Round(train.steps, target=False),)

    def loss(self, networks: nn.Module, state: Tree, batch: DomainBatch) -> Loss:
        """Mean cross-entropy of the source batch, in nats."""
        value = cross_entropy(networks(batch.source_x), batch.source_y)
        return Loss(value, {"cross_entropy": value})
