"""Soft k-means prototypes: a round by hand and by a plain loop."""

import math

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
from tlresearch.fewshot.protonet import PrototypicalNetwork
from tlresearch.fewshot.soft_kmeans import SoftKMeans, refine

NOTHING = nn.Identity()
BACKBONE = MLP(hidden=(6,), norm="batch")


def test_one_round_worked_by_hand():
    """On a line: shots at 0 and 2, queries at 0 and 1. The query at 1 is shared equally; that at 0
    belongs to the first class with s = 1 / (1 + e⁻⁴). So p̃₀ = ½ / (1 + s + ½) and
    p̃₁ = (2 + ½) / (1 + (1 − s) + ½)."""
    support = torch.tensor([[[0.0]], [[2.0]]], dtype=F64)
    query = torch.tensor([[0.0], [1.0]], dtype=F64)
    s = 1 / (1 + math.exp(-4))
    expected = torch.tensor([[0.5 / (1.5 + s)], [2.5 / (2.5 - s)]], dtype=F64)
    close(refine(support[:, 0], support, query), expected)
    close(SoftKMeans().compare(NOTHING, {}, support, query), -((query - expected.T) ** 2))


def looped(support: torch.Tensor, query: torch.Tensor, rounds: int) -> torch.Tensor:
    prototypes = [sum(shots) / len(shots) for shots in support]
    for _ in range(rounds):
        weight = []
        for x in query:
            odds = [torch.exp(-((x - p) ** 2).sum()) for p in prototypes]
            weight.append([o / sum(odds) for o in odds])
        prototypes = [
            (sum(shots) + sum(w[c] * x for w, x in zip(weight, query, strict=True)))
            / (len(shots) + sum(w[c] for w in weight))
            for c, shots in enumerate(support)
        ]
    return torch.stack([torch.stack([-((x - p) ** 2).sum() for p in prototypes]) for x in query])


def test_rounds_equal_a_loop():
    support, query = features(ways=3, shots=2, queries=6)
    for rounds in (0, 1, 3):
        found = SoftKMeans(rounds=rounds).compare(NOTHING, {}, support, query)
        close(found, looped(support, query, rounds))


def test_trains_as_prototypical_networks_do():
    """The same loss, whatever the rounds; without rounds the same scores."""
    plain = PrototypicalNetwork()
    net = plain.networks(BACKBONE, (1, 4, 4), 3, seed=0).double()
    batch = episodes()
    expected = plain.loss(net, {}, batch).total
    for rounds in (0, 5):
        assert torch.equal(SoftKMeans(rounds=rounds).loss(net, {}, batch).total, expected)
    scores = [m.compare(net, {}, *features()) for m in (SoftKMeans(rounds=0), plain)]
    assert torch.equal(*scores)


def test_says_that_it_looks_at_all_queries():
    """And it does: a query's scores change with the others."""
    assert "transductive" in SoftKMeans().notes()["inference"]
    support, query = features()
    together = SoftKMeans().compare(NOTHING, {}, support, query)
    alone = SoftKMeans().compare(NOTHING, {}, support, query[:1])
    assert not torch.allclose(together[:1], alone)


def test_finite_with_features_of_500():
    support, query = (500 * x.float().sign() for x in features())
    assert SoftKMeans(rounds=3).compare(NOTHING, {}, support, query).isfinite().all()


def test_symmetries():
    assert_symmetric(lambda s, q: SoftKMeans().compare(NOTHING, {}, s, q), *features())


def test_maps_over_episodes():
    assert_maps(SoftKMeans(rounds=2), NOTHING, {})


def test_stack_equals_separate_runs():
    assert_stack_equals_runs(SoftKMeans(), BACKBONE, episodes)
