"""`fit` is the plain loop one would write by hand, for each seed on its own."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_training import TRAIN, Scaled, assert_bits, poisoned, prepare, snapshot
from torch import Tensor, nn

from tlresearch.backbones.mlp import MLP
from tlresearch.training.loop import Silent, Training, fit
from tlresearch.training.method import Loss


def plain_network(training: Training, place: int) -> nn.Sequential:
    """The network of `prepare`, written by hand, with the weights of one seed."""
    network = nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 12), nn.ReLU()),
        *(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 10)),
    ).double()
    with torch.no_grad():
        values = training.stack.params.values()
        for parameter, value in zip(network.parameters(), values, strict=True):
            parameter.copy_(value[place])
    return network


OPTIMISERS = {
    "adam": (TRAIN, lambda p: torch.optim.Adam(p, lr=0.01, fused=False, foreach=False)),
    "adam_l2": (
        replace(TRAIN, weight_decay=0.1, betas=(0.7, 0.9)),
        lambda p: torch.optim.Adam(p, 0.01, (0.7, 0.9), weight_decay=0.1, foreach=False),
    ),
    "adamw": (
        replace(TRAIN, optimizer="adamw", weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, foreach=False),
    ),
    "sgd": (
        replace(TRAIN, optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01, foreach=False),
    ),
}
SCHEDULES = {
    "constant": ({}, lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1.0)),
    "cosine": ({}, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=30)),
    "multistep": (
        {"milestones": (0.5, 0.8), "gamma": 0.3},
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [15, 24], 0.3),
    ),
}
CASES = [(o, "constant") for o in OPTIMISERS] + [("adam", "cosine"), ("sgd", "multistep")]


@pytest.mark.parametrize("seeds", [[3], [3, 8]])
@pytest.mark.parametrize(("optimiser", "schedule"), CASES)
def test_fit_is_the_plain_loop(seeds, optimiser, schedule):
    """30 steps in float64 to 1e-10, with torch's own optimisers and schedulers."""
    train, make = OPTIMISERS[optimiser]
    settings, make_schedule = SCHEDULES[schedule]
    training, batch = prepare(seeds, replace(train, schedule=schedule, **settings))
    networks = [plain_network(training, place) for place in range(len(seeds))]
    fit(training, batch, 30)
    for place, network in enumerate(networks):
        optimizer = make(network.parameters())
        scheduler = make_schedule(optimizer)
        for step in range(30):
            x, y, mask = (t[place] for t in batch(step))
            loss = F.cross_entropy(network(x)[:, mask], y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        values = training.stack.params.values()
        for parameter, value in zip(network.parameters(), values, strict=True):
            torch.testing.assert_close(value[place], parameter.detach(), atol=1e-10, rtol=0)
    assert training.steps == [30] * len(seeds)


@pytest.mark.parametrize("seeds", [[3], [3, 8]])
def test_accumulated_passes_are_one_batch(seeds):
    """Four passes of 4 samples: the steps of 16 samples, to 1e-10 in float64; terms too."""
    whole, batch = prepare(seeds, replace(TRAIN, clip=0.5))
    small = replace(TRAIN, clip=0.5, batch_size=4, accumulate=4, steps=120)
    parts, of_four = prepare(seeds, small)
    for part in (0, 3):
        assert torch.equal(of_four(part)[0], batch(0)[0][:, 4 * part : 4 * part + 4])
    seen: list[list[Loss]] = [[], []]
    for training, batches, losses in ((whole, batch, seen[0]), (parts, of_four, seen[1])):
        fit(training, batches, 10, observer=Losses(losses))
    for a, b in zip(parts.step_tensors(), whole.step_tensors(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)
    for a, b in zip(*seen, strict=True):
        torch.testing.assert_close(b.total.detach(), a.total.detach())
        torch.testing.assert_close(b.terms["cross_entropy"], a.terms["cross_entropy"].detach())
    assert parts.steps == [10] * len(seeds)


class Losses(Silent):
    def __init__(self, seen: list[Loss]) -> None:
        self.seen = seen

    def after_step(self, step: int, loss: Loss) -> None:
        self.seen.append(loss)


def test_each_pass_of_a_step_has_its_own_dropout():
    """2 passes × 4 steps: 8 keys."""
    train = replace(TRAIN, accumulate=2, batch_size=8)
    training, batch = prepare([3], train, backbone=MLP(hidden=(12,), dropout=0.3))
    keys: list[int] = []

    def spy(number: int) -> tuple[Any, ...]:
        keys.append(int(training.stack.buffers[training.dropout_layers[0]]))
        return batch(number)

    fit(training, spy, 4)
    assert len(set(keys)) == 8


@pytest.mark.parametrize("seeds", [[3], [3, 8]])
def test_a_stopped_seed_keeps_its_running_statistics(seeds):
    """Those from before the pass that gave the reason to stop; its sister's move on."""
    backbone = MLP(hidden=(12,), norm="batch")
    training, batch = prepare(seeds, backbone=backbone)
    before, _ = prepare(seeds, backbone=backbone)
    fit(training, poisoned(batch, 0, 4), 10)
    fit(before, batch, 4)
    assert len(training.statistics) == 3
    for name in training.statistics:
        ours, others = training.stack.buffers[name], before.stack.buffers[name]
        assert torch.equal(ours[0], others[0])
        assert len(seeds) == 1 or not torch.equal(ours[1], others[1])


STOPPING = {
    "adam": replace(TRAIN, clip=0.5, schedule="cosine"),
    "sgd": replace(TRAIN, optimizer="sgd", momentum=0.9, weight_decay=0.01),
}


@pytest.mark.parametrize("at", [0, 1, 12])
@pytest.mark.parametrize("name", STOPPING)
def test_a_non_finite_loss_stops_its_seed_alone(name, at):
    """It keeps the bits before that step, moments too; its sisters have those without trouble."""
    seeds, dropout = [3, 8, 5], MLP(hidden=(12, 8), dropout=0.2)
    sound, batch = prepare(seeds, STOPPING[name], dropout)
    fit(sound, batch, 30)
    before, _ = prepare(seeds, STOPPING[name], dropout)
    fit(before, batch, at)
    training, _ = prepare(seeds, STOPPING[name], dropout)
    fit(training, poisoned(batch, 1, at), 30)
    assert training.active == [True, False, True]
    assert training.steps == [30, at, 30]
    assert training.failures[0] is training.failures[2] is None
    assert f"step {at}" in str(training.failures[1])
    for place in (0, 2):
        assert_bits(snapshot(training, place), snapshot(sound, place))
    count = len(training.stack.leaves)
    assert_bits(snapshot(training, 1)[:count], snapshot(before, 1)[:count])
    if at:
        assert_bits(snapshot(training, 1), snapshot(before, 1))
    else:
        assert all(t.eq(0).all() for t in snapshot(training, 1)[count:])


def test_a_stacked_field_can_stop_its_seed():
    """A loss times infinity stops the second of three at step 0."""
    training, batch = prepare(
        [3, 3, 3], method=Scaled(), fields={"scale": [1.0, float("inf"), 2.0]}
    )
    start = snapshot(training, 1)
    fit(training, batch, 10)
    sound, _ = prepare([3, 3, 3], method=Scaled(), fields={"scale": [1.0, 7.0, 2.0]})
    fit(sound, batch, 10)
    assert training.steps == [10, 0, 10]
    assert_bits(snapshot(training, 1)[: len(start)], start)
    for place in (0, 2):
        assert_bits(snapshot(training, place), snapshot(sound, place))


def test_a_stopped_seed_stays_stopped_after_the_moments_are_forgotten():
    """`reset_optimizer` after a stop: the others train on, the stopped one keeps its weights."""
    training, batch = prepare([3, 8])
    fit(training, poisoned(batch, 1, 4), 10)
    count = len(training.stack.leaves)
    kept, moved = snapshot(training, 1)[:count], snapshot(training, 0)[:count]
    training.reset_optimizer()
    fit(training, batch, 10)
    assert training.steps == [20, 4]
    assert_bits(snapshot(training, 1)[:count], kept)
    assert not torch.equal(snapshot(training, 0)[0], moved[0])


class Steps(Silent):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def after_step(self, step: int, loss: Loss) -> None:
        self.seen.append(step)


@pytest.mark.parametrize("seeds", [[3], [3, 8]])
def test_fit_ends_when_no_seed_is_left(seeds):
    """With the weights and moments before the trouble; another fit does nothing."""
    before, batch = prepare(seeds)
    fit(before, batch, 5)
    training, _ = prepare(seeds)
    steps = Steps()

    def poison(step: int) -> tuple[Tensor, ...]:
        x, *rest = batch(step)
        return (x * float("nan") if step == 5 else x, *rest)

    fit(training, poison, 30, observer=steps)
    assert steps.seen == [0, 1, 2, 3, 4]
    assert training.steps == [5] * len(seeds)
    fit(training, batch, 30)
    for place in range(len(seeds)):
        assert "nan at step 5" in str(training.failures[place])
        assert_bits(snapshot(training, place), snapshot(before, place))


def test_fit_goes_on_where_it_was():
    """30 steps at once or in three pieces: the same bits, dropout and schedule too."""
    train = replace(TRAIN, schedule="cosine")
    whole, batch = prepare([3, 8], train, MLP(hidden=(12,), dropout=0.4))
    pieces, _ = prepare([3, 8], train, MLP(hidden=(12,), dropout=0.4))
    fit(whole, batch, 30)
    for first, last in ((0, 7), (7, 8), (8, 30)):
        fit(pieces, batch, last, first)
    for place in range(2):
        assert_bits(snapshot(pieces, place), snapshot(whole, place))


def weights(training: Training) -> Tensor:
    """A copy of all weights, one row for each seed."""
    return torch.cat([p.flatten(1) for p in training.stack.params.values()], 1).clone()


@pytest.mark.parametrize("seeds", [[3], [3, 8]])
def test_mixed_precision_keeps_float32_weights(seeds):
    """bf16-mixed: off float32's end by less than a fifth of the way; kept in float32."""
    train = replace(TRAIN, optimizer="sgd", momentum=0.5, lr=0.1)
    mixed, batch = prepare(seeds, replace(train, precision="bf16-mixed"))
    full, _ = prepare(seeds, replace(train, precision="fp32"))
    start = weights(full)
    for training in (mixed, full):
        fit(training, batch, 10)
        assert all(t.dtype == torch.float32 for t in training.step_tensors())
    gap, way = weights(mixed) - weights(full), weights(full) - start
    assert (gap.norm(dim=1) > 0).all()
    assert (gap.norm(dim=1) < 0.2 * way.norm(dim=1)).all()


class Keys(Silent):
    """Collects the key of every dropout layer at every step."""

    def __init__(self, training: Training) -> None:
        self.training, self.seen = training, []

    def after_step(self, step: int, loss: Loss) -> None:
        names = self.training.dropout_layers
        self.seen.append(torch.stack([self.training.stack.buffers[n].clone() for n in names], 1))


def test_dropout_keys_differ_between_steps_seeds_and_layers():
    """8 steps × 2 seeds × 2 layers: 32 keys; a seed has its own in any stack."""
    seen = {}
    for seeds in ([3, 8], [8]):
        training, batch = prepare(seeds, backbone=MLP(hidden=(12, 8), dropout=0.3))
        keys = Keys(training)
        fit(training, batch, 8, observer=keys)
        seen[len(seeds)] = torch.stack(keys.seen)
    assert seen[2].shape == (8, 2, 2)
    assert len(seen[2].unique()) == 32
    assert torch.equal(seen[2][:, 1], seen[1][:, 0])
