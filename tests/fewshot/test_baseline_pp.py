"""Baseline++: cosines in training and in the test, by plain loops."""

import torch
import torch.nn.functional as F
from small_episodes import (
    F64,
    assert_maps,
    assert_stack_equals_runs,
    assert_symmetric,
    close,
    features,
    generator,
)
from torch import nn

from tlresearch.backbones.mlp import MLP
from tlresearch.fewshot.baseline_pp import BaselinePP
from tlresearch.fewshot.heads import HeadTraining
from tlresearch.training.method import Labelled

BACKBONE = MLP(hidden=(6,), norm="batch")
NOTHING = nn.Identity()


def labelled(seed: int) -> Labelled:
    rng = generator(seed)
    x = torch.rand(8, 1, 4, 4, dtype=F64, generator=rng)
    return Labelled(x, torch.randint(3, (8,), generator=rng))


def cosines(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.stack([a @ b / (a.norm() * b.norm()) for b in w]) for a in x])


def test_head_equals_a_loop_with_torchs_optimiser():
    """From the means of normalised features; 2 is the factor of the authors' code for 5 ways."""
    support, query = features()
    w = torch.stack([torch.stack([x / x.norm() for x in shots]).mean(0) for shots in support])
    w = w.requires_grad_()
    optimizer = torch.optim.SGD([w], 0.01, momentum=0.9, dampening=0.9, weight_decay=1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        logits = 2 * cosines(support.flatten(0, 1), w)
        F.cross_entropy(logits, torch.tensor([0, 0, 1, 1, 2, 2])).backward()
        optimizer.step()
    close(BaselinePP().compare(NOTHING, {}, support, query), 2 * cosines(query, w.detach()))


def test_trains_a_classifier_by_cosines():
    """logits = 10 cos(f(x), w_j), and their cross-entropy."""
    method, batch = BaselinePP(), labelled(0)
    assert method.trains_on == "classes" and method.Batch is Labelled
    net = method.networks(BACKBONE, (1, 4, 4), 4, seed=0).double().eval()
    logits = 10 * cosines(net.features(batch.x), net.head.weight)
    close(10 * net(batch.x), logits)
    odds = logits.exp()
    chosen = odds[torch.arange(8), batch.y] / odds.sum(1)
    close(method.loss(net, {}, batch).total, -chosen.log().mean())


def test_networks_depend_on_the_seed_alone():
    before = torch.random.get_rng_state()
    nets = [BaselinePP().networks(BACKBONE, (1, 4, 4), 4, seed) for seed in (1, 1, 2)]
    assert torch.equal(before, torch.random.get_rng_state())
    first, again, other = (net.head.weight for net in nets)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_lengths_do_not_matter_and_nothing_overflows():
    """Features of length 500 are those of length 1; scores lie within ± the factor."""
    method = BaselinePP(test_scale=500.0, head=HeadTraining(steps=5))
    support, query = features()
    scores = method.compare(NOTHING, {}, support, query)
    close(method.compare(NOTHING, {}, 500 * support, 500 * query), scores, atol=1e-7)
    assert scores.isfinite().all() and (scores.abs() <= 500).all()


def test_symmetries():
    assert_symmetric(lambda s, q: BaselinePP().compare(NOTHING, {}, s, q), *features())


def test_maps_over_episodes():
    assert_maps(BaselinePP(head=HeadTraining(steps=5)), NOTHING, {})


def test_stack_equals_separate_runs():
    assert_stack_equals_runs(BaselinePP(), BACKBONE, labelled)
