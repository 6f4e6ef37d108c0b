"""Reverse validation: the way back from the target, measured where there are labels.

Zhong et al., "Cross validation framework to choose amongst models and datasets for transfer
learning", ECML PKDD 2010; as in section 5.1.2 of Ganin et al., JMLR 2016. A model η that was
adapted to the target labels it. The same method then learns from the target with η's labels and
the source's training inputs without labels; what it came to is measured on the source's held-out
samples.

Differs from Ganin et al.: the way back starts at the seed's initialisation and not at η's weights,
in whose discriminator the domains have each other's place; and it ends after all steps, unless
`train.checkpoint: selected`, which holds out a part of the target with η's labels (as does a method
that calibrates).
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from tlresearch.adaptation.trained import Trained, fraction
from tlresearch.data.domains import Labelled, Pair, Unlabelled
from tlresearch.functional import random


@torch.no_grad()
def labelled(trained: Trained) -> Tensor:
    """η's class of each sample of the seed's target pool."""
    pool = trained.data.pair.target_pools[trained.data.place]
    return trained.target_scores(trained.data.pair.target.images[pool]).argmax(-1)


def reversed_pair(pair: Pair, labels: Sequence[Tensor], held_out: float) -> Pair:
    """The target with labels of a model's own as the source, the source without labels as target.

    Args:
        pair: of the way there.
        labels: of each seed's target pool.
        held_out: fraction of that pool that is not trained on, drawn per seed.
    """
    images = pair.target.images
    everywhere = []
    for pool, own in zip(pair.target_pools, labels, strict=True):
        whole = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        whole[pool] = own
        everywhere.append(whole)
    parts = [
        _parts(pool, seed, held_out)
        for pool, seed in zip(pair.target_pools, pair.seeds, strict=True)
    ]
    return dataclasses.replace(
        pair,
        source=Labelled(images, everywhere[0]),
        own_labels=everywhere,
        source_pools=[kept for kept, _ in parts],
        held_out_pools=[held for _, held in parts],
        target=Unlabelled(pair.source.images),
        target_pools=pair.source_pools,
    )


def _parts(pool: Tensor, seed: int, held_out: float) -> tuple[Tensor, Tensor]:
    """Places that are trained on, and places that are held out, in rising order."""
    order = random.permutation(random.make_key(seed, "reverse validation"), len(pool))
    order = order.to(pool.device)
    count = min(round(held_out * len(pool)), len(pool) - 1)
    return pool[order[count:].sort().values], pool[order[:count].sort().values]


@torch.no_grad()
def reverse_accuracy(back: Trained, pair: Pair) -> float:
    """Accuracy on the source's held-out samples of what was trained on the way back.

    Args:
        back: trained on `reversed_pair`.
        pair: of the way there.
    """
    places = pair.held_out_pools[back.data.place]
    labels = pair.source.labels[places]
    return fraction(back.target_scores(pair.source.images[places]).argmax(-1) == labels)
