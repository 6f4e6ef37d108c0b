"""Prototypical networks: eqs. (1) and (2) by a plain loop, and a published implementation."""

import math

import pytest
import torch
from peers import peer
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

from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.mlp import MLP
from tlresearch.fewshot.protonet import PrototypicalNetwork

NOTHING = nn.Identity()
PIXELS = MLP(hidden=())
KINDS = ["squared", "euclidean", "cosine"]


def distance(kind, z, c):
    """d(z, c) of two lists of numbers."""
    if kind == "cosine":
        dot = sum(a * b for a, b in zip(z, c, strict=True))
        return 1 - dot / (math.hypot(*z) * math.hypot(*c))
    squared = sum((a - b) ** 2 for a, b in zip(z, c, strict=True))
    return squared if kind == "squared" else math.sqrt(squared)


def prototypes_of(support):
    """c_k of eq. (1)."""
    return [[sum(column) / len(shots) for column in zip(*shots, strict=True)] for shots in support]


def probabilities(kind, z, support):
    """p(y = k | x) of eq. (2)."""
    weights = [math.exp(-distance(kind, z, c)) for c in prototypes_of(support)]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shots", [1, 3])
def test_equals_a_loop(kind, shots):
    support, query = features(shots=shots)
    found = PrototypicalNetwork(distance=kind).compare(NOTHING, {}, support, query).softmax(1)
    expected = [probabilities(kind, q, support.tolist()) for q in query.tolist()]
    close(found, torch.tensor(expected, dtype=F64), atol=1e-7)


def test_the_distance_is_squared_by_default():
    """One prototype 3 away and one 1 away: scores −9 and −1."""
    support = torch.tensor([[[3.0]], [[-1.0]]], dtype=F64)
    query = torch.zeros(1, 1, dtype=F64)
    scores = PrototypicalNetwork().compare(NOTHING, {}, support, query)
    assert scores.tolist() == [[-9.0, -1.0]]
    rooted = PrototypicalNetwork(distance="euclidean").compare(NOTHING, {}, support, query)
    close(rooted, torch.tensor([[-3.0, -1.0]], dtype=F64), atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_the_mean_cross_entropy_over_queries_and_episodes(kind):
    """With features that are the pixels; and the accuracy that the log shows."""
    batch = episodes(count=3, ways=3, shots=2, queries=2)
    networks = PrototypicalNetwork().networks(PIXELS, (1, 4, 4), 3, seed=0)
    logs, right = [], []
    for support, query in zip(batch.support_x, batch.query_x, strict=True):
        for label in range(3):
            for z in query[label].flatten(1).tolist():
                p = probabilities(kind, z, support.flatten(2).tolist())
                logs.append(math.log(p[label]))
                right.append(max(range(3), key=p.__getitem__) == label)
    loss = PrototypicalNetwork(distance=kind).loss(networks, {}, batch)
    close(loss.total, torch.tensor(-sum(logs) / 18, dtype=F64), atol=1e-7)
    assert loss.terms["accuracy"].item() == pytest.approx(sum(right) / 18)


def test_prediction_is_the_comparison_of_one_episode():
    """Queries class by class, in evaluation mode, one row."""
    batch = episodes(count=1, ways=3, shots=2, queries=2)
    method = PrototypicalNetwork()
    networks = method.networks(MLP(hidden=(6,), norm="batch"), (1, 4, 4), 3, seed=0).double()
    one = batch.take(0)
    found = method.predict_episode(networks.eval(), {}, one)
    embedded = [networks(one.support_x[k]) for k in range(3)]
    expected = method.compare(
        networks, {}, torch.stack(embedded), networks(one.query_x.flatten(0, 1))
    )
    assert found.shape == (1, 6, 3)
    close(found[0], expected)


@pytest.mark.parametrize("kind", ["squared", "cosine"])
def test_agrees_with_learn2learn(kind):
    """Whose `euclidean` is the squared distance, and whose cosine is not one minus."""
    theirs = peer("learn2learn").nn.PrototypicalClassifier
    support, query = features(ways=4, shots=3, queries=7)
    name = {"squared": "euclidean", "cosine": "cosine"}[kind]
    model = theirs(support.flatten(0, 1), torch.arange(12) // 3, distance=name)
    scores = PrototypicalNetwork(distance=kind).compare(NOTHING, {}, support, query)
    close(scores.log_softmax(1), model(query).log_softmax(1), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_symmetries(kind):
    method = PrototypicalNetwork(distance=kind)
    support, query = features()
    assert_symmetric(lambda s, q: method.compare(NOTHING, {}, s, q), support, query)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_over_episodes(kind):
    assert_maps(PrototypicalNetwork(distance=kind), NOTHING, {})


@pytest.mark.parametrize(
    ("backbone", "shape"),
    [(MLP(hidden=(6,), norm="batch"), (1, 4, 4)), (Conv4(channels=3), (1, 16, 16))],
    ids=["mlp", "conv4"],
)
def test_stack_equals_separate_runs(backbone, shape):
    method = PrototypicalNetwork()
    assert_stack_equals_runs(
        method, backbone, lambda seed: episodes(seed, shape=shape), shape=shape
    )


def test_one_shot_prototypes_are_the_shots():
    """The limit of one shot: a query that is a shot is at distance 0 of its class alone."""
    support, _ = features(shots=1)
    scores = PrototypicalNetwork().compare(NOTHING, {}, support, support[:, 0])
    assert scores.argmax(1).tolist() == [0, 1, 2] and scores.diagonal().abs().max() < 1e-12
