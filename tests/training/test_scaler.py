"""The loss scale of each seed is torch's scale of that seed alone."""

from dataclasses import replace

import pytest
import torch
from small_training import TRAIN, Scaled, assert_bits, prepare, snapshot
from torch import Tensor, nn

from tlresearch.training import scaler as module
from tlresearch.training.loop import fit
from tlresearch.training.scaler import LEAST_SCALE, Scaler

HALF = replace(TRAIN, precision="fp16-mixed", optimizer="sgd", lr=0.1)
INF = float("inf")


def gradients_at(step: int, seed: int) -> list[Tensor]:
    """Unscaled gradients, for some seeds and steps not finite."""
    generator = torch.Generator().manual_seed(10 * step + seed)
    weight, bias = torch.randn(3, 2, generator=generator), torch.randn(3, generator=generator)
    if (step, seed) in {(1, 0), (4, 1), (5, 1)}:
        bias[1] = INF if step != 4 else float("nan")
    return [weight, bias]


def test_each_seeds_scale_and_steps_are_those_of_torchs_scaler(monkeypatch):
    """Ten SGD steps of two seeds; the scale grows after three good steps in a row."""
    monkeypatch.setattr(module, "GROWTH_INTERVAL", 3)
    ours = Scaler.start(2, torch.device("cpu"))
    weights = [torch.zeros(2, 3, 2), torch.zeros(2, 3)]
    peers = [torch.amp.GradScaler("cpu", growth_interval=3) for _ in range(2)]
    networks = [nn.Linear(2, 3) for _ in range(2)]
    for network in networks:
        nn.init.zeros_(network.weight)
        nn.init.zeros_(network.bias)
    optimizers = [torch.optim.SGD(network.parameters(), 0.5) for network in networks]
    for step in range(10):
        rows = [gradients_at(step, seed) for seed in range(2)]
        stacked = [torch.stack(column) for column in zip(*rows, strict=True)]
        for g in stacked:
            g.mul_(ours.scale.view(-1, *[1] * (g.dim() - 1)))
        finite = ours.unscale(stacked, stacked=True)
        ours.update(finite, [True, True])
        for w, g in zip(weights, stacked, strict=True):
            w -= 0.5 * g
        for seed, (peer, network, optimizer) in enumerate(
            zip(peers, networks, optimizers, strict=True)
        ):
            peer.scale(torch.zeros(()))  # makes torch's lazy scale
            network.weight.grad, network.bias.grad = (g * peer.get_scale() for g in rows[seed])
            peer.step(optimizer)
            peer.update()
            assert ours.scale[seed].item() == peer.get_scale()
            assert finite[seed] == ((step, seed) not in {(1, 0), (4, 1), (5, 1)})
            torch.testing.assert_close(weights[0][seed], network.weight.detach())
            torch.testing.assert_close(weights[1][seed], network.bias.detach())


def test_the_scale_of_a_stopped_seed_rests():
    """Whatever its gradient is; its sister's goes on."""
    scaler = Scaler.start(2, torch.device("cpu"))
    scaler.update([False, True], [False, True])
    scaler.update([True, True], [False, True])
    assert scaler.scale.tolist() == [2.0**16, 2.0**16]
    assert scaler.good.tolist() == [0, 2]


@pytest.mark.parametrize("seeds", [[3], [3, 8]])
def test_float16_keeps_float32_weights_and_stays_near_float32(seeds):
    """Off float32's end by less than a twentieth of the way."""
    mixed, batch = prepare(seeds, HALF)
    full, _ = prepare(seeds, replace(HALF, precision="fp32"))
    start = [p.clone() for p in full.stack.params.values()]
    for training in (mixed, full):
        fit(training, batch, 10)
    assert all(t.dtype == torch.float32 for t in mixed.step_tensors())
    for before, a, b in zip(
        start, mixed.stack.params.values(), full.stack.params.values(), strict=True
    ):
        assert 0 < (a - b).norm() < 0.05 * (b - before).norm()


def test_an_overflow_leaves_out_the_step_of_its_seed_alone():
    """A loss times 3000 overflows float16 at the first scale; its sister's bits are the same."""
    train = replace(HALF, optimizer="adam", lr=0.001)
    training, batch = prepare([3, 8], train, method=Scaled(), fields={"scale": [1.0, 3000.0]})
    start = snapshot(training, 1)
    fit(training, batch, 1)
    assert training.scaler is not None
    assert training.scaler.scale.tolist() == [2.0**16, 2.0**15]
    assert_bits(snapshot(training, 1)[: len(start)], start)
    fit(training, batch, 30, 1)
    sound, _ = prepare([3, 8], train, method=Scaled(), fields={"scale": [1.0, 1.0]})
    fit(sound, batch, 30)
    assert_bits(snapshot(training, 0), snapshot(sound, 0))
    assert training.active == [True, True]
    assert not torch.equal(snapshot(training, 1)[0], start[0])


def test_a_gradient_that_no_scale_makes_finite_stops_its_seed():
    """A loss times 1e35, finite in float32: 31 scales are tried, and the reason names the last."""
    train = replace(HALF, steps=60)
    training, batch = prepare([3, 8], train, method=Scaled(), fields={"scale": [1.0, 1e35]})
    start = snapshot(training, 1)
    fit(training, batch, 40)
    assert training.active == [True, False]
    assert training.failures[0] is None
    assert f"at loss scale {LEAST_SCALE:g}" in str(training.failures[1])
    assert "step 30" in str(training.failures[1])
    assert_bits(snapshot(training, 1)[: len(start)], start)
