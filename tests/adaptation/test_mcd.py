"""MCD as a plain loop with three optimisers would train it."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_domains import (
    NOISY,
    PLAIN,
    TRAIN,
    assert_differs_from_source_only,
    assert_stack_equals_runs,
    domain_batch,
    prepare,
    stacked,
    trained,
    weights,
)

from tlresearch.adaptation.mcd import MCD, discrepancy
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.backbones.mlp import MLP
from tlresearch.training.loop import fit

F64 = torch.float64
OPTIMISERS = {
    "adam": (
        replace(TRAIN, optimizer="adam", lr=0.01, momentum=0.0, weight_decay=0.01),
        lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01, foreach=False),
    ),
    "sgd": (TRAIN, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, foreach=False)),
}


def test_the_discrepancy_by_hand():
    """Probabilities (½, ½) and (¾, ¼), (1, 0) and (0, 1): mean of ¼, ¼, 1, 1 is ⅝."""
    first = torch.tensor([[0.0, 0.0], [99.0, 0.0]], dtype=F64)
    second = torch.tensor([[3.0, 1.0], [1.0, 1e40]], dtype=F64).log()
    torch.testing.assert_close(discrepancy(first, second).item(), 0.625, atol=1e-12, rtol=0)
    assert discrepancy(first, first) == 0


def by_hand(networks: Any, make, steps: int, repeats: int) -> None:
    """Saito et al., section 3.3, with an optimiser for backbone and each classifier."""
    parts = [networks.backbone, networks.head, networks.second]
    optimizers = [make(part.parameters()) for part in parts]

    def step(loss, which) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for place in which:
            optimizers[place].step()

    def outputs(x):
        z = networks.backbone(x)
        return networks.head(z), networks.second(z)

    def supervised(batch):
        return sum(F.cross_entropy(q, batch.source_y) for q in outputs(batch.source_x))

    def apart(batch):
        first, second = outputs(batch.target_x)
        return (first.softmax(1) - second.softmax(1)).abs().mean()

    for number in range(steps):
        batch = domain_batch(0, number)
        step(supervised(batch), [0, 1, 2])
        step(supervised(batch) - apart(batch), [1, 2])
        for _ in range(repeats):
            step(apart(batch), [0])


@pytest.mark.parametrize("backbone", [PLAIN, MLP(hidden=(6,), norm="batch")], ids=["plain", "norm"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_it_is_the_plain_loop(name, backbone):
    """Weights, and running statistics with passes of their own, to 1e-10 after five steps."""
    train, make = OPTIMISERS[name]
    method = MCD(backbone_steps=3)
    networks = copy.deepcopy(prepare(method, backbone, [0], train).stack.module).train()
    by_hand(networks, make, train.steps, 3)
    found = weights(trained(method, backbone, [0], train))
    for key, value in networks.state_dict().items():
        torch.testing.assert_close(found[key], value, atol=1e-10, rtol=0, msg=key)


def test_the_classifiers_differ_and_the_first_is_that_of_source_only():
    """At the start, with and without hidden layers in them."""
    for hidden in ((), (4,)):
        networks = MCD(head=hidden).networks(PLAIN, (1, 4, 4), 3, 0)
        plain = SourceOnly(head=hidden).networks(PLAIN, (1, 4, 4), 3, 0)
        first, second = networks.head.state_dict(), networks.second.state_dict()
        assert first.keys() == second.keys()
        for name, value in plain.head.state_dict().items():
            assert torch.equal(first[name], value)
            assert not torch.equal(second[name], value)


def test_a_sample_is_predicted_by_both():
    networks, x = MCD().networks(PLAIN, (1, 4, 4), 3, 0).double(), domain_batch().target_x
    z = networks.backbone(x)
    expected = (networks.head(z) + networks.second(z)) / 2
    torch.testing.assert_close(MCD().predict(networks, {}, x, None), expected)


@pytest.mark.parametrize("batch_norm", ["joint", "separate", "domain_specific"])
def test_a_stack_is_separate_runs(batch_norm):
    assert_stack_equals_runs(MCD(backbone_steps=2, batch_norm=batch_norm), NOISY)


def test_it_differs_from_source_only():
    assert_differs_from_source_only(MCD())


def test_the_terms_of_a_step():
    """What the log is told: each phase's own."""
    seen = []

    class Watcher:
        def after_step(self, step, loss) -> None:
            seen.append(loss)

    training = prepare(MCD(), PLAIN, [0])
    fit(training, stacked([0], domain_batch), 2, observer=Watcher())
    assert list(seen[0].terms) == ["cross_entropy", "disagreement", "discrepancy"]
    assert seen[0].total == seen[0].terms["cross_entropy"]
    assert training.steps == [2]
