"""SHOT: smoothed source, frozen classifier, information maximisation, no source afterwards."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from small_domains import (
    CLASSES,
    F64,
    NOISY,
    SHAPE,
    TRAIN,
    assert_stack_equals_runs,
    domain_batch,
    prepare,
    stacked,
    weights,
)
from small_rounds import BACKBONE, Bench, same_bits
from torch import Tensor

from tlresearch.adaptation.batches import SeedData
from tlresearch.adaptation.shot import SHOT, WeightNormLinear, smoothed_cross_entropy
from tlresearch.training.loop import fit
from tlresearch.training.settings import Train

SMALL = SHOT(rounds=2, bottleneck=6)


@pytest.fixture
def bench(monkeypatch, tmp_path):
    return Bench(monkeypatch, tmp_path)


def target_only(seed: int, step: int):
    return domain_batch(seed, step, source=0, target=8, labels="hard")


def test_smoothed_labels_by_hand():
    z, y = torch.randn(4, 3, dtype=F64), torch.tensor([0, 2, 1, 1])
    q = 0.9 * torch.eye(3, dtype=F64)[y] + 0.1 / 3
    expected = -(q * z.log_softmax(-1)).sum(1).mean()
    torch.testing.assert_close(smoothed_cross_entropy(z, y, 0.1), expected)
    plain = torch.nn.functional.cross_entropy(z, y)
    torch.testing.assert_close(smoothed_cross_entropy(z, y, 0.0), plain)


def test_weight_norm_is_torchs():
    ours = WeightNormLinear(5, 3).double()
    plain = torch.nn.Linear(5, 3).double()
    theirs = torch.nn.utils.parametrizations.weight_norm(plain)
    named = dict(theirs.named_parameters())
    with torch.no_grad():
        ours.length.mul_(torch.tensor([2.0, 0.5, 1.0]))
        named["parametrizations.weight.original0"].copy_(ours.length.unsqueeze(1))
        named["parametrizations.weight.original1"].copy_(ours.direction)
        named["bias"].copy_(ours.bias)
    x = torch.randn(4, 5, dtype=F64)
    torch.testing.assert_close(ours(x), theirs(x))
    fresh = WeightNormLinear(5, 3).double()
    torch.testing.assert_close(fresh(x), x @ fresh.direction.mT)


def test_the_paper_s_layers_are_the_default():
    networks = SHOT().networks(NOISY, SHAPE, CLASSES, 0)
    assert isinstance(networks.head, WeightNormLinear) and networks.head.direction.shape == (3, 256)
    assert networks.features(torch.rand(4, *SHAPE)).shape == (4, 256)
    bare = SHOT(bottleneck=None, weight_norm=False).networks(NOISY, SHAPE, CLASSES, 0)
    assert bare.head.weight.shape == (3, 8) and bare.features(torch.rand(4, *SHAPE)).shape == (4, 8)


def test_the_target_s_loss_is_eq_7():
    """By loops: mean entropy − entropy of the mean + β · cross-entropy."""
    networks = SMALL.networks(NOISY, SHAPE, CLASSES, 0).double().eval()
    batch = target_only(0, 0)
    loss = replace(SMALL, pseudo=0.7, entropy=1.5, diversity=0.5).loss(networks, {}, batch)
    p = networks(batch.target_x).softmax(-1).tolist()
    mean = [sum(row[k] for row in p) / 8 for k in range(CLASSES)]
    entropy = -sum(q * math.log(q) for row in p for q in row) / 8
    spread = -sum(q * math.log(q) for q in mean)
    assert batch.target_y is not None
    labels = -sum(math.log(row[y]) for row, y in zip(p, batch.target_y.tolist(), strict=True)) / 8
    assert loss.total.item() == pytest.approx(1.5 * entropy - 0.5 * spread + 0.7 * labels)


@pytest.mark.parametrize("weight_norm", [True, False])
@pytest.mark.parametrize("seeds", [[0], [0, 1]])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_classifier_is_frozen_to_the_byte(bench, weight_norm, seeds, optimizer):
    """Neither momentum nor weight decay moves it once the source's round is over."""
    method = replace(SMALL, weight_norm=weight_norm)
    more = {"optimizer": optimizer, "weight_decay": 0.1, "seeds": seeds}
    more |= {"momentum": 0.9} if optimizer == "sgd" else {}
    adapted = bench.run(method, **more)
    before = bench.run(replace(method, rounds=1, round_steps=1), **more)
    for one, other in zip(adapted, before, strict=True):
        names = [name for name in one.weights if name.startswith("head.")]
        assert len(names) == (3 if weight_norm else 2)
        assert all(torch.equal(one.weights[n], other.weights[n]) for n in names)
        moved = [n for n in one.weights if n.startswith(("backbone.", "bottleneck."))]
        assert not any(torch.equal(one.weights[n], other.weights[n]) for n in moved)


