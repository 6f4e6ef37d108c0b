"""Self-training: what is kept, labelled and trained on, and when it ends."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from small_domains import (
    NOISY,
    PLAIN,
    assert_differs_from_source_only,
    assert_stack_equals_runs,
    domain_batch,
)
from small_rounds import BACKBONE, Bench, same_bits
from torch import Tensor

from tlresearch.adaptation.checks import check
from tlresearch.adaptation.dann import DANN
from tlresearch.adaptation.method import Chosen
from tlresearch.adaptation.networks import AdaptedClassifier
from tlresearch.adaptation.self_training import SelfTraining, soft_cross_entropy
from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.errors import UserError
from tlresearch.functional.calibration import best_temperature
from tlresearch.training.settings import Train

F64 = torch.float64
SHAPE, CLASSES = (1, 4, 4), 3


@pytest.fixture
def bench(monkeypatch, tmp_path):
    return Bench(monkeypatch, tmp_path)


@dataclass
class Data:
    """A `DomainData` of noise."""

    before: Chosen | None = None
    count: int = 40
    asked: int = 0

    def _x(self, seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        return 2 * torch.randn(self.count, *SHAPE, dtype=F64, generator=rng)

    def target(self) -> list[Tensor]:
        self.asked += 1
        return list(self._x(1).split(15))

    def source(self) -> list[tuple[Tensor, Tensor]]:
        raise AssertionError("no pseudo-label depends on the source's training samples")

    def held_out(self) -> list[tuple[Tensor, Tensor]]:
        y = torch.randint(CLASSES, (self.count,), generator=torch.Generator().manual_seed(3))
        return list(zip(self._x(2).split(15), y.split(15), strict=True))

    def previous(self) -> Chosen | None:
        return self.before

    def key(self, purpose: str) -> Tensor:
        raise AssertionError("nothing is drawn")


def networks(backbone: Any = NOISY) -> AdaptedClassifier:
    made = SelfTraining().networks(backbone, SHAPE, CLASSES, 0).double()
    with torch.no_grad():
        made.get_parameter("head.0.weight").mul_(6)  # so that some predictions are sure
        made.train()(Data()._x(5))  # running statistics that are no longer 0 and 1
    return made.eval()


def choose(method: SelfTraining, number: int = 1, **data: Any) -> Chosen:
    with torch.no_grad():
        _, chosen = method.before_round(networks(), {}, number, Data(**data))
    assert chosen is not None
    return chosen


@torch.no_grad()
def probabilities(temperature: float = 1.0) -> Tensor:
    """Sample by sample, in evaluation mode."""
    made, x = networks(), torch.cat(Data().target())
    return torch.cat([(made(row.unsqueeze(0)) / temperature).softmax(-1) for row in x])


def test_the_first_round_is_the_source_alone():
    assert SelfTraining().before_round(networks(), {}, 0, Data()) == ({}, None)
    train = Train(steps=7)
    first, *later = SelfTraining(rounds=3).parts(train)
    assert (first.steps, first.source, first.target, first.fresh) == (7, True, False, False)
    assert [(r.steps, r.source, r.target, r.fresh) for r in later] == [(7, True, True, False)] * 3
    scratch = SelfTraining(rounds=2, round_steps=4, start="scratch").parts(train)
    assert [(r.steps, r.fresh) for r in scratch] == [(7, False), (4, True), (4, True)]


def test_the_whole_pool_is_predicted_in_evaluation_mode():
    """As sample by sample: neither a batch's statistics nor a mask has a part in it."""
    chosen, p = choose(SelfTraining(threshold=0.0)), probabilities()
    assert chosen.places.tolist() == list(range(40))
    assert chosen.predicted is not None and torch.equal(chosen.predicted, p.argmax(1))
    assert chosen.labels is not None and torch.equal(chosen.predicted, chosen.labels)


def test_a_threshold_keeps_the_sure_ones():
    p = probabilities()
    confident = [i for i in range(40) if max(p[i].tolist()) > 0.7]
    assert 0 < len(confident) < 40
    assert choose(SelfTraining(threshold=0.7)).places.tolist() == confident
    empty = choose(SelfTraining(threshold=1.0))
    assert len(empty.places) == 0 and not empty.settled


@pytest.mark.parametrize(("count", "share"), [(None, 0.3), (2, 0.3), (100, 0.3)])
def test_top_k_is_per_predicted_class(count, share):
    method = SelfTraining(select="top_k", top_count=count, top_fraction=share)
    p, chosen, expected = probabilities(), choose(method), []
    for label in range(CLASSES):
        members = [i for i in range(40) if p[i].argmax() == label]
        members.sort(key=lambda i: -p[i].max().item())
        expected += members[: count or math.ceil(share * len(members))]
    assert chosen.places.tolist() == sorted(expected)


