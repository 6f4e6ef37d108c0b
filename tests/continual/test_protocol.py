"""The order of continual learning: what is measured, what is seen, and exact resume."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tlresearch.backbones.mlp import MLP
from tlresearch.continual import EWC, Joint, Naive, protocol
from tlresearch.continual.protocol import Outcome, StackRun, run_stack
from tlresearch.data.tasks import StreamSettings
from tlresearch.errors import UserError
from tlresearch.functional import metrics
from tlresearch.training import stage
from tlresearch.training.loop import Training
from tlresearch.training.method import Loss
from tlresearch.training.observer import RunFiles
from tlresearch.training.settings import Train

STREAM = StreamSettings("tiny", tasks=3, scenario="class", class_order="random")
TRAIN = Train(steps=50, batch_size=16, lr=0.01, schedule="cosine", clip=1.0)
BACKBONE = MLP(hidden=(12,), dropout=0.3, norm="batch")
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("tiny")


def matrix_of(outcome: Outcome) -> Tensor:
    """The accuracy matrix of an outcome, float64 (T + 1, T)."""
    return torch.tensor(outcome.arrays["accuracy_matrix"], dtype=torch.float64)


def files_in(folder: Any) -> RunFiles:
    return RunFiles(folder / "checkpoint.pt", folder / "metrics.jsonl")


def run_of(method: Any, seeds: list[int], **changes: Any) -> StackRun:
    """Changes are of the stream or of the training, by their names."""
    stream = {k: v for k, v in changes.items() if hasattr(STREAM, k)}
    train = {k: v for k, v in changes.items() if k not in stream}
    return StackRun(replace(STREAM, **stream), BACKBONE, method, replace(TRAIN, **train), seeds, {})


@dataclass(frozen=True)
class Constant(Naive):
    """Always says the unit 0."""

    def predict(self, networks, state, x, context):
        return torch.zeros(len(x), 6).index_fill_(1, torch.tensor([0]), 1.0)


def outcome_of(tmp_path, method: Any, **changes: Any) -> Outcome:
    run = run_of(method, [5], steps=1, batch_size=4, **changes)
    (outcome,) = run_stack(run, CPU, files_in(tmp_path))
    return outcome


def test_matrix_of_a_constant_predictor(tmp_path):
    """Unit 0 is half of the first task and nothing of the others; in domains half of each."""
    by_class = matrix_of(outcome_of(tmp_path, Constant()))
    half = torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64)
    assert torch.equal(by_class, half.expand(4, 3))
    by_domain = matrix_of(outcome_of(tmp_path, Constant(), scenario="domain"))
    assert torch.equal(by_domain, torch.full((4, 3), 0.5, dtype=torch.float64))


@dataclass(frozen=True)
class Perfect(Naive):
    """Knows each image's unit, but may only say what the context allows."""

    images: Any = None
    labels: Any = None

    def predict(self, networks, state, x, context):
        pixels = (x * 255).round().to(torch.uint8)
        which = [(self.images == p).flatten(1).all(1).nonzero()[0, 0] for p in pixels]
        scores = torch.eye(6)[self.labels[torch.stack(which)]]
        return scores if context is None else scores.masked_fill(~context, -float("inf"))


