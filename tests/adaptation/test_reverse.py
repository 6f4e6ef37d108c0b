"""Reverse validation: the way back by hand, its data, a stop on the way, several seeds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_blobs import CPU, blobs, domains, entry_of, files_in, outcomes, run_of, trained

from tlresearch.adaptation import METHODS, protocol
from tlresearch.adaptation.reverse import labelled, reverse_accuracy, reversed_pair
from tlresearch.data import domain_tables
from tlresearch.data.domains import Domain, Labelled, Unlabelled
from tlresearch.data.pairs import make_pair
from tlresearch.training.runs import StackRun


def test_the_way_back_has_the_models_labels_and_not_the_sources():
    model = trained(target_samples=20, source_samples=24)
    pair, own = model.data.pair, labelled(model)
    back = reversed_pair(pair, [own], 0.25)
    assert type(back.target) is Unlabelled and back.target.images is pair.source.images
    assert back.target_pools == pair.source_pools
    kept, held = back.source_pools[0], back.held_out_pools[0]
    assert len(kept) == 15 and len(held) == 5
    assert torch.equal(torch.cat([kept, held]).sort().values, pair.target_pools[0].sort().values)
    places = pair.target_pools[0]
    with torch.no_grad():
        expected = model.networks(pair.inputs(pair.target.images[places])).argmax(1)
    assert torch.equal(back.labels(0)[places], expected)
    assert torch.equal(back.labels_at(kept[None])[0], back.labels(0)[kept])
    assert not torch.equal(back.labels(0), pair.labels(0))


def test_seeds_have_labels_of_their_own():
    pair = trained(seeds=(0, 1)).data.pair
    labels = [torch.full((len(pool),), i) for i, pool in enumerate(pair.target_pools)]
    back = reversed_pair(pair, labels, 0.0)
    assert back.labels_at(torch.tensor([[3, 4], [5, 6]])).tolist() == [[0, 0], [1, 1]]
    assert [len(held) for held in back.held_out_pools] == [0, 0]


def test_the_end_is_measured_on_the_sources_held_out_samples():
    model = trained()
    pair = model.data.pair
    places = pair.held_out_pools[0]
    with torch.no_grad():
        guessed = model.networks(pair.inputs(pair.source.images[places])).argmax(1)
    expected = (guessed == pair.source.labels[places]).double().mean().item()
    assert reverse_accuracy(model, pair) == expected


def on_foot(run: StackRun, folder: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """Reverse validation of the run's one seed as an ordinary run on two other domains."""
    near, far = blobs("blobs"), blobs("far_blobs", shift=1.0, seed=1)
    there = outcomes(run, folder / "there")[0]
    pair, _ = make_pair(run.benchmark, near, far, run.seeds, CPU, torch.float64)
    networks = run.method.networks(run.backbone, pair.shape, pair.classes, run.seeds[0]).double()
    networks.load_state_dict(there.weights)
    with torch.no_grad():
        guessed = networks.eval()(pair.inputs(far.train.images)).argmax(1)
    held, pool = pair.held_out_pools[0], pair.source_pools[0]
    source = Labelled(far.train.images, guessed)
    target = Labelled(near.train.images[pool], near.train.labels[pool])
    test = Labelled(near.train.images[held], near.train.labels[held])
    for name, domain in (
        ("back", Domain("back", source, None, near.class_names, "back")),
        ("front", Domain("front", target, test, near.class_names, "front")),
    ):
        monkeypatch.setitem(domain_tables.DOMAINS, name, entry_of(domain))
    seeds = tuple(run.seeds)
    back = run_of(run.method, seeds, source="back", target="front", validation=0.0)
    return outcomes(back, folder / "back")[0].metrics["acc"]


@pytest.mark.parametrize("method", ["source_only", "dann"])
def test_reverse_validation_is_an_ordinary_run_the_other_way(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with domains():
        expected = on_foot(run_of(method, (1,)), tmp_path, monkeypatch)
        found = outcomes(run_of(method, (1,), reverse=True), tmp_path / "run")[0]
    assert found.metrics["reverse"] == expected < 1


def test_a_stack_equals_separate_runs_and_the_way_there_stays(tmp_path: Path):
    with domains():
        together = outcomes(run_of("dann", (0, 1), reverse=True), tmp_path / "both")
        alone = [outcomes(run_of("dann", (s,), reverse=True), tmp_path / str(s))[0] for s in (0, 1)]
        without = outcomes(run_of("dann", (0, 1)), tmp_path / "without")
    for ours, other, plain in zip(together, alone, without, strict=True):
        assert ours.metrics == pytest.approx(other.metrics, abs=1e-9)
        assert {k: v for k, v in ours.metrics.items() if k != "reverse"} == plain.metrics
        assert all(torch.equal(ours.weights[k], plain.weights[k]) for k in plain.weights)


class Stop(Exception):
    """Where a run is stopped."""


def test_a_stop_on_the_way_back_is_resumed(tmp_path: Path):
    """Nothing of the way there is trained again, and the numbers are those of a run in one go."""
    run = run_of("dann", (0, 1), reverse=True, steps=50)
    told: list[int] = []

    def stop(steps: int) -> None:
        told.append(steps)
        if sum(told) >= 90:
            raise Stop

    with domains():
        whole = outcomes(run, tmp_path / "whole")
        with pytest.raises(Stop):
            outcomes(run, tmp_path / "part", progress=stop, checkpoint_seconds=0.0)
        assert files_in(tmp_path / "part").checkpoint.with_name("reverse.pt").exists()
        steps: list[int] = []
        resumed = outcomes(run, tmp_path / "part", progress=steps.append)
    assert [o.metrics for o in resumed] == [o.metrics for o in whole]
    assert steps[0] == 50 and sum(steps) == 100 and max(steps[1:]) < 50
    assert not files_in(tmp_path / "part").checkpoint.with_name("reverse.pt").exists()


@pytest.mark.usefixtures("without_shape_checks")  # of settings: strengths are tensors
def test_a_seed_that_fails_leaves_the_other_as_it_is(tmp_path: Path):
    with domains():
        fine = outcomes(run_of("dann", (0,), reverse=True), tmp_path / "fine")[0]
        run = run_of("dann", (0, 1), reverse=True)
        run.fields["strength"] = [1.0, float("nan")]
        ours, failed = outcomes(run, tmp_path / "run")
    assert failed.status == "failed" and failed.metrics == {}
    assert ours.metrics == pytest.approx(fine.metrics, abs=1e-9)


def test_steps_are_counted_and_a_selection_by_it_asks_for_it():
    benchmark = run_of().benchmark
    by_reverse = protocol.held_out(benchmark, 0.2, "reverse")
    assert by_reverse.reverse and by_reverse.evaluate == "selectors"
    assert not protocol.held_out(benchmark, 0.2, "im").reverse
    assert protocol.held_out(benchmark, 0.2, "oracle").evaluate == "oracle"

    class Config:
        def __init__(self, benchmark: Any) -> None:
            self.benchmark, self.method, self.train = benchmark, METHODS["dann"](), run_of().train

    assert protocol.total_steps(Config(by_reverse)) == 2 * protocol.total_steps(Config(benchmark))
