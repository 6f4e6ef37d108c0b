"""A run that was stopped and resumed is the run that was not; and the selected checkpoint."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from small_runs import CPU, SELECTED, copies, files_in, lines_of, run_of, scripted

from tlresearch.backbones.mlp import MLP
from tlresearch.continual import EWC, Joint, Naive, OnlineEWC, protocol
from tlresearch.continual.method import FisherSettings
from tlresearch.continual.protocol import StackRun, run_stack
from tlresearch.data.tasks import make_stream
from tlresearch.training import observer, stage
from tlresearch.training.loop import Training
from tlresearch.training.method import Loss
from tlresearch.training.observer import RunFiles

METHODS = {
    "naive": Naive(),
    "joint": Joint(),
    "ewc": EWC(strength=50.0, fisher=FisherSettings(labels="sample", samples=30)),
    "online_ewc": OnlineEWC(strength=50.0, decay=0.7, fisher=FisherSettings(normalize=True)),
}


pytestmark = pytest.mark.usefixtures("tiny")


@dataclass(frozen=True)
class Blown(Naive):
    """A loss times a number, which may be too large for the learning rate."""

    scale: float = 1.0

    def loss(self, networks, state, batch) -> Loss:
        loss = super().loss(networks, state, batch)
        return Loss(loss.total * self.scale, loss.terms)


def same_bits(ours: Training, others: Training) -> None:
    """Weights, running statistics and moments."""
    for name, value in (ours.stack.params | ours.stack.buffers).items():
        assert torch.equal(value, (others.stack.params | others.stack.buffers)[name]), name
    for a, b in zip(ours.step_tensors(), others.step_tensors(), strict=True):
        assert torch.equal(a, b)


def interrupted(run: StackRun, files: RunFiles, at: int) -> None:
    """A run that is stopped by hand once `at` steps of the whole are reported."""
    done = [0]

    def progress(steps: int) -> None:
        done[0] += steps
        if done[0] >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stack(run, CPU, files, progress=progress, checkpoint_seconds=0)


RESUMES = [(name, seeds, {}) for name in METHODS for seeds in ([5], [5, 2])] + [
    ("ewc", [5, 2], {"reset_optimizer": True}),
    ("naive", [5], SELECTED | {"evaluate_every": 15}),
    ("joint", [5, 2], SELECTED | {"evaluate_every": 15}),
    ("ewc", [5, 2], SELECTED | {"evaluate_every": 20}),
    ("naive", [5, 2], SELECTED | {"evaluate_every": 7, "patience": 2}),
    ("joint", [5, 2], SELECTED | {"evaluate_every": 15, "average": 0.9}),
    ("ewc", [5, 2], {"average": 0.9, "accumulate": 2, "warmup": 0.2}),
    ("naive", [5, 2], {"precision": "fp16-mixed"}),
]


@pytest.mark.parametrize(("name", "seeds", "changes"), RESUMES)
def test_resume_is_exact(tmp_path, monkeypatch, trainings, name, seeds, changes):
    """Stopped in every task, first before any checkpoint: same bits, each log line once."""
    monkeypatch.setattr(observer, "LOG_EVERY", 10)
    run = run_of(METHODS[name], seeds, **changes)
    whole, pieces = files_in(tmp_path / "whole"), files_in(tmp_path / "pieces")
    expected = run_stack(run, CPU, whole)
    for at in (20, 40) if "patience" in changes else (20, 40, 90, 140):
        interrupted(run, pieces, at)
    assert pieces.checkpoint.exists()
    found = run_stack(run, CPU, pieces)
    for ours, others in zip(found, expected, strict=True):
        assert ours.arrays == others.arrays
        assert ours.metrics == others.metrics
        assert ours.details["steps"] == others.details["steps"]
        assert others.details["steps"] == 150 or "patience" in changes
    same_bits(trainings[-1], trainings[0])
    assert lines_of(pieces) == lines_of(whole)
    assert len(lines_of(whole)) == 15 or "patience" in changes


EARLY = {20: [0.9, 0.2], 40: [0.3, 0.8], 50: [0.9, 0.1]}
LATE = {20: [0.1, 0.2], 40: [0.3, 0.8], 50: [0.9, 0.1]}


@pytest.mark.parametrize("at", [None, 20, 40, 50])
@pytest.mark.parametrize(("scores", "best"), [(EARLY, 20), (LATE, 50)], ids=["early", "late"])
def test_the_best_held_out_weights_are_selected(tmp_path, monkeypatch, trainings, scores, best, at):
    """By a script of scores: those of step 20 or 50 for one seed, of step 40 for the other.

    Also where the run was stopped and resumed, at any step.
    """
    run = run_of(Naive(), [5, 2], evaluate_every=20, tasks=1, class_order="fixed", **SELECTED)
    scripted(monkeypatch, scores)
    steps, fit = {}, stage.fit

    def spy(training: Training, batch: Any, until: int, *rest: Any) -> None:
        fit(training, batch, until, *rest)
        steps[until] = copies(training)

    monkeypatch.setattr(stage, "fit", spy)
    run_stack(run, CPU, files_in(tmp_path / "whole"))
    by_step, training = dict(steps), trainings[-1]
    if at is not None:
        interrupted(run, files_in(tmp_path), at)
        run_stack(run, CPU, files_in(tmp_path))
        training = trainings[-1]
    assert sorted(by_step) == [20, 40, 50]
    for end, first, second in zip(copies(training), by_step[best], by_step[40], strict=True):
        assert torch.equal(end[0], first[0])
        assert torch.equal(end[1], second[1])


def test_a_run_stopped_at_its_last_step_is_still_measured_there(tmp_path, monkeypatch, trainings):
    """The checkpoint of step 40 of 40 was written before that step's evaluation, the best one."""
    changes = {"steps": 40, "evaluate_every": 30, "tasks": 1, "class_order": "fixed"}
    run, scores = run_of(Naive(), [5], **changes, **SELECTED), {30: [0.3]}
    scripted(monkeypatch, scores)
    with pytest.raises(KeyError):  # no score for step 40 yet
        run_stack(run, CPU, files_in(tmp_path), checkpoint_seconds=0)
    scores[40] = [0.9]
    run_stack(run, CPU, files_in(tmp_path))
    run_stack(run, CPU, files_in(tmp_path / "whole"))
    assert trainings[1].steps == trainings[2].steps == [40]
    assert all(map(torch.equal, copies(trainings[1]), copies(trainings[2])))


