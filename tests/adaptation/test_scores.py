"""Scores of a run: what they are functions of, and that no target label is among it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_blobs import BENCHMARK, blobs, domains, networks_of, outcomes, run_of, trained

from tlresearch.adaptation import scores as module
from tlresearch.adaptation.batches import SeedData
from tlresearch.adaptation.checks import check
from tlresearch.adaptation.dann import DANN
from tlresearch.adaptation.scores import SELECTORS, UNLABELLED, check_selection, scores
from tlresearch.data import domain_tables
from tlresearch.data.domains import Labelled, Sealed
from tlresearch.errors import UserError
from tlresearch.functional.domain_distance import domain_classifier
from tlresearch.functional.selectors import density_ratio, embedded_risk, information
from tlresearch.training.settings import Train


def test_scores_are_those_of_the_target_pool_and_the_held_out_source():
    model = trained(target_samples=20)
    pair, found = model.data.pair, scores(model)
    with torch.no_grad():
        target = pair.inputs(pair.target.images[pair.target_pools[0]])
        said = model.networks(target).softmax(1)
        held_out = pair.inputs(pair.source.images[pair.held_out_pools[0]])
        guessed = model.networks(held_out).argmax(1)
    assert len(said) == 20 and len(held_out) == 12
    assert found["entropy"] == pytest.approx((said * said.log()).sum(1).mean().item(), abs=1e-12)
    assert found["im"] == pytest.approx(information(said).item(), abs=1e-12)
    right = guessed == pair.source.labels[pair.held_out_pools[0]]
    assert found["source_acc"] == right.double().mean().item() < 1
    assert set(found) == set(UNLABELLED) - {"reverse"}


def test_dev_weighs_the_errors_on_held_out_samples():
    """The domain classifier learns from the pools that were trained on."""
    model = trained()
    pair = model.data.pair
    with torch.no_grad():
        z = [
            model.networks.features(pair.inputs(images[pool]))
            for images, pool in (
                (pair.source.images, pair.source_pools[0]),
                (pair.target.images, pair.target_pools[0]),
                (pair.source.images, pair.held_out_pools[0]),
            )
        ]
        held_out = pair.source.labels[pair.held_out_pools[0]]
        wrong = networks_of(model).head(z[2]).argmax(1) != held_out
    weights = density_ratio(domain_classifier(z[0], z[1])(z[2]), len(z[0]), len(z[1]))
    expected = 1 - embedded_risk(weights, wrong.double()).item()
    assert scores(model)["dev"] == pytest.approx(expected, abs=1e-12)
    assert weights.std() > 0.1 and 0 < wrong.sum() < len(wrong)


def test_large_pools_are_drawn_from(monkeypatch: pytest.MonkeyPatch):
    """The same samples each time, other ones for another seed."""
    whole = scores(trained())
    monkeypatch.setattr(module, "NEIGHBOURS", 10)
    monkeypatch.setattr(module, "CLASSIFIED", 10)
    few = scores(trained())
    assert few == scores(trained())
    assert few["snd"] < torch.tensor(9.0).log() < whole["snd"] and few["dev"] != whole["dev"]
    assert few["im"] == whole["im"]


def test_without_held_out_samples_fewer_scores():
    assert set(scores(trained(validation=0.0))) == {"entropy", "im", "snd"}


@pytest.mark.parametrize("method", ["source_only", "dann"])
def test_a_selection_never_opens_the_labels_of_the_target(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Every score, reverse validation too, is the same to the bit with other labels."""
    monkeypatch.setattr(Sealed, "open", lambda self, frozen: pytest.fail("opened"))
    found = []
    for turn in range(2):
        with domains():
            far = blobs("far_blobs", shift=1.0, seed=1)
            assert far.test is not None
            train, test = (Labelled(p.images, (p.labels + turn) % 3) for p in (far.train, far.test))
            other = replace(far, train=train, test=test)
            entry = domain_tables.DOMAINS["far_blobs"]
            monkeypatch.setitem(
                domain_tables.DOMAINS,
                "far_blobs",
                replace(entry, read=lambda root: other),  # noqa: B023
            )
            run = run_of(method, evaluate="selectors", reverse=True)
            found.append([o.metrics for o in outcomes(run, tmp_path / str(turn))])
    assert found[0] == found[1] and set(found[0][0]) == set(UNLABELLED)
    assert found[0][0] != found[0][1]


def test_the_oracle_has_a_name_of_its_own(tmp_path: Path):
    """Target accuracy is `acc` in a report, `oracle` in a selection that says so, else absent."""
    with domains():
        kinds = {
            kind: outcomes(run_of("source_only", evaluate=kind, seeds=(0,)), tmp_path / kind)[0]
            for kind in ("test", "oracle", "selectors")
        }
    metrics = {kind: outcome.metrics for kind, outcome in kinds.items()}
    assert metrics["test"]["acc"] == metrics["oracle"]["oracle"]
    assert "oracle" not in metrics["test"] and "acc" not in metrics["oracle"]
    assert not {"acc", "oracle", "ece"} & set(metrics["selectors"])
    assert kinds["selectors"].arrays == kinds["oracle"].arrays == {}


@pytest.mark.parametrize("name", SELECTORS)
def test_selectors_may_choose(name: str):
    check_selection(name)


@pytest.mark.parametrize("name", ["acc", "ece", "source_test_acc", "a_distance"])
def test_what_needs_target_labels_or_is_no_score_may_not(name: str):
    with pytest.raises(UserError, match=f"'select.metric' is '{name}'.*source_acc.*'oracle'"):
        check_selection(name)


@pytest.mark.parametrize("changes", [{"reverse": True}, {"evaluate": "selectors"}])
def test_scores_that_need_held_out_samples_are_refused_without(changes: dict):
    benchmark = replace(BENCHMARK, validation=0.0, **changes)
    with domains(), pytest.raises(UserError, match=r"benchmark\.(reverse|evaluate).*validation"):
        check(benchmark, DANN(), "dann", Train())


def test_methods_of_one_seed_are_judged_on_the_same_samples(monkeypatch: pytest.MonkeyPatch):
    """Whatever the number of their rounds: else scores would differ by the draw."""
    monkeypatch.setattr(module, "NEIGHBOURS", 10)
    monkeypatch.setattr(module, "CLASSIFIED", 10)
    model = trained()
    later = replace(model, data=SeedData(model.data.pair, 0, 7))
    assert scores(model) == scores(later)
    other = trained(seeds=(1,))
    places = torch.arange(40)
    assert not torch.equal(model.drawn(places, 10, "x"), other.drawn(places, 10, "x"))
