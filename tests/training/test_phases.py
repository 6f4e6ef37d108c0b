"""A step in phases: whose weights move, whose rest, and who stops where."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_training import TRAIN, assert_bits, poisoned, prepare, snapshot
from torch import Tensor, nn

from tlresearch.backbones.mlp import MLP
from tlresearch.continual import Naive
from tlresearch.training import checkpoint
from tlresearch.training.loop import Training, fit
from tlresearch.training.method import Labelled, Loss, Phase
from tlresearch.training.settings import Train
from tlresearch.training.tree import Tree

ADAM = replace(TRAIN, lr=0.01)
SGD = replace(TRAIN, optimizer="sgd", lr=0.05, momentum=0.9)


@dataclass(frozen=True)
class OnlyHead(Naive):
    """One phase, of the head alone."""

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("loss", ("head.",)),)


@dataclass(frozen=True)
class Alternating(Naive):
    """The head, then twice the backbone with a loss of its own."""

    second: float = 1.0

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("loss", ("head.",)), Phase("narrow", ("backbone.",), 2))

    def narrow(self, networks: nn.Module, state: Tree, batch: Labelled) -> Loss:
        """Spread of the logits; a stacked field can blow it up."""
        value = networks(batch.x).square().mean() * self.second
        return Loss(value, {"spread": value})


@dataclass(frozen=True)
class Late(Naive):
    """The head in the first phase, everything in the second."""

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("loss", ("head.",)), Phase("loss"))


def of(training: Training, prefix: str) -> list[str]:
    return [name for name in training.stack.leaves if name.startswith(prefix)]


@pytest.mark.parametrize("train", [ADAM, SGD, replace(SGD, weight_decay=0.1)])
@pytest.mark.parametrize("seeds", [[3], [3, 8]])
def test_parameters_outside_a_phase_rest(seeds, train):
    """No step, no decay, no memory in the optimiser; and they need a gradient again afterwards."""
    training, batch = prepare(seeds, train, method=OnlyHead())
    start = {name: p.clone() for name, p in training.stack.params.items()}
    fit(training, batch, 5)
    for name in of(training, "backbone."):
        assert torch.equal(training.stack.params[name], start[name])
        assert training.stack.leaves[name] not in training.optimizer.state
        assert training.stack.leaves[name].requires_grad
    for name in of(training, "head."):
        assert not torch.equal(training.stack.params[name], start[name])


def by_hand(training: Training, batch, place: int, train: Train, steps: int) -> list[Tensor]:
    """Two optimisers, one after the other, on a copy of one seed's networks; its parameters."""
    network: Any = copy.deepcopy(training.stack.one(place))
    make = {
        "adam": lambda p: torch.optim.Adam(p, train.lr, foreach=False),
        "sgd": lambda p: torch.optim.SGD(p, train.lr, train.momentum, foreach=False),
    }[train.optimizer]
    head, backbone = (make(part.parameters()) for part in (network.head, network.backbone))
    for step in range(steps):
        x, y, mask = (t[place] for t in batch(step))
        for optimizer in (head, backbone, backbone):
            logits = network(x)
            first = F.cross_entropy(logits[:, mask], y)
            network.zero_grad()
            (first if optimizer is head else logits.square().mean()).backward()
            optimizer.step()
    return [p.detach() for p in network.parameters()]


@pytest.mark.parametrize("train", [ADAM, SGD], ids=["adam", "sgd"])
@pytest.mark.parametrize("seeds", [[3], [3, 8]])
def test_phases_are_two_optimisers_in_turn(seeds, train):
    """Ten steps in float64 to 1e-10."""
    training, batch = prepare(seeds, train, method=Alternating())
    fresh, _ = prepare(seeds, train, method=Alternating())
    expected = [by_hand(fresh, batch, place, train, 10) for place in range(len(seeds))]
    fit(training, batch, 10)
    for place, parameters in enumerate(expected):
        for ours, other in zip(training.stack.params.values(), parameters, strict=True):
            torch.testing.assert_close(ours[place], other, atol=1e-10, rtol=0)
    assert training.steps == [10] * len(seeds)


NOISY = MLP(hidden=(12, 8), norm="batch", dropout=0.2)


def alternating(train: Train, second: float, seeds: tuple[int, ...] = (3, 8, 5)):
    """A stack whose second seed has a factor of its own on the loss of the later phase."""
    fields = {"second": [1.0, second, 1.0]}
    return prepare(list(seeds), train, NOISY, Alternating(), fields)


@pytest.mark.parametrize("train", [ADAM, SGD], ids=["adam", "sgd"])
def test_a_seed_that_breaks_in_a_later_phase_stops_there(train):
    """It keeps what the first phase left it; its sisters have the bits they have without it."""
    broken, batch = alternating(train, float("inf"))
    fit(broken, batch, 6)
    assert broken.steps == [6, 0, 6]
    assert broken.active == [True, False, True]
    sound, _ = alternating(train, 1.0)
    fit(sound, batch, 6)
    for place in (0, 2):
        assert_bits(snapshot(broken, place), snapshot(sound, place))
    first, _ = prepare([3, 8, 5], train, NOISY, OnlyHead())
    fit(first, batch, 1)
    for name in [*broken.stack.params, *broken.statistics]:
        ours, others = ((t.stack.params | t.stack.buffers)[name][1] for t in (broken, first))
        assert torch.equal(ours, others), name
    for name in of(broken, "backbone."):
        moments = broken.optimizer.state[broken.stack.leaves[name]]
        assert all(m[1].eq(0).all() for k, m in moments.items() if k != "step")