def test_a_growing_fraction_grows():
    method = SelfTraining(select="growing", rounds=3, first=0.25, last=0.75)
    sizes = p = probabilities().argmax(1).bincount(minlength=CLASSES)
    for number, share in ((1, 0.25), (2, 0.5), (3, 0.75)):
        chosen = choose(method, number)
        counts = p.new_tensor([math.ceil(share * n) for n in sizes.tolist()])
        assert chosen.labels is not None
        assert torch.equal(chosen.labels.bincount(minlength=CLASSES), counts)
    whole = choose(replace(method, balanced=False), 1)
    order = probabilities().amax(1).argsort(descending=True)
    assert whole.places.tolist() == sorted(order[:10].tolist())


def test_soft_labels_are_the_probabilities():
    chosen = choose(SelfTraining(threshold=0.6, labels="soft"))
    torch.testing.assert_close(chosen.labels, probabilities()[chosen.places], atol=1e-12, rtol=0)


def test_a_calibrated_confidence_is_at_the_source_s_temperature():
    with torch.no_grad():
        x, y = (torch.cat(column) for column in zip(*Data().held_out(), strict=True))
        temperature = best_temperature(networks()(x), y).item()
    assert temperature > 1.5  # the noise has no labels to be sure of
    chosen = choose(SelfTraining(threshold=0.5, calibrate=True, labels="soft"))
    p = probabilities(temperature)
    assert chosen.places.tolist() == (p.amax(1) > 0.5).nonzero().flatten().tolist()
    torch.testing.assert_close(chosen.labels, p[chosen.places], atol=1e-12, rtol=0)


def test_it_is_over_when_hardly_a_label_changes():
    predicted = probabilities().argmax(1)
    for changed, least, settled in ((0, 0.005, True), (1, 0.025, False), (1, 0.026, True)):
        before = predicted.clone()
        before[:changed] = (before[:changed] + 1) % CLASSES
        method = SelfTraining(threshold=0.0, least_change=least)
        chosen = choose(method, 2, before=Chosen(predicted[:3], predicted[:3], before))
        assert chosen.settled == settled and len(chosen.places) == (0 if settled else 40)


def test_a_settled_run_ends_without_a_warning(bench):
    """Without steps of any size no label changes, so the first round of labels is the last."""
    more: dict[str, Any] = {"lr": 1e-12, "backbone": PLAIN}
    (one,) = bench.run(SelfTraining(rounds=4, threshold=0.0), **more)
    assert one.details["ended"] == "settled before round 3 of 5"
    assert one.details["steps"] == 20 and "warning" not in one.details
    assert one.arrays["pseudo_changed"][1:] == [0.0] and one.arrays["pseudo_kept"] == [1.0, 0.0]
    (other,) = bench.run(SelfTraining(rounds=1, threshold=0.0), **more)
    assert same_bits(one.weights, other.weights)


@pytest.mark.parametrize("start", ["warm", "scratch"])
@pytest.mark.parametrize("stack", [[0], [0, 1]])
def test_an_impossible_threshold_returns_the_last_model_with_a_warning(bench, start, stack):
    found = bench.run(SelfTraining(threshold=1.0, start=start), stack)
    plain = bench.run(SourceOnly(), stack)
    for one, source in zip(found, plain, strict=True):
        assert one.status == "finished" and one.metrics == source.metrics
        assert same_bits(one.weights, source.weights)
        assert "round 2 of 6 chose no target sample" in one.details["warning"]
        assert one.details["steps"] == 10
        assert one.arrays["pseudo_kept"] == [0.0]


def test_pseudo_labels_are_made_anew_in_each_round(bench, monkeypatch):
    """Each round's are those of the model at that time, for the whole pool."""
    seen = []
    original = SelfTraining.before_round

    def spy(self, networks, state, number, data):
        found = original(self, networks, state, number, data)
        if number:
            p = torch.cat([networks(x) for x in data.target()])
            assert not networks.training
            seen.append((p.argmax(1), found[1]))
        return found

    monkeypatch.setattr(SelfTraining, "before_round", spy)
    bench.run(SelfTraining(rounds=3, threshold=0.4, least_change=0.0), lr=0.1)
    assert len(seen) == 3
    for fresh, chosen in seen:
        assert torch.equal(chosen.predicted, fresh) and len(fresh) == 60
        assert torch.equal(chosen.labels, fresh[chosen.places])
    assert not torch.equal(seen[0][0], seen[1][0])


