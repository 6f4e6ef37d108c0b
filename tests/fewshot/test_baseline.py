"""Baseline: its head by torch's own optimiser in a plain loop."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_episodes import (
    F64,
    assert_maps,
    assert_stack_equals_runs,
    assert_symmetric,
    close,
    episodes,
    features,
    generator,
)
from torch import nn

from tlresearch.backbones.mlp import MLP
from tlresearch.fewshot.baseline import Baseline
from tlresearch.fewshot.heads import HeadTraining
from tlresearch.training.method import Labelled

BACKBONE = MLP(hidden=(6,), norm="batch", dropout=0.5)
NOTHING = nn.Identity()
PLAIN = HeadTraining(steps=7, lr=0.3, momentum=0.0, dampening=0.0, weight_decay=0.0)


def labelled(seed: int) -> Labelled:
    rng = generator(seed)
    x = torch.rand(8, 1, 4, 4, dtype=F64, generator=rng)
    return Labelled(x, torch.randint(3, (8,), generator=rng))


@pytest.mark.parametrize("head", [HeadTraining(), PLAIN], ids=["paper", "plain"])
def test_equals_a_loop_with_torchs_optimiser(head):
    support, query = features()
    net = nn.Linear(5, 3).double()
    net.load_state_dict({"weight": torch.zeros(3, 5), "bias": torch.zeros(3)})
    optimizer = torch.optim.SGD(
        net.parameters(), head.lr, head.momentum, head.dampening, head.weight_decay
    )
    for _ in range(head.steps):
        optimizer.zero_grad()
        F.cross_entropy(net(support.flatten(0, 1)), torch.tensor([0, 0, 1, 1, 2, 2])).backward()
        optimizer.step()
    close(Baseline(head=head).compare(NOTHING, {}, support, query), net(query).detach())


def test_one_step_is_the_finite_difference_of_the_loss():
    """From 0, w = −η ∂L/∂w; L = −(1/n) Σ log softmax by hand."""
    support, query = features()
    step, found = 1e-6, torch.zeros(6, 3, dtype=F64)
    ones = torch.cat([support.flatten(0, 1), torch.ones(6, 1, dtype=F64)], 1)

    def loss(w: torch.Tensor) -> torch.Tensor:
        odds = (ones @ w).exp()
        return -(odds[torch.arange(6), torch.arange(6) // 2] / odds.sum(1)).log().mean()

    for place in range(18):
        nudge = torch.zeros(18, dtype=F64)
        nudge[place] = step
        slope = (loss(nudge.view(6, 3)) - loss(-nudge.view(6, 3))) / (2 * step)
        found.view(-1)[place] = -0.3 * slope
    method = Baseline(head=HeadTraining(steps=1, lr=0.3))
    expected = query @ found[:5] + found[5]
    close(method.compare(NOTHING, {}, support, query), expected, atol=1e-8)


def test_weight_decay_pulls_towards_zero():
    """Its steps: w₁ = −η g₀, w₂ = w₁ − η (g₁ + λ w₁), of a loss whose gradient is constant."""
    head = HeadTraining(steps=2, lr=0.1, momentum=0.0, dampening=0.0, weight_decay=0.5)
    found = head.descend(lambda w: 3 * w["w"], {"w": torch.tensor(0.0, dtype=F64)})
    close(found["w"], torch.tensor(-0.3 - 0.1 * (3 - 0.5 * 0.3), dtype=F64))


def test_trains_a_classifier_of_all_classes():
    """Cross-entropy of the logits of the whole network."""
    method, batch = Baseline(), labelled(0)
    assert method.trains_on == "classes" and method.Batch is Labelled
    net = method.networks(BACKBONE, (1, 4, 4), 7, seed=0).double().eval()
    logits = net(batch.x)
    assert logits.shape == (8, 7)
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    close(method.loss(net, {}, batch).total, -log_p[torch.arange(8), batch.y].mean())


def test_an_episode_changes_nothing_but_its_own_head():
    """Weights and statistics of the network keep their bits, also where gradients are off."""
    method, batch = Baseline(), episodes(count=1)
    net: Any = method.networks(BACKBONE, (1, 4, 4), 3, seed=0).double().eval()
    before = copy.deepcopy(net.state_dict())
    one = type(batch)(batch.support_x[0], batch.query_x[0])
    with torch.no_grad():
        scores = method.predict_episode(net, {}, one)
    assert scores.shape == (1, 6, 3) and not scores.requires_grad
    close(scores, method.predict_episode(net, {}, one).detach())
    support = net.features(one.support_x.flatten(0, 1)).view(3, 2, 6)
    query = net.features(one.query_x.flatten(0, 1))
    close(scores[0], method.compare(net, {}, support, query).detach())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_finite_with_features_of_500():
    support, query = (500 * x.float().sign() for x in features())
    assert Baseline().compare(NOTHING, {}, support, query).isfinite().all()


def test_symmetries():
    assert_symmetric(lambda s, q: Baseline().compare(NOTHING, {}, s, q), *features())


def test_maps_over_episodes():
    assert_maps(Baseline(head=PLAIN), NOTHING, {})


def test_stack_equals_separate_runs():
    backbone = MLP(hidden=(6,), norm="batch")
    assert_stack_equals_runs(Baseline(), backbone, labelled)
