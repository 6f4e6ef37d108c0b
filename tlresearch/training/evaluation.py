"""Accuracy of the networks of a stack."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.training.device import autocast
from tlresearch.training.loop import Training
from tlresearch.training.tree import take

Chunks = Iterable[tuple[Tensor, Tensor, Tensor | None]]
"""(x, y, mask) of one seed, in chunks of any size."""


@torch.no_grad()
def accuracy_per_seed(training: Training, data: Sequence[Chunks]) -> Float[Tensor, " seeds"]:
    """Fraction of samples whose highest score is at their label; float64 (S,).

    Predicts seed by seed, in evaluation mode: forward passes in large chunks gain nothing from
    stacking, and seeds may have test sets of different sizes.

    Args:
        training: networks, method and state; left in evaluation mode.
        data: the samples of each seed.
    """
    training.stack.train(False)
    device = next(iter(training.stack.params.values())).device
    scores = []
    for place, chunks in enumerate(data):
        method, networks = training.one(place)
        state = take(training.state, place)
        correct, count = torch.zeros((), dtype=torch.int64, device=device), 0
        for x, y, mask in chunks:
            with autocast(training.train.precision, device):
                scores_of_classes = method.predict(networks, state, x, mask)
            correct += (scores_of_classes.argmax(-1) == y).sum()
            count += len(y)
        scores.append(correct.double() / count)
    return torch.stack(scores)
