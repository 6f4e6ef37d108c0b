"""Every backbone: counts worked out by hand, shapes, seeds, stacks."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from tlresearch.backbones import BACKBONES, build, lookup
from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.dann_cnn import DANNCNN
from tlresearch.backbones.layers import dropout_keys
from tlresearch.backbones.lenet import LeNet
from tlresearch.backbones.mlp import MLP
from tlresearch.errors import UserError
from tlresearch.functional.random import fold, make_key

CASES = {
    "mlp": (MLP(), (1, 28, 28)),
    "mlp with all options": (MLP(hidden=(8, 6), dropout=0.3, norm="batch"), (1, 4, 5)),
    "linear": (MLP(hidden=()), (3, 4, 4)),
    "lenet": (LeNet(), (1, 28, 28)),
    "lenet with dropout": (LeNet(dropout=0.5), (3, 16, 20)),
    "dann_cnn": (DANNCNN(), (3, 28, 28)),
    "conv4": (Conv4(), (1, 28, 28)),
    "conv4 on batch statistics": (Conv4(channels=4, statistics="batch"), (3, 33, 48)),
    "resnet20": (BACKBONES["resnet20"](), (3, 8, 8)),
    "resnet32": (BACKBONES["resnet32"](), (3, 8, 8)),
    "resnet56": (BACKBONES["resnet56"](), (1, 7, 9)),
}
COUNTS = {
    "mlp": (784 * 400 + 400) + (400 * 400 + 400) + 4_010,
    "mlp with all options": (20 * 8 + 16) + (8 * 6 + 12) + 70,  # no bias before batch norm
    "linear": 490,
    "lenet": 431_080,  # Caffe's count for MNIST.
    "lenet with dropout": (75 * 20 + 20) + (500 * 50 + 50) + (50 * 1 * 2 * 500 + 500) + 5_010,
    "dann_cnn": (75 * 32 + 32) + (800 * 48 + 48) + 7_690,
    "conv4": (9 * 64 + 64 + 128) + 3 * (576 * 64 + 64 + 128) + 650,
    "conv4 on batch statistics": (27 * 4 + 4 + 8) + 3 * (36 * 4 + 4 + 8) + (24 * 10 + 10),
    "resnet20": 269_722,  # 0.27 million in table 6 of the paper.
    "resnet32": 464_154,  # 0.46 million.
    "resnet56": 853_018 - 2 * 144,  # 0.85 million, with one input channel instead of three.
}
WIDTHS = {"mlp": 400, "mlp with all options": 6, "linear": 48, "lenet": 500, "conv4": 64}
WIDTHS |= {"dann_cnn": 48 * 4 * 4}
WIDTHS |= {"lenet with dropout": 500, "conv4 on batch statistics": 4 * 2 * 3}


def images(shape, batch=4, seed=1):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("case", CASES)
def test_counts_and_widths(case):
    settings, shape = CASES[case]
    net = build(settings, shape, 10, seed=0).double()
    assert sum(p.numel() for p in net.parameters()) == COUNTS[case]
    assert net.backbone.width == WIDTHS.get(case, 64) == net.head.in_features
    x = images(shape)
    assert net.features(x).shape == (4, net.backbone.width)
    logits = net.eval()(x)
    assert logits.shape == (4, 10) and logits.dtype == torch.float64
    torch.testing.assert_close(logits, net.head(net.backbone(x)), atol=0, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_stack_of_two_equals_two_runs(case):
    """Training mode with a key per seed: logits, gradients and running statistics."""
    settings, shape = CASES[case]
    nets = [build(settings, shape, 3, seed=seed).double() for seed in (0, 1)]
    for seed, net in enumerate(nets):
        for i, name in enumerate(dropout_keys(net)):
            net.get_buffer(name).copy_(fold(make_key(seed, "dropout", 9), i))
    params, buffers = stack_module_state(copy.deepcopy(nets))
    base, x = copy.deepcopy(nets[0]).to("meta"), images(shape)
    y = torch.tensor([0, 1, 2, 1])
    run = vmap(lambda p, b: functional_call(base, (p, b), (x,)), randomness="error", in_dims=(0, 0))
    stacked = run(params, buffers)
    loss = F.cross_entropy(stacked[0], y) + F.cross_entropy(stacked[1], y)
    gradients = torch.autograd.grad(loss, list(params.values()))
    for s, net in enumerate(nets):
        logits = net(x)
        torch.testing.assert_close(stacked[s], logits, atol=1e-10, rtol=1e-10)
        alone = torch.autograd.grad(F.cross_entropy(logits, y), list(net.parameters()))
        for mine, expected in zip(gradients, alone, strict=True):
            torch.testing.assert_close(mine[s], expected, atol=1e-10, rtol=1e-8)
        for name, value in net.named_buffers():
            torch.testing.assert_close(buffers[name][s], value, atol=1e-12, rtol=1e-12)
    assert not torch.equal(stacked[0], stacked[1])


@pytest.mark.parametrize("case", CASES)
def test_evaluation_treats_images_alone(case):
    """The logits of an image depend on its neighbours only where batch statistics are asked for."""
    settings, shape = CASES[case]
    net, x = build(settings, shape, 3, seed=0).double().eval(), images(shape)
    same = torch.allclose(net(x)[:2], net(x[:2]), atol=1e-10, rtol=1e-10)
    assert same == (case != "conv4 on batch statistics")


def test_perceptron_is_its_formula():
    """relu(norm(W₂ relu(norm(W₁ x)))), with torch's own batch norm."""
    net = build(MLP(hidden=(5, 4), norm="batch"), (2, 3, 1), 3, seed=0).double()
    first, second = (m for m in net.backbone.modules() if isinstance(m, nn.Linear))
    x = images((2, 3, 1))
    z = x.reshape(4, 6)
    for linear in (first, second):
        z = z @ linear.weight.T
        z = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()).clamp(min=0)
    torch.testing.assert_close(net.features(x), z, atol=1e-12, rtol=0)


