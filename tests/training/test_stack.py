"""A stack of seeds is exactly the separate runs."""

from dataclasses import replace

import pytest
import torch

from tlresearch.backbones import Settings
from tlresearch.backbones.mlp import MLP
from tlresearch.continual import EWC, Joint, Naive, OnlineEWC
from tlresearch.continual.method import FisherSettings
from tlresearch.continual.protocol import StackRun, begin
from tlresearch.data import catalogue
from tlresearch.data.batches import PoolData, StageBatches, joint_pool
from tlresearch.data.tasks import StreamSettings, make_stream
from tlresearch.training import tree
from tlresearch.training.loop import Training, fit
from tlresearch.training.settings import Train

METHODS = {
    "naive": Naive(),
    "joint": Joint(),
    "ewc": EWC(strength=50.0, fisher=FisherSettings(labels="sample", samples=64)),
    "online_ewc": OnlineEWC(strength=50.0, decay=0.7, fisher=FisherSettings(normalize=True)),
}
TRAIN = Train(steps=20, batch_size=16, precision="fp64", clip=0.5, schedule="cosine")
STREAM = StreamSettings("optdigits", tasks=2, scenario="class", class_order="random")
BACKBONE: Settings = MLP(hidden=(12, 8), dropout=0.3, norm="batch")


def train_two_tasks(
    method, seeds, fields=None, backbone: Settings = BACKBONE, stream=STREAM, train=TRAIN
):
    """Task 1, its memory, 20 steps of task 2: so a penalty is at work."""
    run = StackRun(stream, backbone, method, train, seeds, fields or {})
    tasks = make_stream(stream, catalogue.load(stream.dataset), seeds, dtype=torch.float64)
    training = begin(run, tasks, torch.device("cpu"))
    for stage in range(2):
        pools = [
            joint_pool(row[: stage + 1]) if method.sees == "tasks so far" else row[stage]
            for row in tasks.train_pools
        ]
        batches = StageBatches(tasks, pools, stage, train.batch_size, train.steps)
        fit(training, batches.batch, train.steps)
        if stage == 0:
            states = []
            for place, pool in enumerate(pools):
                own, networks = training.one(place)
                state = tree.take(training.state, place)
                states.append(own.after_task(networks, state, PoolData(tasks, place, pool, 0)))
            training.state = tree.stack(states)
    return training


def numbers(training: Training, place: int) -> dict[str, torch.Tensor]:
    """Weights and running statistics of one seed."""
    named = training.stack.params | training.stack.buffers
    return {name: value[place].detach() for name, value in named.items()}


def assert_equal_runs(stacked: Training, place: int, alone: Training) -> None:
    for name, value in numbers(alone, 0).items():
        torch.testing.assert_close(numbers(stacked, place)[name], value, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_stack_of_three_equals_three_runs(name):
    """20 steps in float64 with dropout, batch norm, clipping and a schedule, to 1e-9."""
    stacked = train_two_tasks(METHODS[name], [3, 7, 11])
    for place, seed in enumerate([3, 7, 11]):
        assert_equal_runs(stacked, place, train_two_tasks(METHODS[name], [seed]))
    first, second = (numbers(stacked, place)["head.weight"] for place in (0, 1))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("name", ["naive", "ewc"])
def test_a_seed_has_its_numbers_in_any_stack(name):
    """Another neighbour, another place: the same weights."""
    one = train_two_tasks(METHODS[name], [5, 1])
    other = train_two_tasks(METHODS[name], [9, 2, 5])
    for key, value in numbers(one, 0).items():
        torch.testing.assert_close(numbers(other, 2)[key], value, atol=1e-9, rtol=0)


def test_stacked_strengths_equal_separate_runs():
    """λ as a tensor over the stack is three runs with three numbers."""
    strengths = [0.0, 30.1, 900.7]  # no whole numbers: float32 would be another λ
    stacked = train_two_tasks(METHODS["ewc"], [4, 4, 4], {"strength": strengths})
    for place, strength in enumerate(strengths):
        alone = train_two_tasks(replace(METHODS["ewc"], strength=strength), [4])
        assert_equal_runs(stacked, place, alone)


def test_a_mapped_convolution_equals_separate_runs():
    """The same holds for convolutions with batch norm."""
    from tlresearch.backbones.conv4 import Conv4

    stream = replace(STREAM, pad=4, scenario="domain")
    short = replace(TRAIN, steps=3, optimizer="sgd", momentum=0.9, schedule="constant")
    stacked = train_two_tasks(Naive(), [0, 1], None, Conv4(), stream, short)
    for place in range(2):
        alone = train_two_tasks(Naive(), [place], None, Conv4(), stream, short)
        assert_equal_runs(stacked, place, alone)


def test_one_seed_is_called_directly():
    """With S = 1 the module's own tensors are the stack's."""
    training = train_two_tasks(Naive(), [0])
    for name, parameter in training.stack.module.named_parameters():
        assert parameter.data_ptr() == training.stack.params[name].data_ptr()


def test_compiled_stack_equals_eager():
    """`compile` changes nothing but the time."""
    pytest.importorskip("torch._inductor")
    eager = train_two_tasks(METHODS["ewc"], [0, 1])
    compiled = train_two_tasks(METHODS["ewc"], [0, 1], train=replace(TRAIN, compile=True))
    for place in range(2):
        for name, value in numbers(eager, place).items():
            torch.testing.assert_close(numbers(compiled, place)[name], value, atol=1e-7, rtol=0)
