"""Both domains through the networks, and whose statistics batch norm uses."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.adaptation.method import DomainBatch
from tlresearch.adaptation.networks import AdaptedClassifier

BatchNorms = Literal["joint", "separate"]


class Passed(NamedTuple):
    """Features and logits of one domain's batch."""

    z: Float[Tensor, "batch width"]
    logits: Float[Tensor, "batch classes"]


def both(
    networks: AdaptedClassifier, batch: DomainBatch, batch_norm: BatchNorms
) -> tuple[Passed, Passed]:
    """Source and target through backbone and head.

    Args:
        networks: backbone and head.
        batch: with samples of both domains.
        batch_norm: `joint`: one pass, so that all samples share the statistics of batch norm;
            `separate`: a pass each, and running statistics that follow both in turn.
    """
    xs = (batch.source_x, batch.target_x)
    if batch_norm == "joint":
        z = networks.features(torch.cat(xs))
        logits = networks.head(z)
        count = [len(xs[0])]
        pairs = zip(z.tensor_split(count), logits.tensor_split(count), strict=True)
        source, target = (Passed(*pair) for pair in pairs)
        return source, target
    source, target = (networks.features(x) for x in xs)
    return Passed(source, networks.head(source)), Passed(target, networks.head(target))
