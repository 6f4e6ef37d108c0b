"""Estimators on the protocol: records, seeds, sealed labels, settings, own ones, refusals."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shallow_domains import KEY, domains, fitted

from tlresearch import schema
from tlresearch.adaptation import METHODS, protocol
from tlresearch.adaptation.coral import CORAL
from tlresearch.adaptation.estimation import run_estimators
from tlresearch.adaptation.estimator import Alignment, Estimator, unchanged
from tlresearch.adaptation.optimal_transport import OptimalTransport
from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.adaptation.shallow import Shallow
from tlresearch.adaptation.shallow_oracle import ShallowOracle
from tlresearch.adaptation.tca import TCA
from tlresearch.adaptation.trying import trial
from tlresearch.backbones.mlp import MLP
from tlresearch.data.domains import Domain, Frozen, Labelled
from tlresearch.data.pairs import make_pair
from tlresearch.errors import UserError
from tlresearch.experiment import Config, load
from tlresearch.launch.plan import numeric_fields, stack_size
from tlresearch.training.observer import RunFiles
from tlresearch.training.runs import Outcome, StackRun
from tlresearch.training.settings import Train

CPU = torch.device("cpu")
OF = domains()
BENCHMARK = AdaptationSettings("near", "far", normalise="none", validation=0.0)
ESTIMATORS = {name: kind for name, kind in METHODS.items() if issubclass(kind, Estimator)}
SMALL: dict[str, dict[str, Any]] = {"tca": {"dim": 2}, "subspace_alignment": {"dim": 2}}
"""Settings for inputs of five numbers."""


def domain(name: str, x: np.ndarray, y: np.ndarray, test: bool = True) -> Domain:
    part = Labelled(torch.from_numpy(x).view(len(x), -1, 1, 1), torch.from_numpy(y))
    return Domain(name, part, part if test else None, ("a", "b", "c"), name)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The domains `near` and `far` in the place of all others."""

    def load_pair(settings, seeds, device, dtype, root=None, oracle=False):
        near, far = domain("near", OF.source, OF.y), domain("far", OF.target, OF.target_y)
        source = far if oracle or settings.source == "far" else near
        return make_pair(settings, source, far, seeds, device, dtype)

    monkeypatch.setattr(protocol, "load_pair", load_pair)


def outcomes(
    method: Estimator, seeds: list[int], folder: Path, fields: Any = None, **benchmark: Any
) -> list[Outcome]:
    settings = dataclasses.replace(BENCHMARK, **benchmark)
    run = StackRun(settings, MLP(), method, Train(), seeds, fields or {})
    return protocol.run_stack(run, CPU, RunFiles(folder / "c.pt", folder / "m.jsonl"))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_record_has_what_those_of_deep_methods_have(name: str, tmp_path: Path):
    """Target accuracy as counted by hand, source accuracy on the held-out part alone."""
    method = ESTIMATORS[name](**SMALL.get(name, {}))
    (outcome,) = outcomes(method, [0], tmp_path)
    assert outcome.status == "finished" and outcome.weights == {}
    of = OF if not method.oracle else dataclasses.replace(OF, source=OF.target, y=OF.target_y)
    said = fitted(method, of)(torch.from_numpy(OF.target)).argmax(1).numpy()
    assert outcome.metrics["acc"] == pytest.approx((said == OF.target_y).mean())
    assert "source_acc" not in outcome.metrics
    assert outcome.details["steps"] == 0
    assert outcome.details["samples"]["target"] == 30
    assert {"stack_seconds", "estimator_seconds", "peak_memory_bytes"} <= outcome.details.keys()
    (held,) = outcomes(method, [0], tmp_path, validation=0.25)
    assert 0.5 < held.metrics["source_acc"] <= 1


def test_held_out_samples_of_the_source_go_the_sources_way(tmp_path: Path):
    """CORAL moves them as it moved the others: measured as target samples they would be lost."""
    method = CORAL(ridge=1e-3)
    (outcome,) = outcomes(method, [0], tmp_path, validation=0.25)
    benchmark = dataclasses.replace(BENCHMARK, validation=0.25)
    domains = (domain("near", OF.source, OF.y), domain("far", OF.target, OF.target_y))
    pair, _ = make_pair(benchmark, *domains, [0], CPU, torch.float64)
    kept, held = (pool[0].numpy() for pool in (pair.source_pools, pair.held_out_pools))
    found = method.fit(OF.source[kept], OF.y[kept], OF.target, 3, KEY)
    x = torch.from_numpy(OF.source[held])
    right, wrong = (
        (said.argmax(1).numpy() == OF.y[held]).mean() for said in (found.source_scores(x), found(x))
    )
    assert outcome.metrics["source_acc"] == pytest.approx(right) and right > wrong