def test_warm_goes_on_and_scratch_begins_anew(bench):
    """A round of one step is near the end of the source's round, or near the initial weights."""
    first = SelfTraining().networks(BACKBONE, SHAPE, CLASSES, 0).double().state_dict()
    (source,) = bench.run(SourceOnly())
    method = SelfTraining(rounds=1, threshold=0.0, round_steps=1)
    (warm,), (scratch,) = bench.run(method), bench.run(replace(method, start="scratch"))
    name = "head.0.weight"
    # One step of Adam moves a weight by at most about its rate.
    assert (warm.weights[name] - source.weights[name]).abs().max() < 0.021 * 2
    assert (scratch.weights[name] - first[name]).abs().max() < 0.021
    assert (source.weights[name] - first[name]).abs().max() > 0.05
    counted = scratch.weights["backbone.layers.1.num_batches_tracked"].item()
    assert (counted, warm.weights["backbone.layers.1.num_batches_tracked"].item()) == (1, 11)


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_half_of_the_loss_is_the_source_s(labels):
    """½ (mean over source + mean over target), by loops; a round without labels: the source's."""
    batch = domain_batch(labels=labels, source=8, target=6)
    made = networks(PLAIN)
    loss = SelfTraining().loss(made, {}, batch)
    log_p = [made(x).log_softmax(-1) for x in (batch.source_x, batch.target_x)]
    source = -sum(log_p[0][i, y] for i, y in enumerate(batch.source_y)) / 8
    assert batch.target_y is not None
    if labels == "hard":
        target = -sum(log_p[1][i, y] for i, y in enumerate(batch.target_y)) / 6
    else:
        target = -sum((p * log_p[1][i]).sum() for i, p in enumerate(batch.target_y)) / 6
    torch.testing.assert_close(loss.total, 0.5 * (source + target))
    alone = SelfTraining().loss(made, {}, domain_batch(target=0))
    torch.testing.assert_close(alone.total, source)


def test_soft_labels_that_are_sure_are_hard_ones():
    z = torch.randn(5, 3, dtype=F64)
    y = torch.tensor([0, 2, 1, 1, 0])
    hard = torch.nn.functional.cross_entropy(z, y)
    torch.testing.assert_close(soft_cross_entropy(z, torch.eye(3, dtype=F64)[y]), hard)


@pytest.mark.parametrize("labels", ["hard", "soft"])
@pytest.mark.parametrize("batch_norm", ["joint", "separate"])
def test_a_stack_equals_runs(labels, batch_norm):
    method = SelfTraining(batch_norm=batch_norm)
    assert_stack_equals_runs(method, of_seed=lambda s, t: domain_batch(s, t, labels=labels))


def test_it_is_not_source_only():
    assert_differs_from_source_only(
        SelfTraining(), of_seed=lambda s, t: domain_batch(s, t, labels="hard")
    )


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (SelfTraining(top_count=3), "methods.x.top_count: select 'threshold' does not use it"),
        (
            SelfTraining(select="growing", threshold=0.5),
            "methods.x.threshold: select 'growing'",
        ),
        (SelfTraining(first=0.1), "methods.x.first: select 'threshold' does not use it"),
        (SelfTraining(select="top_k", balanced=False), "methods.x.balanced: select 'top_k' does"),
        (
            SelfTraining(select="top_k", top_count=3, top_fraction=0.2),
            "methods.x.top_fraction: ",
        ),
        (SelfTraining(select="growing", rounds=1, first=0.4), "methods.x.first: with one round"),
        (DANN(discriminator=(), dropout=0.5), "methods.x.dropout: a linear discriminator has no"),
        (SelfTraining(select="growing", first=0.5, last=0.4), "methods.x.last: 0.4 is below first"),
        (SelfTraining(calibrate=True), "methods.x.calibrate: it needs a held-out part"),
    ],
)
def test_contradictions_are_refused(method, sentence):
    benchmark = AdaptationSettings("optdigits", "mnist5k", validation=0.0)
    with pytest.raises(UserError) as caught:
        check(benchmark, method, "x", Train())
    assert str(caught.value).startswith(sentence)


def test_norms_of_each_domain_learn_from_their_own(bench):
    """The source's from the first round on; the target's begin with what the source's learned."""
    alone, held_out = SourceOnly(), {"steps": 20, "seeds": [0, 1]}
    method = SelfTraining(rounds=1, threshold=1.0, batch_norm="domain_specific")
    for ours, plain in zip(
        bench.run(method, **held_out), bench.run(alone, **held_out), strict=True
    ):
        for name in ("source_acc", "dev", "acc"):
            assert ours.metrics[name] == pytest.approx(plain.metrics[name], abs=1e-9)
        norms = {name: t for name, t in ours.weights.items() if ".source." in name}
        assert norms
        for name, tensor in norms.items():
            torch.testing.assert_close(ours.weights[name.replace(".source.", ".target.")], tensor)
            of_plain = plain.weights[name.replace(".source.", ".")]
            torch.testing.assert_close(tensor, of_plain, atol=1e-9, rtol=0)


def test_the_way_back_calibrates_too(bench):
    """Reverse validation of a method that needs held-out samples."""
    (outcome,) = bench.run(SelfTraining(rounds=1, calibrate=True), reverse=True)
    assert 0 <= outcome.metrics["reverse"] <= 1
