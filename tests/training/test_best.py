"""The best weights of each seed, by hand-made scores."""

import torch
from torch import nn

from tlresearch.training.best import Best
from tlresearch.training.stack import SeedStack, stack_networks


def make(seeds: int) -> SeedStack:
    """Linear layer and batch norm: parameters, running statistics and a whole-number buffer."""
    return stack_networks([nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in range(seeds)])


def fill(stack: SeedStack, number: int) -> None:
    with torch.no_grad():
        for value in (stack.params | stack.buffers).values():
            value.fill_(number)


def holds(stack: SeedStack, numbers: list[int]) -> None:
    """Every tensor of seed i holds numbers[i]."""
    for value in (stack.params | stack.buffers).values():
        for place, number in enumerate(numbers):
            assert value[place].eq(number).all()


def scores(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_each_seed_keeps_its_own_best():
    """Best at the 2nd, 3rd and 1st of three times, restored together."""
    stack = make(3)
    best = Best.start(stack)
    for number, score in enumerate([(0.1, 0.2, 0.9), (0.8, 0.1, 0.3), (0.5, 0.7, 0.4)], 1):
        fill(stack, number)
        best.update(stack, scores(*score))
    assert torch.equal(best.score, scores(0.8, 0.7, 0.9))
    fill(stack, 7)
    best.restore(stack)
    holds(stack, [2, 3, 1])


def test_ties_keep_the_earlier():
    """An equal score changes nothing; a higher one does."""
    stack = make(2)
    best = Best.start(stack)
    for number, score in enumerate([(0.5, 0.5), (0.5, 0.6)], 1):
        fill(stack, number)
        best.update(stack, scores(*score))
    best.restore(stack)
    holds(stack, [1, 2])


def test_without_a_score_restores_the_start():
    """NaN is no score; then the weights are those at the start."""
    stack = make(2)
    fill(stack, 4)
    best = Best.start(stack)
    fill(stack, 5)
    best.update(stack, scores(float("nan"), 0.0))
    best.restore(stack)
    holds(stack, [4, 5])


def test_snapshots_do_not_move_with_the_weights():
    """Writing to the stack in place after an update leaves the snapshot."""
    stack = make(1)
    fill(stack, 1)
    best = Best.start(stack)
    best.update(stack, scores(0.3))
    fill(stack, 2)
    best.restore(stack)
    holds(stack, [1])


def test_restores_what_the_optimiser_steps_and_the_module_sees():
    """For S = 1 and S > 1 leaves and params stay the same memory."""
    for seeds in (1, 2):
        stack = make(seeds)
        fill(stack, 3)
        best = Best.start(stack)
        fill(stack, 4)
        best.restore(stack)
        assert all(leaf.eq(3).all() for leaf in stack.leaves.values())
        assert all(p.eq(3).all() for p in stack.one(seeds - 1).parameters())
