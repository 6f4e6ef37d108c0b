"""TENT: scale and shift of norms alone, online, from the trained weights in each call."""

import copy
from dataclasses import replace

import pytest
import torch
from small_domains import CLASSES, F64, NOISY, PLAIN, SHAPE
from small_rounds import Bench, same_bits
from torch import Tensor, nn

from tlresearch.adaptation import tent
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.adaptation.tent import TENT
from tlresearch.errors import UserError
from tlresearch.functional.random import make_key, permutation

COUNT = 21
METHOD = TENT(batch_size=8, rate=0.05)


@pytest.fixture
def bench(monkeypatch, tmp_path):
    return Bench(monkeypatch, tmp_path)


@pytest.fixture
def networks():
    made = METHOD.networks(NOISY, SHAPE, CLASSES, 0).double()
    made.train()(inputs(torch.arange(COUNT)) - 1)
    return made.eval()


def inputs(places: Tensor) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return (2 * torch.randn(COUNT, *SHAPE, dtype=F64, generator=rng) + 1)[places]


def state() -> dict[str, Tensor]:
    return {"order": make_key(0, "tent")}


def entropy(logits: Tensor) -> Tensor:
    p = logits.softmax(-1)
    return -(p * p.log()).sum(-1).mean()


def by_hand(networks: nn.Module, rate: float) -> tuple[Tensor, list[nn.Module]]:
    """Adam by hand in a loop over batches; the networks after each."""
    one = copy.deepcopy(networks).eval()
    norms = [m for m in one.modules() if isinstance(m, nn.BatchNorm1d)]
    moved = [p for m in norms for p in (m.weight, m.bias)]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in moved]
    logits, after = torch.zeros(COUNT, CLASSES, dtype=F64), []
    for t, part in enumerate(permutation(state()["order"], COUNT).split(8), 1):
        for m in norms:
            m.train()
        found = one(inputs(part))
        logits[part] = found.detach()
        gradients = torch.autograd.grad(entropy(found), moved)
        with torch.no_grad():
            for p, g, (m, v) in zip(moved, gradients, moments, strict=True):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                p -= rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        after.append(copy.deepcopy(one))
    return logits, after


def test_a_batch_is_predicted_by_the_weights_at_that_moment(networks):
    """The first with the trained weights and its own statistics, the next after one step."""
    found = METHOD.predict_all(networks, state(), COUNT, inputs)
    expected, _ = by_hand(networks, METHOD.rate)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    first, second, _ = permutation(state()["order"], COUNT).split(8)
    still, _ = by_hand(networks, 0.0)
    torch.testing.assert_close(found[first], still[first], atol=1e-10, rtol=0)
    assert not torch.allclose(found[second], still[second], atol=1e-3)


def test_only_scale_and_shift_of_norms_move(networks, monkeypatch):
    """Of the copy; the networks themselves stay as they were, and each call begins with them."""
    copies, opened = [], tent._open_norms

    def spy(one):
        copies.append(one)
        return opened(one)

    monkeypatch.setattr(tent, "_open_norms", spy)
    before = {name: value.clone() for name, value in networks.state_dict().items()}
    once = METHOD.predict_all(networks, state(), COUNT, inputs)
    again = METHOD.predict_all(networks, state(), COUNT, inputs)
    assert torch.equal(once, again) and not networks.training
    assert same_bits(before, networks.state_dict())
    assert all(p.requires_grad and p.grad is None for p in networks.parameters())
    norms = {f"backbone.layers.{i}.{kind}" for i in (1, 5) for kind in ("weight", "bias")}
    changed = {k for k, p in copies[0].named_parameters() if not torch.equal(p, before[k])}
    assert changed == norms


def test_running_statistics_have_no_part(networks):
    found = METHOD.predict_all(networks, state(), COUNT, inputs)
    for name, buffer in networks.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.add_(3)
    assert torch.equal(METHOD.predict_all(networks, state(), COUNT, inputs), found)


def test_more_steps_make_a_batch_surer(networks):
    values = [
        entropy(replace(METHOD, steps=n).predict_all(networks, state(), COUNT, inputs)).item()
        for n in (1, 5, 20)
    ]
    assert values[0] > values[1] > values[2]


def test_a_last_sample_alone_joins_the_batch_before():
    """A single one has no variance."""
    for count, sizes in ((17, [8, 9]), (18, [8, 8, 2]), (8, [8]), (1, [1])):
        assert [len(part) for part in METHOD._arrivals(torch.arange(count))] == sizes


def test_it_is_handed_nothing_but_inputs(bench):
    """Training is source-only's to the byte; the accuracy is another."""
    adapted, source = (
        bench.run(method, [0, 1]) for method in (replace(METHOD, rate=0.1), SourceOnly())
    )
    for ours, theirs in zip(adapted, source, strict=True):
        assert same_bits(ours.weights, theirs.weights)
        assert ours.metrics["source_acc"] == theirs.metrics["source_acc"]
    assert [one.metrics["acc"] for one in adapted] != [one.metrics["acc"] for one in source]
    (alone,) = bench.run(replace(METHOD, rate=0.1), [1])
    assert alone.metrics == pytest.approx(adapted[1].metrics, abs=1e-9)


def test_a_backbone_without_batch_norm_is_refused():
    with pytest.raises(UserError, match="the backbone has none; choose one that has"):
        METHOD.networks(PLAIN, SHAPE, CLASSES, 0)


def test_a_single_test_sample_is_refused(networks):
    with pytest.raises(UserError, match="tent needs at least 2 test samples"):
        TENT().predict_all(networks, {}, 1, lambda places: torch.zeros(len(places), 1))
