"""The weights that a run hands out are those it ended with."""

from typing import Any

import pytest
import torch
from torch import nn

from tlresearch.backbones.mlp import MLP
from tlresearch.continual import Naive
from tlresearch.continual.protocol import StackRun, run_stack
from tlresearch.data.tasks import StreamSettings
from tlresearch.training.best import Best
from tlresearch.training.observer import RunFiles
from tlresearch.training.settings import Train
from tlresearch.training.weights import weights_of

STREAM = StreamSettings("tiny", tasks=3, scenario="task", validation=0.3)
TRAIN = Train(steps=12, batch_size=16, lr=0.05, evaluate_every=2, checkpoint="selected")
BACKBONE = MLP(hidden=(12,), dropout=0.3, norm="batch")


def outcomes(folder: Any, seeds: list[int]) -> list[Any]:
    files = RunFiles(folder / "checkpoint.pt", folder / "metrics.jsonl")
    run = StackRun(STREAM, BACKBONE, Naive(), TRAIN, seeds, {})
    return run_stack(run, torch.device("cpu"), files)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("seeds", [[5], [5, 2]])
def test_selected_weights_are_handed_out(tmp_path, monkeypatch, seeds):
    """Those that were best on the held-out part of the last task, not those of the last step."""
    restored: list[dict[str, torch.Tensor]] = []
    last: list[dict[str, torch.Tensor]] = []
    restore = Best.restore

    def spy(best: Best, stack: Any) -> None:
        last.append({k: v.detach().clone() for k, v in stack.params.items()})
        restore(best, stack)
        restored.append({k: v.clone() for k, v in (best.params | best.buffers).items()})

    monkeypatch.setattr(Best, "restore", spy)
    found = outcomes(tmp_path, seeds)
    network = Naive().networks(BACKBONE, (1, 4, 4), 6, 0)
    moved = []
    for place, outcome in enumerate(found):
        assert list(outcome.weights) == list(network.state_dict())
        for name, value in outcome.weights.items():
            assert torch.equal(value, restored[-1][name][place])
        moved.append(
            not torch.equal(last[-1]["head.weight"][place], outcome.weights["head.weight"])
        )
    assert any(moved)


def test_weights_are_copies_that_share_nothing():
    """Tied and turned tensors too; each lies row by row, and buffers that do not persist stay."""
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    network[2].weight = network[0].weight
    network[0].weight.data = torch.rand(3, 3).T
    network.register_buffer("key", torch.zeros(()), persistent=False)
    weights = weights_of(network)
    assert list(weights) == list(network.state_dict()) and "key" not in weights
    assert all(value.is_contiguous() and not value.requires_grad for value in weights.values())
    own = {value.data_ptr() for value in weights.values()}
    assert len(own) == len(weights)
    assert not own & {value.data_ptr() for value in network.state_dict().values()}
    assert torch.equal(weights["0.weight"], network.state_dict()["0.weight"])
