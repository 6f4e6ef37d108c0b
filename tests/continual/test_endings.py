"""How a task ends: early, at an average of the weights, after accumulated passes."""

from dataclasses import dataclass, replace

import pytest
import torch
from small_runs import CPU, SELECTED, copies, files_in, run_of, scripted

from tlresearch.backbones.conv4 import Conv4
from tlresearch.continual import EWC, Naive, protocol
from tlresearch.continual.protocol import run_stack
from tlresearch.training import stage
from tlresearch.training.averages import Average
from tlresearch.training.device import tf32
from tlresearch.training.settings import check_train
from tlresearch.training.stage import Stage

pytestmark = pytest.mark.usefixtures("tiny")

SCORES = {10: [0.5, 0.1], 20: [0.4, 0.2], 30: [0.5, 0.3], 40: [0.9, 0.4], 50: [0.9, 0.5]}


def test_a_seed_that_waited_long_enough_ends_its_task(tmp_path, monkeypatch, trainings):
    """Patience 2, evaluations each 10 of 50 steps: at 30 for one seed; its sister goes on.

    An equal score is no better one. The seed trains again at the next task.
    """
    changes = {"evaluate_every": 10, "patience": 2, "tasks": 2} | SELECTED
    run = run_of(Naive(), [5, 2], class_order="fixed", **changes)
    seen: list[list[int]] = []
    measured, begin = protocol.accuracy_per_seed, Stage.begin

    def accuracy(training, data):
        if data[0] != "held out":
            return measured(training, data)
        return torch.tensor(SCORES[journeys[-1].step], dtype=torch.float64)

    journeys: list[Stage] = []

    def spy(self, number):
        begin(self, number)
        journeys.append(self)
        seen.append(list(self.training.steps))

    monkeypatch.setattr(protocol._Journey, "_held_out", lambda self, place: "held out")
    monkeypatch.setattr(protocol, "accuracy_per_seed", accuracy)
    monkeypatch.setattr(Stage, "begin", spy)
    outcomes = run_stack(run, CPU, files_in(tmp_path))
    assert seen == [[0, 0], [30, 50]]
    assert [outcome.details["steps"] for outcome in outcomes] == [60, 100]
    assert all(outcome.status == "finished" for outcome in outcomes)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_seeds_that_end_their_tasks_early_are_those_of_separate_runs(tmp_path, optimizer):
    """In float64 to 1e-9, over two tasks, at whatever steps patience ends them."""
    changes = {"evaluate_every": 4, "patience": 1, "tasks": 2, "precision": "fp64"} | SELECTED
    changes |= {"optimizer": optimizer, "lr": 0.03}
    together = run_stack(run_of(Naive(), [5, 2], **changes), CPU, files_in(tmp_path / "both"))
    steps = [outcome.details["steps"] for outcome in together]
    assert max(steps) < 100 and steps[0] != steps[1]
    for seed, ours in zip((5, 2), together, strict=True):
        (alone,) = run_stack(
            run_of(Naive(), [seed], **changes), CPU, files_in(tmp_path / str(seed))
        )
        assert alone.details["steps"] == ours.details["steps"]
        assert alone.arrays == ours.arrays
        for name, value in alone.weights.items():
            torch.testing.assert_close(ours.weights[name], value, atol=1e-9, rtol=0)


def test_patience_ends_a_stage_when_no_seed_is_left(tmp_path, monkeypatch, trainings):
    """Nothing gets better after step 10: both seeds stop at 20, with the weights of step 10."""
    changes = {"evaluate_every": 10, "patience": 1, "tasks": 1} | SELECTED
    run = run_of(Naive(), [5, 2], class_order="fixed", **changes)
    scripted(monkeypatch, {10: [0.5, 0.5], 20: [0.5, 0.4]})
    by_step, fit = {}, stage.fit

    def spy(training, batch, until, *rest):
        fit(training, batch, until, *rest)
        by_step[until] = copies(training)

    monkeypatch.setattr(stage, "fit", spy)
    outcomes = run_stack(run, CPU, files_in(tmp_path))
    assert sorted(by_step) == [10, 20]
    assert [outcome.details["steps"] for outcome in outcomes] == [20, 20]
    for end, best in zip(copies(trainings[-1]), by_step[10], strict=True):
        assert torch.equal(end, best)