def test_the_classifier_does_learn_from_the_source(bench):
    (one,) = bench.run(replace(SMALL, rounds=1, round_steps=1))
    first = SMALL.networks(BACKBONE, SHAPE, CLASSES, 0).double().state_dict()
    assert not any(torch.equal(one.weights[n], first[n]) for n in first if n.startswith("head."))


@pytest.mark.parametrize("checkpoint", ["last", "selected"])
def test_no_source_sample_is_touched_in_the_target_s_rounds(bench, monkeypatch, checkpoint):
    """Source images and labels become NaN and garbage after the first round: the same weights."""
    (sound,) = bench.run(SMALL, checkpoint=checkpoint)
    original = SHOT.before_round

    def spoil(self, networks, state, number, data):
        if number:
            pair = data.pair
            pair.source.images.zero_()
            pair.source.labels.zero_()
            monkeypatch.setattr(SeedData, "source", refuse)
            monkeypatch.setattr(SeedData, "held_out", refuse)
        return original(self, networks, state, number, data)

    def refuse(self):
        raise AssertionError("a sample of the source was asked for")

    monkeypatch.setattr(SHOT, "before_round", spoil)
    # Measuring the source accuracy is the report's affair.
    monkeypatch.setattr("tlresearch.adaptation.protocol.measure", lambda *args: ({}, {}))
    left = bench.domains["left"].train
    kept = left.images.clone(), left.labels.clone()
    (spoilt,) = bench.run(SMALL, checkpoint=checkpoint)
    assert left.labels.unique().tolist() == [0]
    left.images.copy_(kept[0])
    left.labels.copy_(kept[1])
    assert same_bits(sound.weights, spoilt.weights)


def test_labels_are_those_of_the_nearest_centroid(bench):
    """By scipy, from features and predictions in evaluation mode."""
    pair, _ = bench.pair()
    networks = SMALL.networks(NOISY, SHAPE, CLASSES, 0).double().eval()
    with torch.no_grad():
        _, chosen = SMALL.before_round(networks, {}, 1, SeedData(pair, 0, 1))
        x = torch.cat(SeedData(pair, 0, 1).target())
        z, p = networks.features(x).numpy(), networks(x).softmax(-1).numpy()
    labels, share = np.zeros(0), p
    for _ in range(2):
        there = np.flatnonzero(share.sum(0))
        centres = np.stack([np.average(z, 0, share[:, k]) for k in there])
        labels = there[cdist(z, centres, "cosine").argmin(1)]
        share = np.eye(CLASSES)[labels]
    assert chosen is not None and chosen.labels is not None
    assert chosen.labels.tolist() == labels.tolist() and len(chosen.places) == 60


def test_rounds_share_the_steps_of_training():
    parts = SHOT(rounds=3).parts(Train(steps=10))
    assert [(p.steps, p.source, p.target) for p in parts] == [
        (10, True, False), *[(4, False, True)] * 3
    ]  # fmt: skip


@pytest.mark.usefixtures("without_shape_checks")  # of settings: strengths are tensors
def test_a_stack_equals_runs_on_source_and_target():
    assert_stack_equals_runs(SMALL, of_seed=lambda s, t: domain_batch(s, t, target=0))
    fields = {"pseudo": [0.0, 0.3, 2.0], "diversity": [1.0, 0.5, 0.0]}
    assert_stack_equals_runs(SMALL, of_seed=target_only, fields=fields)


def test_target_steps_leave_the_head_without_gradient():
    training = prepare(SMALL, seeds=[0, 1])
    before: list[dict[str, Tensor]] = [weights(training, place) for place in (0, 1)]
    fit(training, stacked([0, 1], target_only), TRAIN.steps)
    for place in (0, 1):
        for name, value in weights(training, place).items():
            assert torch.equal(value, before[place][name]) == name.startswith("head.")


def test_smoothing_makes_the_source_s_round_another(bench):
    plain = SHOT(rounds=1, round_steps=1, smoothing=0.0, bottleneck=None, weight_norm=False)
    ends = {
        smoothing: bench.run(replace(plain, smoothing=smoothing))[0].weights["head.weight"]
        for smoothing in (0.0, 0.1)
    }
    assert not torch.allclose(ends[0.0], ends[0.1])
