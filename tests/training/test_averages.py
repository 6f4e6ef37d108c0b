"""The exponential average is the recursion of its docstring, seed by seed."""

from dataclasses import replace

import pytest
import torch
from small_training import TRAIN, poisoned, prepare

from tlresearch.backbones.mlp import MLP
from tlresearch.training.averages import Average
from tlresearch.training.loop import Silent, Training, fit
from tlresearch.training.method import Loss

NORM = MLP(hidden=(6,), norm="batch")


def floating(training: Training) -> dict[str, torch.Tensor]:
    named = training.stack.params | training.stack.buffers
    return {k: t.detach().clone() for k, t in named.items() if t.is_floating_point()}


class ByHand(Silent):
    """w̄ ← d w̄ + (1 − d) w, written out."""

    def __init__(self, training: Training, decay: float) -> None:
        self.training, self.decay, self.values = training, decay, floating(training)

    def after_step(self, step: int, loss: Loss) -> None:
        for name, now in floating(self.training).items():
            self.values[name] = self.decay * self.values[name] + (1 - self.decay) * now


@pytest.mark.parametrize("seeds", [[3], [3, 8]])
def test_the_average_of_ten_steps(seeds):
    """Weights and running statistics, in float64 to 1e-12."""
    training, batch = prepare(seeds, replace(TRAIN, average=0.7), NORM)
    training.average = Average.start(training.stack, 0.7)
    by_hand = ByHand(training, 0.7)
    fit(training, batch, 10, observer=by_hand)
    assert len(by_hand.values) == len(training.average.values) == 7
    for name, value in training.average.values.items():
        torch.testing.assert_close(value, by_hand.values[name], atol=1e-12, rtol=0)


def test_a_stopped_seeds_average_stays():
    """The seed that stops at step 4 keeps the average of four steps; its sister's goes on."""
    training, batch = prepare([3, 8], replace(TRAIN, average=0.7))
    training.average = Average.start(training.stack, 0.7)
    fit(training, poisoned(batch, 1, 4), 10)
    short, _ = prepare([3, 8], replace(TRAIN, average=0.7))
    short.average = Average.start(short.stack, 0.7)
    fit(short, batch, 4)
    for name, value in training.average.values.items():
        assert torch.equal(value[1], short.average.values[name][1])
        assert not torch.equal(value[0], short.average.values[name][0])


def test_swap_exchanges_and_swaps_back():
    """Twice is nothing; once puts the average into the very tensors that train."""
    training, batch = prepare([3, 8], TRAIN, NORM)
    training.average = Average.start(training.stack, 0.9)
    fit(training, batch, 5)
    weights = floating(training)
    average = {k: v.clone() for k, v in training.average.values.items()}
    training.average.swap(training.stack)
    assert all(torch.equal(floating(training)[k], average[k]) for k in average)
    leaf = training.stack.leaves["head.weight"].transpose(1, 2)
    assert torch.equal(leaf, average["head.weight"])
    training.average.swap(training.stack)
    assert all(torch.equal(floating(training)[k], weights[k]) for k in weights)