def test_reverse_validation_fits_the_way_back(tmp_path: Path):
    """The target with the first fit's labels is the source; what is held out goes the other way."""
    method = CORAL(ridge=1e-3)
    (outcome,) = outcomes(method, [0], tmp_path, validation=0.25, reverse=True)
    benchmark = dataclasses.replace(BENCHMARK, validation=0.25)
    both = (domain("near", OF.source, OF.y), domain("far", OF.target, OF.target_y))
    pair, _ = make_pair(benchmark, *both, [0], CPU, torch.float64)
    kept, held = (pool[0].numpy() for pool in (pair.source_pools, pair.held_out_pools))
    there = method.fit(OF.source[kept], OF.y[kept], OF.target, 3, KEY)
    labels = there(torch.from_numpy(OF.target)).argmax(1).numpy()
    back = method.fit(OF.target, labels, OF.source[kept], 3, KEY)
    said = back(torch.from_numpy(OF.source[held])).argmax(1).numpy()
    assert outcome.metrics["reverse"] == pytest.approx((said == OF.y[held]).mean())


def test_nothing_is_drawn_so_seeds_change_nothing(tmp_path: Path, monkeypatch):
    """One fit serves all seeds; samples or folds that are drawn make it several."""
    fits: list[int] = []
    original = Estimator.fit

    def spy(self, *args):
        fits.append(len(args[0]))
        return original(self, *args)

    monkeypatch.setattr(Estimator, "fit", spy)
    one, two = outcomes(TCA(dim=2), [0, 1], tmp_path)
    for outcome in (one, two):
        outcome.metrics.pop("a_distance")  # its halves are drawn
    assert fits == [36] and one.metrics == two.metrics
    outcomes(TCA(dim=2), [0, 1], tmp_path, target_samples=20)
    outcomes(Shallow(classifier="svm", c=(0.1, 1.0)), [0, 1], tmp_path)
    assert len(fits) == 5


def test_a_stack_equals_separate_runs(tmp_path: Path):
    """Seeds and numeric settings of one program have the numbers that they have alone."""
    values = [0.02, 0.5, 0.5]
    options: dict[str, Any] = {"source_samples": 24, "validation": 0.25}
    together = outcomes(OptimalTransport(), [3, 4, 3], tmp_path, {"entropy": values}, **options)
    for seed, entropy, outcome in zip([3, 4, 3], values, together, strict=True):
        (alone,) = outcomes(OptimalTransport(entropy=entropy), [seed], tmp_path, **options)
        assert alone.metrics == outcome.metrics
    assert together[0].metrics != together[1].metrics
    assert set(numeric_fields(OptimalTransport())) == {"entropy", "strength"}


def test_labels_are_opened_after_the_fit_and_not_for_a_selection(tmp_path: Path, monkeypatch):
    """`selectors` opens nothing; otherwise what was learned is frozen first."""
    order: list[str] = []
    from tlresearch.data.domains import Sealed

    opened, fit = Sealed.open, Estimator.fit
    monkeypatch.setattr(Sealed, "open", lambda *a: (order.append("open"), opened(*a))[1])
    monkeypatch.setattr(Estimator, "fit", lambda *a: (order.append("fit"), fit(*a))[1])
    (outcome,) = outcomes(Shallow(), [0], tmp_path, evaluate="selectors", validation=0.25)
    assert order == ["fit"] and "acc" not in outcome.metrics and "source_acc" in outcome.metrics
    outcomes(Shallow(), [0], tmp_path)
    assert order == ["fit", "fit", "open"]


def test_target_labels_have_no_part_in_a_fit(monkeypatch):
    """Shuffled target labels: the same digest of what was learned."""
    digests = []
    original = Frozen.__init__

    def spy(self, weights):
        original(self, weights)
        digests.append(self.digest)

    monkeypatch.setattr(Frozen, "__init__", spy)
    for labels in (OF.target_y, OF.target_y[::-1].copy()):
        for kind in (OptimalTransport, CORAL):
            near, far = domain("near", OF.source, OF.y), domain("far", OF.target, labels)
            pair, sealed = make_pair(BENCHMARK, near, far, [0], CPU, torch.float64)
            run = StackRun(BENCHMARK, MLP(), kind(), Train(), [0], {})
            run_estimators(run, pair, sealed, lambda steps: None)
    assert digests[:2] == digests[2:] and digests[0] != digests[1]


def test_the_oracle_learns_from_target_labels(tmp_path: Path):
    """Measured on what it was trained on here, so 1-NN is never wrong; without them it is."""
    (oracle,), (plain,) = (outcomes(m, [0], tmp_path) for m in (ShallowOracle(), Shallow()))
    assert oracle.metrics["acc"] == 1 > plain.metrics["acc"]
    assert ShallowOracle().notes() == {"target labels": "seen in training"}


