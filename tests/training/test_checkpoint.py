"""A checkpoint gives back what the loop changed, and is written whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tlresearch.backbones.mlp import MLP
from tlresearch.continual import EWC, Naive
from tlresearch.continual.protocol import StackRun, begin
from tlresearch.data import catalogue
from tlresearch.data.batches import PoolData, StageBatches
from tlresearch.data.tasks import StreamSettings, TaskStream, make_stream
from tlresearch.errors import UserError
from tlresearch.functional.penalties import Quadratic
from tlresearch.training import checkpoint, tree
from tlresearch.training.loop import Training, fit
from tlresearch.training.settings import Train

STREAM = StreamSettings("optdigits", tasks=2, scenario="task")
TRAIN = Train(steps=12, batch_size=16, precision="fp64", schedule="cosine")
PLACE = {"stage": 1, "matrix": torch.eye(2), "best": None, "rows": [1.5, "a"]}


def fresh(seeds: list[int], method: Naive | EWC) -> tuple[Training, TaskStream]:
    """A training at step 0 with dropout and batch norm."""
    backbone = MLP(hidden=(6,), dropout=0.2, norm="batch")
    run = StackRun(STREAM, backbone, method, TRAIN, seeds, {})
    stream = make_stream(STREAM, catalogue.load("optdigits"), seeds, dtype=torch.float64)
    return begin(run, stream, torch.device("cpu")), stream


def batches(stream: TaskStream, stage: int) -> Callable[[int], tuple[Any, ...]]:
    pools = [row[stage] for row in stream.train_pools]
    return StageBatches(stream, pools, stage, TRAIN.batch_size, TRAIN.steps).batch


def trained(seeds: list[int], method: Naive | EWC) -> tuple[Training, TaskStream]:
    """One task with its memory, and five steps of the next."""
    training, stream = fresh(seeds, method)
    fit(training, batches(stream, 0), 12)
    states = []
    for place in range(len(seeds)):
        own, networks = training.one(place)
        data: Any = PoolData(stream, place, stream.train_pools[place][0], 0)
        states.append(own.after_task(networks, tree.take(training.state, place), data))
    training.state = tree.stack(states)
    fit(training, batches(stream, 1), 5)
    return training, stream


def everything(training: Training) -> list[Tensor]:
    """Copies of all tensors that a run goes on with."""
    named = training.stack.params | training.stack.buffers
    found = [*training.step_tensors(), *named.values(), *tree.tensors(training.state)]
    return [t.detach().clone() for t in found]


def assert_bits(ours: list[Tensor], others: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(ours, others, strict=True))


@pytest.mark.parametrize("method", [Naive(), EWC(strength=20.0)], ids=["naive", "ewc"])
@pytest.mark.parametrize("seeds", [[3], [3, 8]])
def test_a_checkpoint_gives_everything_back(tmp_path, seeds, method):
    """Weights, buffers, moments, state, steps, flags and place; and training goes on alike."""
    training, stream = trained(seeds, method)
    path = tmp_path / "new" / "checkpoint.pt"
    checkpoint.save(path, training, PLACE)
    other, _ = fresh(seeds, method)
    place = checkpoint.load(path, other)
    assert_bits(everything(other), everything(training))
    assert place.keys() == PLACE.keys()
    assert torch.equal(place.pop("matrix"), torch.eye(2))
    assert place == {"stage": 1, "best": None, "rows": [1.5, "a"]}
    assert type(other.state) is type(training.state)
    assert other.steps == training.steps == [17] * len(seeds)
    assert other.active == training.active
    assert other.failures == training.failures
    for one in (training, other):
        fit(one, batches(stream, 1), 12, first_step=5)
    assert_bits(everything(other), everything(training))


def test_the_quadratic_of_ewc_is_read_as_one(tmp_path):
    """A named tuple of dicts, not of other containers, and not empty."""
    training, _ = trained([3], EWC())
    checkpoint.save(tmp_path / "c.pt", training, {})
    other, _ = fresh([3], EWC())
    assert not other.state.curvature
    checkpoint.load(tmp_path / "c.pt", other)
    assert isinstance(other.state, Quadratic)
    assert list(other.state.curvature) == list(training.state.curvature)
    assert any(f.gt(0).any() for f in other.state.curvature.values())


def test_a_stopped_seed_stays_stopped(tmp_path):
    """Its flag, its reason and its weights, also after more steps of the others."""
    training, stream = trained([3, 8], Naive())
    training.stop(1, "the loss was nan at step 5")
    checkpoint.save(tmp_path / "c.pt", training, {})
    other, _ = fresh([3, 8], Naive())
    checkpoint.load(tmp_path / "c.pt", other)
    kept = [t[1].clone() for t in other.step_tensors()]
    fit(other, batches(stream, 1), 12, first_step=5)
    assert other.active == [True, False]
    assert other.failures == [None, "the loss was nan at step 5"]
    assert other.steps == [24, 17]
    assert_bits([t[1] for t in other.step_tensors()], kept)
    assert not torch.equal(other.step_tensors()[0][0], training.step_tensors()[0][0])


def test_one_seed_still_shares_memory_after_a_load(tmp_path):
    """With S = 1 the module's tensors are the stack's and the optimiser's, before and after."""
    training, _ = trained([3], Naive())
    checkpoint.save(tmp_path / "c.pt", training, {})
    other, _ = fresh([3], Naive())
    checkpoint.load(tmp_path / "c.pt", other)
    stack = other.stack
    stepped = {p for group in other.optimizer.param_groups for p in group["params"]}
    for name, parameter in stack.module.named_parameters():
        assert parameter.data_ptr() == stack.params[name].data_ptr()
        assert parameter is stack.leaves[name]
        assert parameter in stepped
    for name, buffer in stack.module.named_buffers():
        assert buffer.data_ptr() == stack.buffers[name].data_ptr()


def test_a_checkpoint_holds_tensors_and_plain_containers_only(tmp_path):
    """torch reads it with weights_only=True."""
    training, _ = trained([3, 8], EWC())
    checkpoint.save(tmp_path / "c.pt", training, PLACE)
    plain = torch.load(tmp_path / "c.pt", weights_only=True)
    assert plain["steps"] == [17, 17]
    assert plain["params"]["head.weight"].shape == (2, 10, 6)
    assert type(plain["state"]) is dict
    assert set(plain["state"]) == {"curvature", "centre", "constant"}


@pytest.mark.parametrize("failing", ["os.replace", "os.fsync", "torch.save"])
def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch, failing):
    """Its bytes are as they were, and no temporary file is left."""
    training, stream = trained([3], Naive())
    path = tmp_path / "c.pt"
    checkpoint.save(path, training, {})
    before = path.read_bytes()
    fit(training, batches(stream, 1), 7, first_step=5)

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(failing, refuse)
        with pytest.raises(UserError, match="no space left"):
            checkpoint.save(path, training, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    checkpoint.save(path, training, {})
    assert path.read_bytes() != before


class Code:
    """What a hostile file would hold."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.touched),)


def test_a_file_with_code_is_refused(tmp_path):
    """Nothing of it is run."""
    training, _ = fresh([3], Naive())
    torch.save({"params": Code(tmp_path / "ran")}, tmp_path / "c.pt")
    with pytest.raises(UserError, match="cannot be used"):
        checkpoint.load(tmp_path / "c.pt", training)
    assert not (tmp_path / "ran").exists()
