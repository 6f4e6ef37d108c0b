"""What a step costs does not grow with the number of tasks."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tlresearch.continual import METHODS
from tlresearch.functional.random import make_key
from tlresearch.training import tree
from tlresearch.training.method import Labelled


class Data:
    """Ten samples of one task."""

    def __init__(self, seed: int) -> None:
        self.seed, g = seed, torch.Generator().manual_seed(seed)
        self.x, self.y = torch.randn(10, 5, generator=g), torch.randint(0, 3, (10,), generator=g)

    def places(self, samples: int | None = None, multiple: int = 1) -> range:
        return range(10)

    def average(self, tree: Any, weight: float, /) -> Any:
        return tree

    def batches(self, samples: int | None = None, multiple: int = 1):
        yield self.x, self.y, None

    def key(self, purpose: str) -> torch.Tensor:
        return make_key(self.seed, purpose)


class Operations(TorchDispatchMode):
    """Collects the operations on tensors, and the sizes of what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen.append((str(func), sum(t.numel() for t in tree.tensors(result))))
        return result


def after(method: Any, tasks: int) -> tuple[list[torch.Size], list[tuple[str, int]]]:
    """Shapes of the state after so many tasks, and the operations of a step's loss and gradient."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    state = method.init(network)
    for seed in range(tasks):
        with torch.no_grad():
            for p in network.parameters():
                p.add_(0.1 * torch.randn_like(p))
        state = method.after_task(network, state, Data(seed))
    data = Data(99)
    with Operations() as operations:
        method.loss(network, state, Labelled(data.x, data.y, None)).total.backward()
    return [t.shape for t in tree.tensors(state)], operations.seen


@pytest.mark.parametrize("name", METHODS)
def test_a_step_costs_the_same_after_six_tasks_as_after_two(name):
    """The same operations on the same numbers of elements, and a state of the same shapes."""
    method: Any = METHODS[name]()
    few, many = after(method, 2), after(method, 6)
    assert few[1]
    assert many == few