@pytest.mark.parametrize("method", [Naive(), EWC(strength=10.0)])
def test_the_average_replaces_the_weights_at_the_end_of_a_task(
    tmp_path, monkeypatch, trainings, method
):
    """Before the method looks at them and before they are measured."""
    run = run_of(method, [5, 2], average=0.9, tasks=2, class_order="fixed")
    averages, after = [], []
    update, remember = Average.update, protocol._Journey._remember

    def spy_update(self, stack, active):
        update(self, stack, active)
        averages.append({k: v.clone() for k, v in self.values.items()})

    def spy_remember(self):
        after.append({k: v.clone() for k, v in self.training.stack.params.items()})
        assert self.training.average is None
        remember(self)

    monkeypatch.setattr(Average, "update", spy_update)
    monkeypatch.setattr(protocol._Journey, "_remember", spy_remember)
    run_stack(run, CPU, files_in(tmp_path))
    assert len(averages) == 100
    for at, weights in zip((49, 99), after, strict=True):
        assert all(torch.equal(weights[k], averages[at][k]) for k in weights)


def test_the_effective_batch_is_in_the_outcome(tmp_path):
    """batch_size times accumulate; and the peak of memory."""
    outcomes = run_stack(run_of(Naive(), [5], accumulate=3, steps=5), CPU, files_in(tmp_path))
    assert outcomes[0].details["effective_batch"] == 48
    assert outcomes[0].details["peak_memory_bytes"] > 1e6


def test_channels_last_changes_the_layout_and_not_the_numbers(tmp_path, monkeypatch):
    """Of images and filters; in float64 the same accuracies; refused for stacks."""
    seen = []
    forward = torch.nn.Conv2d.forward

    def spy(self, x):
        layouts = [t.is_contiguous(memory_format=torch.channels_last) for t in (x, self.weight)]
        seen.append(all(layouts) and self.training)
        return forward(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", spy)
    run = run_of(Naive(), [5], pad=6, steps=3, precision="fp64", tasks=2)
    run = replace(run, backbone=Conv4(channels=4))
    plain = run_stack(run, CPU, files_in(tmp_path / "plain"))
    first = len(seen)
    run = replace(run, train=replace(run.train, channels_last=True))
    last = run_stack(run, CPU, files_in(tmp_path / "last"))
    assert sum(seen[first:]) == 2 * 3 * 4
    assert plain[0].arrays == last[0].arrays
    assert "channels_last" in str(check_train(replace(run.train, stack=2)))


def test_tf32_holds_within_and_not_after():
    """For matrix products and convolutions alike, whatever it was before."""
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, conv.allow_tf32
    for allowed in (True, False):
        with tf32(allowed):
            assert matmul.allow_tf32 is conv.allow_tf32 is allowed
        assert (matmul.allow_tf32, conv.allow_tf32) == before


@dataclass(frozen=True)
class Steep(Naive):
    """A finite loss with finite gradients, too large for a step."""

    def loss(self, networks, state, batch):
        loss = super().loss(networks, state, batch)
        return loss._replace(total=1e30 * loss.total)


def test_a_seed_whose_last_step_broke_its_weights_fails(tmp_path):
    """One step of a huge rate a task: no later loss tells, and the reason names the task."""
    run = run_of(Steep(), [5, 2], optimizer="sgd", lr=1e20, steps=1, clip=0.0, schedule="constant")
    outcomes = run_stack(run, CPU, files_in(tmp_path))
    assert {outcome.status for outcome in outcomes} == {"failed"}
    assert "not finite after task 1" in str(outcomes[0].reason)


@dataclass(frozen=True)
class HalfFrozen(EWC):
    """The first layer stays as it was drawn."""

    def networks(self, backbone, shape, classes, seed):
        network = super().networks(backbone, shape, classes, seed)
        next(network.parameters()).requires_grad_(False)
        return network


@pytest.mark.parametrize("seeds", [[5], [5, 2]])
@pytest.mark.parametrize("kind", [HalfFrozen])
def test_frozen_weights_stay_and_ewc_does_without_them(tmp_path, trainings, seeds, kind):
    """To the bit, alone and in a stack, over three tasks."""
    run = run_of(kind(strength=10.0), seeds)
    run_stack(run, CPU, files_in(tmp_path))
    fresh = [run.method.networks(run.backbone, (1, 4, 4), 6, seed) for seed in seeds]
    names = [name for name, _ in fresh[0].named_parameters()]
    for name in names:
        before = torch.stack([dict(network.named_parameters())[name] for network in fresh])
        same = torch.equal(trainings[-1].stack.params[name], before.detach())
        assert same == (name == names[0]), name
    assert set(trainings[-1].state.curvature) == set(names[1:])
