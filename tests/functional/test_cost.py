"""Parameters and operations against hand values."""

import pytest
import torch
from torch import nn

from tlresearch.backbones import MLP, ResNet20, ResNet56, build
from tlresearch.functional.cost import count_parameters, forward_flops


def test_a_linear_layer():
    """2 · inputs · outputs: 2 · 7 · 5; 7 · 5 + 5 parameters."""
    layer = nn.Linear(7, 5)
    assert forward_flops(layer, (7,)) == 70
    assert count_parameters(layer) == (40, 40)


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 2)])
def test_a_convolution(stride, groups):
    """2 · k² · inputs / groups · outputs · pixels, with k = 3, 4 inputs, 6 outputs."""
    layer = nn.Conv2d(4, 6, 3, stride, padding=1, groups=groups)
    pixels = (8 // stride) * (10 // stride)
    assert forward_flops(layer, (4, 8, 10)) == 2 * 9 * (4 // groups) * 6 * pixels


def test_hintons_networks():
    """784-1200-1200-10 and 784-800-800-10."""
    for units, parameters in ((1200, 2395210), (800, 1276810)):
        net = build(MLP(hidden=(units, units)), (1, 28, 28), 10, 0)
        assert forward_flops(net, (1, 28, 28)) == 2 * (784 * units + units**2 + units * 10)
        assert count_parameters(net).all == parameters


def test_residual_networks():
    """0.27 and 0.85 million parameters (He et al., table 6), 40.8 and 125.5 million products."""
    small, large = (build(kind(), (3, 32, 32), 10, 0) for kind in (ResNet20, ResNet56))
    assert count_parameters(small).all == pytest.approx(0.27e6, abs=5e3)
    assert count_parameters(large).all == pytest.approx(0.85e6, abs=5e3)
    assert forward_flops(small, (3, 32, 32)) / 2 == pytest.approx(40.8e6, rel=0.01)
    assert forward_flops(large, (3, 32, 32)) / 2 == pytest.approx(125.5e6, rel=0.01)


def test_shared_and_frozen_parameters_count_once_and_apart():
    net = nn.Sequential(shared := nn.Linear(3, 3), nn.BatchNorm1d(3), shared)
    net[1].requires_grad_(False)
    assert count_parameters(net) == (12 + 6, 12)


def test_the_network_stays_as_it_was():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout()).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert forward_flops(net, (3,)) == 18
    assert all(m.training for m in net.modules())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
