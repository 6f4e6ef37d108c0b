"""Both domains through the networks, and whose statistics batch norm uses."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.adaptation.method import DomainBatch
from tlresearch.adaptation.networks import AdaptedClassifier
from tlresearch.adaptation.norms import Domain, passing

BatchNorms = Literal["joint", "separate", "domain_specific"]
"""`joint`: one pass, so that all samples of a batch share the statistics of batch norm;
`separate`: a pass each with the domain's own statistics, and running statistics, one set, that
follow source and target in turn; `domain_specific`: as `separate`, and each domain has running
statistics, scale and shift of its own (`norms.DomainNorm`), with which it is predicted too."""


class Passed(NamedTuple):
    """Features and logits of one domain's batch."""

    z: Float[Tensor, "batch width"]
    logits: Float[Tensor, "batch classes"]


def one(networks: AdaptedClassifier, x: Tensor, domain: Domain) -> Passed:
    """Inputs of one domain through backbone and head, by themselves."""
    with passing(networks, domain):
        z = networks.features(x)
        return Passed(z, networks.head(z))


def both(
    networks: AdaptedClassifier, batch: DomainBatch, batch_norm: BatchNorms
) -> tuple[Passed, Passed]:
    """Source and target through backbone and head.

    Args:
        networks: backbone and head.
        batch: with samples of both domains.
        batch_norm: see `BatchNorms`.
    """
    if batch_norm != "joint":
        source = one(networks, batch.source_x, "source")
        return source, one(networks, batch.target_x, "target")
    z = networks.features(torch.cat([batch.source_x, batch.target_x]))
    logits = networks.head(z)
    count = [len(batch.source_x)]
    pairs = zip(z.tensor_split(count), logits.tensor_split(count), strict=True)
    source, target = (Passed(*pair) for pair in pairs)
    return source, target