def test_a_task_is_selected_by_its_own_scores(tmp_path, monkeypatch, trainings):
    """The second task scores lower than the first; its best weights are kept, not the first's."""
    run = run_of(Naive(), [5], evaluate_every=20, tasks=2, class_order="fixed", **SELECTED)
    scripted(monkeypatch, {20: [0.8], 40: [0.9], 50: [0.7], 70: [0.1], 90: [0.3], 100: [0.2]})
    steps, fit = {}, stage.fit

    def spy(training: Training, *rest: Any) -> None:
        fit(training, *rest)
        steps[training.steps[0]] = copies(training)

    monkeypatch.setattr(stage, "fit", spy)
    run_stack(run, CPU, files_in(tmp_path))
    assert all(map(torch.equal, copies(trainings[0]), steps[90]))


@pytest.mark.parametrize("method", [Naive(), Joint()])
def test_selection_looks_at_held_out_training_images(tmp_path, monkeypatch, tiny, method):
    """Of the task, or of all tasks so far where the method sees them; training never does."""
    run = run_of(method, [5], steps=1, **SELECTED)
    pools, pool_data = [], protocol.PoolData

    def spy(stream: Any, place: int, pool: Any, stage: int, **others: Any) -> Any:
        if not others.get("evaluation"):
            pools.append(pool.images.tolist())
        return pool_data(stream, place, pool, stage, **others)

    monkeypatch.setattr(protocol, "PoolData", spy)
    run_stack(run, CPU, files_in(tmp_path))
    stream = make_stream(run.benchmark, tiny, [5])
    for task in range(3):
        first = 0 if isinstance(method, Joint) else task
        for found, own in (
            (pools[2 * task], stream.held_out_pools[0]),
            (pools[2 * task + 1], stream.train_pools[0]),
        ):
            assert found == torch.cat([p.images for p in own[first : task + 1]]).tolist()


def test_a_failed_seed_stays_failed_when_resumed(tmp_path, trainings):
    """One seed's loss blows up on the way; its reason and all bits are as without the stop."""
    run = run_of(Blown(), [5, 2], optimizer="sgd", clip=0.0)
    run = replace(run, backbone=MLP(hidden=(12,)), fields={"scale": [1.0, 1e37]})
    expected = run_stack(run, CPU, files_in(tmp_path / "whole"))
    assert expected[0].status == "finished"
    assert expected[1].status == "failed"
    assert 0 < expected[1].details["steps"] < 40
    for at in (90, 140):
        interrupted(run, files_in(tmp_path), at)
    found = run_stack(run, CPU, files_in(tmp_path))
    assert [o.reason for o in found] == [o.reason for o in expected]
    assert [o.metrics for o in found] == [o.metrics for o in expected]
    same_bits(trainings[-1], trainings[0])