def test_matrix_of_a_perfect_predictor(tmp_path, tiny):
    """Classes: 1 for tasks seen, 0 for the rest, and row 0 is that of the first task."""
    method = Perfect(tiny.test.images, tiny.test.labels)
    by_class = matrix_of(outcome_of(tmp_path, method, class_order="fixed"))
    rows = [[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert by_class.tolist() == rows
    by_task = outcome_of(tmp_path, method, class_order="fixed", scenario="task")
    assert matrix_of(by_task).eq(1).all()
    assert by_task.metrics["acc"] == 1.0


def test_row_0_is_before_training(tmp_path, tiny):
    """It equals the fresh networks' accuracy among each task's own classes."""
    run = run_of(Naive(), [5], scenario="task", class_order="fixed")
    (outcome,) = run_stack(run, CPU, files_in(tmp_path))
    network = Naive().networks(BACKBONE, (1, 4, 4), 6, 5).eval()
    for task in range(3):
        own = tiny.test.labels // 2 == task
        logits = network(tiny.test.images[own] / 255)[:, 2 * task : 2 * task + 2]
        right = logits.argmax(1) + 2 * task == tiny.test.labels[own]
        assert matrix_of(outcome)[0, task].item() == pytest.approx(right.double().mean().item())
    assert matrix_of(outcome)[3, 2] > 0.8, "and the last row is after it"


def test_metrics_are_those_of_the_matrix(tmp_path):
    """Every metric of `functional.metrics`, worked out on each seed's matrix."""
    outcomes = run_stack(run_of(Naive(), [5, 2]), CPU, files_in(tmp_path))
    for outcome in outcomes:
        assert outcome.status == "finished"
        assert outcome.reason is None
        assert set(outcome.metrics) == set(protocol.METRICS) == set(metrics.METRICS)
        for name, value in outcome.metrics.items():
            assert value == metrics.METRICS[name](matrix_of(outcome)).item()
    assert outcomes[0].arrays != outcomes[1].arrays


@dataclass(frozen=True)
class Fails(Naive):
    """A loss that is infinite where the stacked field says so."""

    scale: float = 1.0

    def loss(self, networks, state, batch) -> Loss:
        loss = super().loss(networks, state, batch)
        return Loss(loss.total * self.scale, loss.terms)


def fails(seeds: list[int], *scales: float) -> StackRun:
    return replace(run_of(Fails(), seeds, steps=5), fields={"scale": list(scales)})


@pytest.mark.parametrize("seeds", [[5], [5, 2]])
def test_when_all_seeds_failed(tmp_path, seeds):
    """Status, reason, no metrics; rows never reached are NaN, row 0 is measured."""
    for outcome in run_stack(fails(seeds, *[float("inf")] * len(seeds)), CPU, files_in(tmp_path)):
        assert outcome.status == "failed"
        assert outcome.reason == "the loss was inf at step 0"
        assert outcome.metrics == {}
        assert outcome.details["steps"] == 0
        assert matrix_of(outcome)[1:].isnan().all()
        assert not matrix_of(outcome)[0].isnan().any()


def test_one_failed_seed_leaves_its_sister_alone(tmp_path):
    """The other's matrix is the one it has beside a sound neighbour."""
    failed, sound = run_stack(fails([5, 2], float("inf"), 1.0), CPU, files_in(tmp_path / "a"))
    _, expected = run_stack(fails([5, 2], 1.0, 1.0), CPU, files_in(tmp_path / "b"))
    assert failed.status == "failed"
    assert sound.status == "finished"
    assert sound.arrays == expected.arrays


@pytest.mark.parametrize(("method", "joint"), [(Naive(), False), (EWC(), False), (Joint(), True)])
def test_what_each_stage_trains_on(tmp_path, monkeypatch, method, joint):
    """Joint: the images of all tasks so far; the others: those of the task alone."""
    seen: list[set[int]] = []
    batches = protocol.StageBatches

    def spy(stream: Any, pools: list[Any], *rest: Any) -> Any:
        seen.append(set(stream.train.labels[pools[0].images].tolist()))
        return batches(stream, pools, *rest)

    monkeypatch.setattr(protocol, "StageBatches", spy)
    outcome_of(tmp_path, method, class_order="fixed")
    if joint:
        assert seen == [{0, 1}, {0, 1, 2, 3}, {0, 1, 2, 3, 4, 5}]
    else:
        assert seen == [{0, 1}, {2, 3}, {4, 5}]


def test_the_memory_of_each_seeds_task_is_kept(tmp_path, trainings):
    """EWC's state at the end: a Fisher and an anchor for each of two seeds, not the same."""
    run_stack(run_of(EWC(), [5, 2], steps=1, batch_size=4), CPU, files_in(tmp_path))
    state = trainings[0].state
    assert state.curvature.keys() == trainings[0].stack.params.keys()
    for name, value in trainings[0].stack.params.items():
        assert state.curvature[name].shape == state.centre[name].shape == value.shape
    first, second = state.centre["head.weight"]
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("reset", "counts"), [(True, [7, 7, 7]), (False, [7, 14, 21])])
def test_moments_are_forgotten_at_each_new_task_if_asked(
    tmp_path, monkeypatch, trainings, reset, counts
):
    """Adam's own count of steps, read at each task's end."""
    found: list[int] = []
    fit = stage.fit

    def spy(training: Training, *rest: Any) -> None:
        fit(training, *rest)
        found.append(int(next(iter(training.optimizer.state.values()))["step"]))

    monkeypatch.setattr(stage, "fit", spy)
    run = run_of(Naive(), [5, 2], steps=7, reset_optimizer=reset)
    run_stack(run, CPU, files_in(tmp_path))
    assert found == counts
    assert trainings[0].steps == [21, 21]


@dataclass(frozen=True)
class NoClasses(Naive):
    """A method for known tasks only."""

    scenarios = ("task", "domain")


@pytest.mark.parametrize(
    ("method", "changes", "word"),
    [
        (Naive(), {"tasks": 4}, "benchmark.tasks"),
        (NoClasses(), {"tasks": 5}, "methods.mine: NoClasses cannot do the scenario 'class'"),
        (Naive(), {"tasks": 5, "checkpoint": "selected"}, "train.checkpoint"),
    ],
)
def test_senseless_combinations_are_refused(method, changes, word):
    """Before any work, naming the key."""
    run = run_of(method, [0], dataset="optdigits", **changes)
    with pytest.raises(UserError, match=word):
        protocol.check(run.benchmark, method, "mine", run.train)