@pytest.mark.parametrize("train", [ADAM, SGD], ids=["adam", "sgd"])
@pytest.mark.parametrize("at", [0, 4])
def test_a_seed_that_breaks_in_the_first_phase_keeps_what_it_had(at, train):
    """The bits before that step, moments too."""
    training, batch = alternating(train, 1.0)
    fit(training, poisoned(batch, 1, at), 6)
    before, _ = alternating(train, 1.0)
    fit(before, batch, at)
    assert training.steps == [6, at, 6]
    ours, others = snapshot(training, 1), snapshot(before, 1)
    assert_bits(ours[: len(others)], others)
    assert all(t.eq(0).all() for t in ours[len(others) :])


@pytest.mark.parametrize("seeds", [[3], [3, 8]])
def test_a_first_gradient_in_a_later_phase(seeds):
    """SGD with momentum: the second phase is the first step of the backbone, torch's own."""
    training, batch = prepare(seeds, SGD, method=Late())
    fit(training, batch, 1)
    twin, _ = prepare(seeds, SGD, method=Late())
    leaves = twin.stack.leaves
    start = {name: leaf.detach().clone() for name, leaf in leaves.items()}
    for name in of(twin, "backbone."):
        moved = training.stack.leaves[name].detach() - start[name]
        momentum = training.optimizer.state[training.stack.leaves[name]]["momentum_buffer"]
        torch.testing.assert_close(moved, -0.05 * momentum)
        assert momentum.norm() > 0


@pytest.mark.parametrize("seeds", [[3], [3, 8]])
def test_accumulated_passes_are_one_batch_in_each_phase(seeds):
    """Two passes of 8 samples: the steps of 16 samples."""
    whole, batch = prepare(seeds, SGD, method=Alternating())
    halves, _ = prepare(seeds, replace(SGD, accumulate=2, batch_size=8), method=Alternating())

    def half(number: int) -> tuple[Tensor | None, ...]:
        x, y, mask = batch(number // 2)
        part = slice(8 * (number % 2), 8 * (number % 2) + 8)
        return x[:, part], y[:, part], mask

    fit(whole, batch, 5)
    fit(halves, half, 5)
    for a, b in zip(whole.step_tensors(), halves.step_tensors(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


def test_each_pass_has_its_own_dropout_and_the_same_batch():
    """3 passes × 2 parts × 2 steps are 12 keys; a batch is drawn once."""
    backbone = MLP(hidden=(12,), dropout=0.3)
    train = replace(SGD, accumulate=2, batch_size=8)
    training, batch = prepare([3], train, backbone, Alternating())
    name, keys, drawn = training.dropout_layers[0], [], []
    layer = next(m for m in training.stack.module.modules() if hasattr(m, "key"))
    layer.register_forward_hook(lambda *_: keys.append(int(training.stack.buffers[name])))

    def spy(number: int):
        drawn.append(number)
        return batch(number)

    fit(training, spy, 2)
    assert len(keys) == len(set(keys)) == 12
    assert drawn == [0, 1, 2, 3]


@pytest.mark.parametrize("seeds", [[3], [3, 8]])
@pytest.mark.parametrize("method", [Alternating(), OnlyHead()], ids=["both", "head"])
def test_a_checkpoint_holds_all_that_phases_need(method, seeds, tmp_path):
    """Ten steps at once, or four and six with a checkpoint between: the same bits."""
    whole, batch = prepare(seeds, SGD, NOISY, method)
    fit(whole, batch, 10)
    first, _ = prepare(seeds, SGD, NOISY, method)
    fit(first, batch, 4)
    checkpoint.save(tmp_path / "at4", first, {})
    second, _ = prepare(seeds, SGD, NOISY, method)
    checkpoint.load(tmp_path / "at4", second)
    fit(second, batch, 10, 4)
    for place in range(len(seeds)):
        assert_bits(snapshot(second, place), snapshot(whole, place))


def test_adams_count_goes_on_as_if_all_had_taken_all_steps():
    """Of each parameter, in as many passes of a step as it takes part in."""
    training, batch = prepare([3], ADAM, method=Alternating())
    fit(training, batch, 5)
    training.wake(30)
    for prefix, times in (("head.", 1), ("backbone.", 2)):
        for name in of(training, prefix):
            assert training.optimizer.state[training.stack.leaves[name]]["step"] == 30 * times


def test_each_pass_scales_its_loss_in_float16():
    """An overflow in the second phase leaves out that pass of that seed, and halves its scale."""
    train = replace(TRAIN, precision="fp16-mixed", optimizer="sgd", lr=0.1)
    fields = {"second": [1.0, 1e6]}
    training, batch = prepare([3, 8], train, method=Alternating(), fields=fields)
    start = {name: p.clone() for name, p in training.stack.params.items()}
    fit(training, batch, 1)
    assert training.scaler is not None
    assert training.scaler.scale.tolist() == [2.0**16, 2.0**14]
    for name, before in start.items():
        moved = training.stack.params[name] != before
        assert moved[0].any()
        assert moved[1].any() == name.startswith("head.")
    assert training.active == [True, True]


def test_a_phase_of_no_parameter_is_refused():
    """Its name may be mistyped."""

    class Mistyped(Naive):
        def phases(self) -> tuple[Phase, ...]:
            return (Phase("loss", ("heda.",)),)

    training, batch = prepare([3], method=Mistyped())
    with pytest.raises(ValueError, match=r"phase loss of Mistyped .* begin with heda\."):
        fit(training, batch, 1)
