"""The bound of each unit's incoming weights."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_training import TRAIN, prepare
from torch import nn

from tlresearch.training.loop import fit
from tlresearch.training.max_norm import bound_weights
from tlresearch.training.stack import stack_networks


def networks(seeds: int) -> list[nn.Module]:
    made = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 2))
        made.append(net.double())
    return made


@pytest.mark.parametrize("seeds", [1, 3])
def test_units_that_are_too_long_end_at_the_bound_and_others_stay(seeds: int):
    stack = stack_networks(networks(seeds))
    before = {name: tensor.clone() for name, tensor in stack.params.items()}
    bound_weights(stack, 0.6)
    for name, tensor in stack.params.items():
        if name.endswith("bias"):
            assert torch.equal(tensor, before[name])
            continue
        for s in range(seeds):
            for unit, old in zip(tensor[s], before[name][s], strict=True):
                length = old.square().sum().sqrt()
                wanted = old * 0.6 / length if length > 0.6 else old
                torch.testing.assert_close(unit, wanted, rtol=1e-12, atol=0)
    assert any(not torch.equal(t, before[name]) for name, t in stack.params.items())
    assert any(
        torch.equal(t[s, i], before[name][s, i])
        for name, t in stack.params.items()
        if name.endswith("weight")
        for s in range(seeds)
        for i in range(t.shape[1])
    )


def test_the_optimisers_leaves_are_the_ones_that_are_bounded():
    stack = stack_networks(networks(2))
    bound_weights(stack, 0.1)
    for name, leaf in stack.leaves.items():
        assert torch.equal(leaf.detach().norm(), stack.params[name].norm()), (
            f"{name} has another memory"
        )
    assert stack.leaves["2.weight"].norm(dim=1).max() <= 0.1 + 1e-12


@pytest.mark.parametrize("seeds", [[3], [3, 8]])
def test_fit_bounds_after_each_step(seeds: list[int]):
    """The loop by hand, with torch's renorm; without the bound it would end elsewhere."""
    train = replace(TRAIN, optimizer="sgd", lr=0.1, momentum=0.9, max_norm=0.4, steps=10)
    training, batch = prepare(seeds, train)
    plain, _ = prepare(seeds, replace(train, max_norm=0.0))
    networks = [deepcopy(prepare([seed], train)[0].stack.module) for seed in seeds]
    fit(training, batch, 10)
    fit(plain, batch, 10)
    for place, network in enumerate(networks):
        optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, foreach=False)
        for step in range(10):
            x, y, mask = (t[place] for t in batch(step))
            optimizer.zero_grad()
            F.cross_entropy(network(x)[:, mask], y).backward()
            optimizer.step()
            with torch.no_grad():
                for parameter in network.parameters():
                    if parameter.dim() == 2:
                        parameter.copy_(parameter.renorm(2, 0, 0.4))
        for name, parameter in network.named_parameters():
            ours = training.stack.params[name][place]
            torch.testing.assert_close(ours, parameter.detach(), atol=1e-6, rtol=0)
    other = plain.stack.params["head.weight"]
    assert (training.stack.params["head.weight"] - other).abs().max() > 0.01