def test_c_is_chosen_on_the_source_alone(tmp_path: Path):
    """The first best of the candidates, noted in the record with what it was chosen by."""
    values = (1e-6, 0.05, 0.05001)
    (outcome,) = outcomes(Shallow(classifier="svm", c=values), [0], tmp_path)
    scores = outcome.details["cross_validation"]
    assert outcome.details["c"] == values[int(np.argmax(list(scores.values())))] == 0.05
    changed = Shallow(classifier="svm", c=values).fit(OF.source, OF.y, OF.target + 100, 3, KEY)
    assert changed.details["c"] == 0.05
    (fixed,) = outcomes(Shallow(classifier="svm"), [0], tmp_path)
    assert fixed.details["c"] == 1 and "cross_validation" not in fixed.details


def test_numbers_that_fail_are_a_failed_run(tmp_path: Path):
    class Broken(Estimator):
        def align(self, source, labels, target):
            raise np.linalg.LinAlgError("did not\n converge")

    (outcome,) = outcomes(Broken(), [0], tmp_path)
    assert (outcome.status, outcome.reason, outcome.metrics) == ("failed", "did not converge", {})


def test_a_setting_that_does_not_fit_is_one_sentence(tmp_path: Path):
    with pytest.raises(
        UserError, match=r"^method TCA: dim: 20 components were asked for, of inputs"
    ):
        outcomes(TCA(), [0], tmp_path)


REFUSED = {
    "c: the nearest neighbour has no C; remove it": "{name: coral, c: [1.0]}",
    "c: give at least one number": "{name: coral, classifier: svm, c: []}",
    "must be one of 1nn, svm, logistic, not 'knn'": "{name: tca, classifier: knn}",
    r"unknown method 'pca' .*known are": "{name: pca}",
    "unknown key 'methods.m.dim'": "{name: coral, dim: 3}",
    "unknown key 'methods.m.head'": "{name: tca, head: [10]}",
    "unknown key 'methods.m.transform'": "{name: shallow, transform: tca}",
    "'methods.m.mu' must be a number above 0": "{name: tca, mu: 0}",
    r"'methods.m.c\[1\]' must be a number above 0": "{name: tca, classifier: svm, c: [1, -1]}",
    "'methods.m.scale' must be one of variance, length": "{name: tca, scale: unit}",
}


@pytest.mark.parametrize(("sentence", "method"), REFUSED.items())
def test_settings_that_are_not_read_are_refused(sentence: str, method: str, tmp_path: Path):
    path = tmp_path / "e.yaml"
    path.write_text(
        "family: adaptation\nbackbone: mlp\nseeds: [0]\n"
        f"benchmark: {{source: mnist5k, target: optdigits}}\nmethods: {{m: {method}}}\n"
    )
    with pytest.raises(UserError, match=sentence):
        load(path)


def test_distances_and_margins_are_not_scored_as_probabilities(tmp_path: Path):
    """Entropy, SND and calibration are of logistic regression alone, and so are their columns."""
    scores = {"entropy", "im", "snd", "ece"}
    for name, expected in (("1nn", set()), ("svm", set()), ("logistic", scores)):
        method = dataclasses.replace(Shallow(), classifier=name)
        (outcome,) = outcomes(method, [0], tmp_path, validation=0.25)
        assert outcome.metrics.keys() & scores == expected and "dev" in outcome.metrics
        config = Config("adaptation", BENCHMARK_KNOWN, MLP(), method, Train())
        assert protocol.possible_metrics(config) & scores == expected


def test_a_way_back_without_a_class_is_no_number(tmp_path: Path):
    """Where no sample of the target is taken for one of the classes, none can be learned."""

    class Blind(Shallow):
        def align(self, source, labels, target):
            return Alignment(unchanged, lambda x: x * 0 + source[labels == 0].mean(0))

    run = {"validation": 0.25, "reverse": True}
    (outcome,) = outcomes(Blind(classifier="svm"), [0], tmp_path, **run)
    assert outcome.status == "finished" and np.isnan(outcome.metrics["reverse"])


def test_there_is_no_network_and_all_seeds_make_one_stack():
    """No steps, no parameters: on a CPU as well every seed goes into one stack."""
    config = Config("adaptation", BENCHMARK_KNOWN, MLP(), TCA(), Train())
    assert protocol.total_steps(config) == 0
    assert stack_size(config, CPU) > 1
    assert "head" not in schema.fields_of(TCA)
    assert not list(TCA().networks(None, (1, 1, 1), 2, 0).parameters())


BENCHMARK_KNOWN = AdaptationSettings("mnist5k", "optdigits", size=16)


def test_an_own_estimator_is_tried_on_noise():
    """What `tlresearch run` does before anything else; a wrong shape is seen."""

    class Own(Estimator):
        def align(self, source, labels, target):
            return Alignment(lambda x: x[:, :3], lambda x: x[:, :3])

    one = trial(Config("adaptation", BENCHMARK_KNOWN, MLP(), Own(), Train()))
    assert one.batch is None and one.fits(tuple(one.predict(one.networks(0), {}).shape))
    with pytest.raises(NotImplementedError, match="Estimator does not define align"):
        Estimator().fit(OF.source, OF.y, OF.target, 3, KEY)
