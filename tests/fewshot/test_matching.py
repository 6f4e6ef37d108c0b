"""Matching networks: the attention by a plain loop."""

import math

import pytest
import torch
from small_episodes import (
    F64,
    assert_maps,
    assert_stack_equals_runs,
    assert_symmetric,
    close,
    episodes,
    features,
)
from torch import nn

from tlresearch.backbones.mlp import MLP
from tlresearch.fewshot.matching import MatchingNetwork, log_attention_by_class

NOTHING = nn.Identity()


def probability(query, support, scale: float):
    """P(ŷ | x̂, S) of eq. (1) for one query, term by term; lists of numbers."""

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    weight = [[math.exp(scale * cosine(query, shot)) for shot in shots] for shots in support]
    total = sum(sum(row) for row in weight)
    return [sum(row) / total for row in weight]


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_equals_a_loop_over_the_support(scale):
    support, query = features()
    found = MatchingNetwork(scale=scale).compare(NOTHING, {}, support, query).exp()
    expected = [probability(q, support.tolist(), scale) for q in query.tolist()]
    close(found, torch.tensor(expected, dtype=F64))


def test_loss_is_minus_the_log_of_the_classes_attention():
    """Mean over episodes and queries, with features that are the pixels."""
    batch = episodes(count=2, ways=3, shots=2, queries=2)
    pixels = MatchingNetwork().networks(MLP(hidden=()), (1, 4, 4), 3, seed=0)
    logs = []
    for episode in range(2):
        support = batch.support_x[episode].flatten(2).tolist()
        for label in range(3):
            for query in batch.query_x[episode, label].flatten(1).tolist():
                logs.append(math.log(probability(query, support, 1.0)[label]))
    loss = MatchingNetwork().loss(pixels, {}, batch).total
    close(loss, torch.tensor(-sum(logs) / 12, dtype=F64))


def test_finite_and_exact_at_similarities_of_500():
    """One shot at 500, all others at −500: log P is 0, and −1000 + log 2 for the other class."""
    similarity = torch.full((1, 2, 2), -500.0)
    similarity[0, 0, 1] = 500.0
    similarity.requires_grad_()
    found = log_attention_by_class(similarity)
    torch.testing.assert_close(found, torch.tensor([[0.0, -1000.0 + math.log(2)]]))
    (slope,) = torch.autograd.grad(found.sum(), similarity)
    assert slope.isfinite().all()


def test_symmetries():
    """Also: the length of a feature vector does not matter."""
    method = MatchingNetwork(scale=3.0)
    support, query = features()
    assert_symmetric(lambda s, q: method.compare(NOTHING, {}, s, q), support, query)
    scores = method.compare(NOTHING, {}, support, query)
    close(method.compare(NOTHING, {}, 9 * support, query / 7), scores)


def test_maps_over_episodes():
    assert_maps(MatchingNetwork(), NOTHING, {})


def test_stack_equals_separate_runs():
    assert_stack_equals_runs(MatchingNetwork(), MLP(hidden=(6,), norm="batch"), episodes)