def test_sigmoid_units_are_their_formula():
    net = build(MLP(hidden=(5, 4), activation="sigmoid"), (2, 3, 1), 3, seed=0).double()
    first, second = (m for m in net.backbone.modules() if isinstance(m, nn.Linear))
    x = images((2, 3, 1))
    expected = second(first(x.reshape(4, 6)).sigmoid()).sigmoid()
    torch.testing.assert_close(net.features(x), expected, atol=1e-12, rtol=0)


def test_dropout_acts_on_the_features():
    net = build(MLP(hidden=(400, 400), dropout=0.5), (1, 4, 4), 3, seed=0)
    assert dropout_keys(net) == ["backbone.layers.3.key", "backbone.layers.7.key"]
    x = images((1, 4, 4)).float()
    kept = net.eval().features(x)
    zeros = (net.train().features(x) == 0).float().mean() - (kept == 0).float().mean()
    assert zeros > 0.15


def test_names_do_not_depend_on_the_options():
    plain, full = (MLP(hidden=(5, 4)), MLP(hidden=(5, 4), dropout=0.5, norm="batch"))
    names = [set(build(s, (1, 2, 2), 3, seed=0).state_dict()) for s in (plain, full)]
    biases = {"backbone.layers.0.bias", "backbone.layers.4.bias"}  # batch norm cancels them
    assert names[0] - names[1] == biases
    assert all(".1." in name or ".5." in name for name in names[1] - names[0])


def test_lenet_is_its_layers():
    """Torch's modules in the paper's order, ReLU in front of the pool where it commutes."""
    net = LeNet().build((1, 28, 28)).double()
    x, pool, relu = images((1, 28, 28)), nn.MaxPool2d(2), nn.ReLU()
    layers = (net.conv1, relu, pool, net.conv2, relu, pool, nn.Flatten(), net.fc, relu)
    torch.testing.assert_close(net(x), nn.Sequential(*layers)(x), atol=1e-12, rtol=0)


def test_dann_cnn_is_its_layers():
    """Figure 4a of the paper, ReLU in front of the pool where it commutes."""
    net = DANNCNN().build((3, 28, 28)).double()
    x, pool, relu = images((3, 28, 28)), nn.MaxPool2d(2), nn.ReLU()
    assert (net.conv1.out_channels, net.conv2.out_channels) == (32, 48)
    layers = (net.conv1, relu, pool, net.conv2, relu, pool, nn.Flatten())
    torch.testing.assert_close(net(x), nn.Sequential(*layers)(x), atol=1e-12, rtol=0)


def test_conv4_meta_gradient_under_vmap_is_the_finite_difference():
    """MAML's gradient through one inner step; kinks of ReLU and pool lie off the line."""
    net = build(Conv4(channels=3, statistics="batch"), (1, 16, 16), 3, seed=0).double()
    theta = {k: v.detach() for k, v in net.named_parameters()}
    x, y = images((2, 6, 1, 16, 16), batch=2), torch.tensor([0, 1, 2, 0, 1, 2])

    def loss(params, batch):
        return F.cross_entropy(functional_call(net, params, (batch,)), y)

    def adapted(params, support, query):
        step = grad(loss)(params, support)
        return loss({k: params[k] - 0.4 * step[k] for k in params}, query)

    def meta(params):
        return vmap(lambda s, q: adapted(params, s, q), randomness="error")(*x).mean()

    torch.manual_seed(0)
    direction = {k: torch.randn_like(v) for k, v in theta.items()}
    gradient = grad(meta)(theta)
    slope = sum((gradient[k] * direction[k]).sum() for k in theta)
    step = 1e-6
    ahead, behind = (
        meta({k: theta[k] + sign * step * direction[k] for k in theta}) for sign in (1, -1)
    )
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_seed_decides_the_weights(case):
    settings, shape = CASES[case]
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first, again, other = (build(settings, shape, 3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("settings", [LeNet(), DANNCNN(), Conv4()])
@pytest.mark.parametrize("shape", [(1, 15, 28), (3, 28, 8)])
def test_small_images_are_refused(settings, shape):
    with pytest.raises(UserError, match="at least 16 x 16 pixels") as error:
        build(settings, shape, 10, seed=0)
    assert f"{shape[1]} x {shape[2]}" in str(error.value)


@pytest.mark.parametrize("settings", [LeNet(), DANNCNN(), Conv4()])
def test_smallest_images_pass(settings):
    net = build(settings, (1, 16, 16), 10, seed=0)
    assert net(torch.zeros(2, 1, 16, 16)).shape == (2, 10)


def test_settings_are_frozen():
    for name in BACKBONES:
        settings = lookup(name)()
        assert dataclasses.is_dataclass(settings) and settings == lookup(name)()
        assert hash(settings) == hash(lookup(name)())
    with pytest.raises(dataclasses.FrozenInstanceError):
        MLP().dropout = 0.5  # pyright: ignore[reportAttributeAccessIssue]


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="'ResNet-20'; did you mean resnet20"):
        lookup("ResNet-20")
    with pytest.raises(UserError, match="choose from mlp, lenet, conv4"):
        lookup("vgg")
