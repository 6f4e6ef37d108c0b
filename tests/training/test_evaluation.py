"""Accuracy of a stack: by hand, in chunks, with each seed's own state and settings."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from tlresearch.training.evaluation import accuracy_per_seed
from tlresearch.training.loop import Training, start
from tlresearch.training.method import Method
from tlresearch.training.settings import Train
from tlresearch.training.stack import stack_networks


@dataclass(frozen=True)
class Shifted(Method):
    """Scores of the network, plus what the state and the stacked field say."""

    extra: float = 0.0

    def predict(self, networks, state, x, context):
        return networks(x) + state["shift"] + self.extra * torch.tensor([0.0, 1.0, 0.0])


def training_of(
    shifts: list[list[float]], extras: list[float], precision: Any = "fp32"
) -> Training:
    """Networks that say what they are given: class scores are the three inputs."""
    networks = [nn.Linear(3, 3, bias=False) for _ in shifts]
    for network in networks:
        nn.init.eye_(network.weight)
    train = Train(precision=precision)
    fields = {"extra": torch.tensor(extras)}
    state = {"shift": torch.tensor(shifts)}
    seeds = list(range(len(shifts)))
    return start(seeds, stack_networks(networks), Shifted(), fields, train, state)


X = torch.eye(3)[torch.tensor([0, 1, 2, 2, 1, 0, 0])]
Y = torch.tensor([0, 1, 2, 0, 0, 1, 0])  # four of seven are right


@pytest.mark.parametrize("cuts", [[7], [3, 4], [1, 5, 1], [2, 2, 2, 1]])
def test_accuracy_does_not_depend_on_the_chunks(cuts):
    """4 of 7, in float64, however the samples are cut."""
    training = training_of([[0.0] * 3], [0.0])
    chunks = [(x, y, None) for x, y in zip(X.split(cuts), Y.split(cuts), strict=True)]
    scores = accuracy_per_seed(training, [chunks])
    assert scores.dtype == torch.float64
    assert scores.tolist() == [4 / 7]


def test_each_seed_predicts_with_its_own_state_and_settings():
    """One seed as it is, one whose state says class 0, one whose field says class 1."""
    training = training_of([[0.0] * 3, [9.0, 0.0, 0.0], [0.0] * 3], [0.0, 0.0, 9.0])
    scores = accuracy_per_seed(training, [[(X, Y, None)]] * 3)
    assert scores.tolist() == [4 / 7, 4 / 7, 2 / 7]
    lists = [[(X[:n], Y[:n], None)] for n in (3, 4, 5)]
    assert accuracy_per_seed(training, lists).tolist() == [3 / 3, 2 / 4, 1 / 5]


def test_it_predicts_in_the_precision_of_training():
    """1 + 2⁻¹⁰ is 1 in bfloat16: a tie, which the first class wins."""
    close = torch.tensor([[1.0, 1.0 + 2**-10, 0.0]])
    found = {}
    for precision in ("fp32", "bf16-mixed"):
        training = training_of([[0.0] * 3], [0.0], precision)
        data = [[(close, torch.tensor([0]), None)]]
        found[precision] = accuracy_per_seed(training, data).item()
    assert found == {"fp32": 0.0, "bf16-mixed": 1.0}


def test_the_networks_are_left_in_evaluation_mode():
    """As the docstring says; `fit` puts them back."""
    training = training_of([[0.0] * 3], [0.0])
    training.stack.train()
    accuracy_per_seed(training, [[(X, Y, None)]])
    assert not training.stack.module.training
