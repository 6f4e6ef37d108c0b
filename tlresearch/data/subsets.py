"""Parts of a labelled set that are drawn class by class, by a key."""

import torch
from jaxtyping import Int64
from torch import Tensor

from tlresearch.data.shifts import rank_in_class
from tlresearch.functional import random
from tlresearch.functional.random import Key

Places = Int64[Tensor, " places"]


def evenly(labels: Int64[Tensor, " n"], samples: int, key: Key) -> Places:
    """`samples` places, as equally many of each class as possible, in rising order.

    Args:
        labels: of the set.
        samples: at most n.
        key: what is drawn depends on it alone; fewer samples are a part of more.
    """
    order = random.permutation(key, len(labels))
    rank = rank_in_class(labels, order)
    return order[rank[order].argsort(stable=True)][:samples].sort().values


def split(
    labels: Int64[Tensor, " n"], fraction: float, key: Key
) -> tuple[Int64[Tensor, " kept"], Int64[Tensor, " held_out"]]:
    """Places that are kept and places that are held out, a fraction of each class, both rising."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        order = random.permutation(random.fold(key, label), len(members))
        held[members[order[: round(fraction * len(members))]]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()
