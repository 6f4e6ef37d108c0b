"""The order of rounds: what a seed that is done keeps, and what resumes."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from small_rounds import BACKBONE, CLASSES, TRAIN, Bench, same_bits
from small_runs import lines_of

from tlresearch.adaptation.batches import RoundBatches
from tlresearch.adaptation.method import Chosen, Round
from tlresearch.adaptation.self_training import SelfTraining
from tlresearch.adaptation.shot import SHOT
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.adaptation.tent import TENT
from tlresearch.training import observer


@pytest.fixture
def bench(monkeypatch, tmp_path):
    return Bench(monkeypatch, tmp_path)


WARM = SelfTraining(rounds=2, threshold=0.6, least_change=0.0)
ROUNDS: dict[str, Any] = {
    "warm": WARM,
    "scratch": replace(WARM, start="scratch"),
    "growing soft": replace(WARM, select="growing", labels="soft", calibrate=True),
    "shot": SHOT(rounds=2, bottleneck=6),
    "domain-specific": replace(WARM, batch_norm="domain_specific"),
}


@dataclass(frozen=True)
class Fussy(SelfTraining):
    """Self-training that keeps nothing from a given round on."""

    never: float = 99.0

    def before_round(self, networks, state, number, data):
        state, chosen = super().before_round(networks, state, number, data)
        if chosen is not None and number >= self.never:
            chosen = Chosen(chosen.places[:0], chosen.places[:0], chosen.predicted)
        return state, chosen


def test_a_stack_of_tent_is_its_seeds_one_by_one(bench):
    """Adapted at test time, each seed from its own weights."""
    for seed, ours in enumerate(bench.run(TENT(batch_size=7, rate=0.05), [0, 1, 2])):
        (alone,) = bench.run(TENT(batch_size=7, rate=0.05), [seed])
        (plain,) = bench.run(SourceOnly(), [seed])
        assert ours.metrics == pytest.approx(alone.metrics, abs=1e-9)
        assert ours.metrics["entropy"] != plain.metrics["entropy"]


@pytest.mark.parametrize("name", ROUNDS)
def test_a_stack_is_its_seeds_one_by_one(bench, name):
    """Through all rounds, each seed with its own pseudo-labels: same weights and records."""
    stacked = bench.run(ROUNDS[name], [0, 1, 2], steps=16)
    for seed, ours in enumerate(stacked):
        (alone,) = bench.run(ROUNDS[name], [seed], steps=16)
        assert ours.metrics == pytest.approx(alone.metrics, abs=1e-9)
        assert str(ours.arrays) == str(alone.arrays)
        for key, value in alone.weights.items():
            torch.testing.assert_close(ours.weights[key], value, atol=1e-10, rtol=0, msg=key)
    assert not same_bits(stacked[0].weights, stacked[1].weights)
    assert stacked[0].arrays["pseudo_counts"] != stacked[1].arrays["pseudo_counts"]


@pytest.mark.parametrize("start", ["warm", "scratch"])
@pytest.mark.parametrize("changes", [{}, {"average": 0.5}, {"optimizer": "sgd", "momentum": 0.9}])
def test_a_seed_that_keeps_nothing_ends_beside_others(bench, start, changes):
    """Its weights are those of the round before, the others go on; labels may be soft or hard."""
    method = Fussy(rounds=2, threshold=0.0, least_change=0.0, start=start, labels="soft")
    fields = {"never": [99.0, 2.0, 1.0]}
    stacked = bench.run(method, [0, 1, 2], fields=fields, steps=8, **changes)
    assert ["warning" in one.details for one in stacked] == [False, True, True]
    assert "round 3 of 3 chose no target sample" in stacked[1].details["warning"]
    for seed, never in enumerate(fields["never"]):
        (alone,) = bench.run(replace(method, never=never), [seed], steps=8, **changes)
        for key, value in alone.weights.items():
            torch.testing.assert_close(stacked[seed].weights[key], value, atol=1e-10, rtol=0)
        assert stacked[seed].details.get("warning") == alone.details.get("warning")
    (source,) = bench.run(SourceOnly(), [2], steps=8, **changes)
    assert alone.details["steps"] == 8 and same_bits(alone.weights, source.weights)


@dataclass(frozen=True)
class Fixed(SelfTraining):
    """Pseudo-labels that no model made."""

    def before_round(self, networks, state, number, data):
        places = torch.arange(12)
        return state, Chosen(places, places % CLASSES) if number else None


def test_an_average_begins_with_the_weights_of_its_own_round(bench):
    """After one step from scratch it is d · w₀ + (1 − d) · w₁, w₀ the initial weights."""
    method = Fixed(rounds=1, start="scratch")
    first = method.networks(BACKBONE, (1, 4, 4), CLASSES, 0).double().state_dict()
    end, average = (bench.run(method, steps=1, average=decay)[0].weights for decay in (0.0, 0.75))
    for name in ("head.0.weight", "backbone.layers.0.weight"):
        expected = 0.75 * first[name] + 0.25 * end[name]
        torch.testing.assert_close(average[name], expected, atol=1e-12, rtol=0)
        assert not torch.equal(first[name], end[name])


RESUMED = [("warm", [0]), ("warm", [0, 1]), ("scratch", [0, 1]), ("growing soft", [0]),
           ("shot", [0, 1])]  # fmt: skip


@pytest.mark.parametrize(("name", "seeds"), RESUMED)
def test_a_resumed_run_is_the_run_that_was_not_stopped(bench, name, seeds, monkeypatch):
    """Stopped between rounds 1 and 2, in the middle of round 2, and in the last."""
    monkeypatch.setattr(observer, "LOG_EVERY", 10)
    method = replace(ROUNDS[name], rounds=2, round_steps=40)
    more: dict[str, Any] = {"seeds": seeds, "steps": 40}
    whole, pieces = bench.files("whole"), bench.files("pieces")
    expected = bench.run(method, files=whole, **more)
    for at, place in ((60, (1, 0)), (80, (1, 20)), (120, (2, 20))):
        bench.interrupted(at, pieces, method, **more)
        kept = torch.load(pieces.checkpoint, weights_only=True)["place"]
        assert (kept["round"], kept["step"]) == place
    found = bench.run(method, files=pieces, **more)
    for ours, others in zip(found, expected, strict=True):
        assert same_bits(ours.weights, others.weights)
        assert str(ours.arrays) == str(others.arrays) and ours.metrics == others.metrics
        assert ours.details["steps"] == others.details["steps"] == 120
    assert lines_of(pieces) == lines_of(whole)


def test_a_resumed_run_remembers_who_is_done(bench):
    """One seed keeps nothing before round 2; the run is stopped after that."""
    method = Fussy(rounds=2, threshold=0.0, least_change=0.0)
    more: dict[str, Any] = {"seeds": [0, 1], "steps": 40, "fields": {"never": [99.0, 2.0]}}
    expected = bench.run(method, **more)
    pieces = bench.files("pieces")
    bench.interrupted(100, pieces, method, **more)
    found = bench.run(method, files=pieces, **more)
    for ours, others in zip(found, expected, strict=True):
        assert same_bits(ours.weights, others.weights)
        assert ours.details.get("warning") == others.details.get("warning")
    assert [one.details["steps"] for one in found] == [120, 80]


def test_rounds_draw_batches_of_their_own(bench):
    """The source's batches of two rounds differ; a round's are those of its number and seed."""
    pair, _ = bench.pair()
    train = replace(TRAIN, batch_size=8)
    rows = [RoundBatches(pair, number, Round(4), [None], train).batch(0)[0] for number in (0, 1, 0)]
    same, other, again = (row for row in rows if row is not None)
    assert torch.equal(same, again) and not torch.equal(same, other)


def test_pseudo_labels_follow_their_samples(bench):
    """target_y of a batch is the chosen label of that very input, for seeds of other choices."""
    pair, _ = bench.pair([0, 1])
    chosen = [Chosen(torch.tensor(at), torch.tensor(at) % CLASSES) for at in ([3, 7, 9], [4, 11])]
    batches = RoundBatches(pair, 1, Round(4), chosen, replace(TRAIN, batch_size=5))
    for step in range(4):
        _, _, x, y, _ = batches.batch(step)
        assert x is not None and y is not None
        for seed, one in enumerate(chosen):
            inputs = pair.inputs(pair.target.images[pair.target_pools[seed][one.places]])
            for row, label in zip(x[seed], y[seed], strict=True):
                found = (inputs == row).flatten(1).all(1).nonzero().flatten().tolist()
                assert len(found) == 1, "a sample that was not chosen"
                assert one.labels is not None and label == one.labels[found[0]]


def test_the_log_counts_what_was_kept(bench):
    """Against the labels of the pool, which the journal never saw."""
    (one,) = bench.run(replace(WARM, select="top_k", top_count=4), steps=20)
    log, pool = one.arrays, len(bench.domains["right"].train.labels)
    assert log["pseudo_round"] == [1, 2] and len(log["pseudo_counts"]) == 2
    for kept, counts in zip(log["pseudo_kept"], log["pseudo_counts"], strict=True):
        assert max(counts) <= 4 and kept == sum(counts) / pool
    assert all(0 <= acc <= 1 for acc in log["pseudo_acc"] + log["pseudo_acc_pool"])
    assert log["pseudo_changed"][0] != log["pseudo_changed"][0]
    (blind,) = bench.run(WARM, steps=20, evaluate="selectors")
    assert "pseudo_kept" in blind.arrays and "pseudo_acc" not in blind.arrays
    assert "acc" not in blind.metrics
