"""Foreign norms and dropout made exact: same names and values, right in second order."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from tlresearch.backbones.conversion import CountedDropout, convert, restart, unsplit
from tlresearch.backbones.layers import BatchNorm2d

F64 = torch.float64


class Renamed(nn.BatchNorm2d):
    """A kind of its own with torch's forward pass."""


class Other(nn.BatchNorm2d):
    """A forward pass of its own."""

    def forward(self, input):
        return super().forward(input)


NORMS = {
    "batch": (nn.BatchNorm2d, (4,), (6, 4, 3, 3)),
    "batch 1d": (nn.BatchNorm1d, (4,), (6, 4)),
    "batch of sequences": (nn.BatchNorm1d, (4,), (6, 4, 5)),
    "batch 3d": (nn.BatchNorm3d, (4,), (6, 4, 2, 3, 2)),
    "renamed": (Renamed, (4,), (6, 4, 3, 3)),
    "layer": (nn.LayerNorm, ([3, 3],), (6, 4, 3, 3)),
    "instance": (lambda n: nn.InstanceNorm2d(n, affine=True), (4,), (6, 4, 3, 3)),
    "instance, tracked": (lambda n: nn.InstanceNorm1d(n, 1e-5, 0.2, True, True), (4,), (6, 4, 5)),
}


def made(case: str) -> tuple[nn.Module, torch.Tensor]:
    """A norm with random scale and shift in float64, and an input."""
    torch.manual_seed(0)
    kind, arguments, shape = NORMS[case]
    layer = kind(*arguments).to(F64)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer, 2 + 3 * torch.randn(shape, dtype=F64)


@pytest.mark.parametrize("case", NORMS)
def test_a_converted_norm_has_torchs_names_values_and_statistics(case: str):
    """Three steps of training, then evaluation; to 1e-12 in float64."""
    theirs, x = made(case)
    ours = copy.deepcopy(theirs)
    convert(ours)
    assert type(ours) is not type(theirs) and isinstance(ours, type(theirs))
    assert unsplit(theirs) and not unsplit(ours)
    for step in range(4):
        if step == 3:
            theirs.eval()
            ours.eval()
        torch.testing.assert_close(ours(x + step), theirs(x + step), atol=1e-12, rtol=0)
    mine, expected = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(mine[name], value, atol=1e-12, rtol=0)
    ours.load_state_dict(expected)


def meta_gradients(layer: nn.Module, mapped: bool) -> list[torch.Tensor]:
    """∇θ Σ over tasks of L(θ − ½∇L(θ; x, y); x', y'): by `vmap`, or by double backward."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), copy.deepcopy(layer), nn.ReLU())
    net = nn.Sequential(net, nn.Flatten(), nn.Linear(36, 3)).to(F64)
    x, query = torch.randn(2, 3, 5, 1, 3, 3, dtype=F64)
    y = torch.randint(0, 3, (3, 5))
    theta = {k: p.detach().clone().requires_grad_() for k, p in net.named_parameters()}

    def loss(params, images, labels):
        return F.cross_entropy(functional_call(net, params, (images,)), labels)

    def adapted(params, support, images, labels):
        if mapped:
            slope = grad(loss)(params, support, labels)
        else:
            value = loss(params, support, labels)
            slopes = torch.autograd.grad(value, list(params.values()), create_graph=True)
            slope = dict(zip(params, slopes, strict=True))
        return loss({k: p - 0.5 * slope[k] for k, p in params.items()}, images, labels)

    if mapped:
        total = vmap(adapted, (None, 0, 0, 0))(theta, x, query, y).sum()
    else:
        tasks = zip(x, query, y, strict=True)
        total = torch.stack([adapted(theta, *task) for task in tasks]).sum()
    return list(torch.autograd.grad(total, list(theta.values())))


def gap(layer: nn.Module) -> float:
    """Largest difference between the mapped meta-gradient and the reference."""
    pairs = zip(meta_gradients(layer, True), meta_gradients(layer, False), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


SECOND_ORDER = {
    "batch": nn.BatchNorm2d(4, track_running_stats=False),
    "renamed": Renamed(4, track_running_stats=False),
    "layer": nn.LayerNorm([4, 3, 3]),
    "instance": nn.InstanceNorm2d(4, affine=True),
}


@pytest.mark.parametrize("case", SECOND_ORDER)
def test_only_the_converted_norm_is_right_in_second_order(case: str):
    """Torch's own is off by 1e-3 and more under `vmap`; if that is ever mended, convert less."""
    layer = SECOND_ORDER[case]
    assert gap(layer) > 1e-3
    converted = copy.deepcopy(layer)
    convert(converted)
    assert gap(converted) < 1e-12


def test_group_norm_needs_no_conversion():
    """It is right in second order as it is."""
    assert gap(nn.GroupNorm(2, 4)) < 1e-12
    assert not unsplit(nn.GroupNorm(2, 4))


@pytest.mark.parametrize(
    "layer", [Other(4), nn.SyncBatchNorm(4), nn.BatchNorm2d(4, momentum=None)], ids=str
)
def test_what_cannot_be_converted_exactly_stays_and_is_named(layer: nn.Module):
    net, kind = nn.Sequential(layer), type(layer)
    convert(net)
    assert type(net[0]) is kind
    assert unsplit(net) == [f"0 ({kind.__name__})"]


def test_norms_without_scale_stay_and_are_right():
    net = nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.InstanceNorm2d(4))
    convert(net)
    assert type(net[0]) is nn.BatchNorm2d and not unsplit(net)


def test_conversion_keeps_the_object_and_is_done_once():
    """Hooks and whoever holds the layer see the same one."""
    layer = nn.BatchNorm2d(4)
    net = nn.ModuleList([layer, layer, BatchNorm2d(4)])
    convert(net)
    kinds = [type(m) for m in net]
    convert(net)
    assert net[0] is net[1] is layer and kinds == [type(m) for m in net] == [BatchNorm2d] * 3


def test_norm_and_activation_of_timm():
    """`BatchNormAct2d` keeps its activation and its names."""
    timm = pytest.importorskip("timm")
    theirs = timm.layers.BatchNormAct2d(4, inplace=False).to(F64)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours = copy.deepcopy(theirs)
    convert(ours)
    x = torch.randn(6, 4, 3, 3, dtype=F64)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-12, rtol=0)
    assert (ours(x) >= 0).all() and (ours(x) == 0).any()
    assert not unsplit(ours) and list(ours.state_dict()) == list(theirs.state_dict())


def test_dropout_depends_on_its_key_and_on_the_call():
    """Torch's dropout becomes keyed; twice in one pass gives two masks, the next pass the same."""
    net = nn.Sequential(nn.Dropout(0.5))
    convert(net)
    assert type(net[0]) is CountedDropout and not net.state_dict()
    x = torch.ones(1000)
    torch.manual_seed(0)
    first, second = net(x), net(x)
    assert not torch.equal(first, second)
    assert 0.4 < (first == 0).float().mean() < 0.6
    torch.manual_seed(1)
    restart(net)
    assert torch.equal(net(x), first) and torch.equal(net(x), second)
    assert torch.equal(net.eval()(x), x)
    restart(net.train())
    net.get_buffer("0.key").fill_(7)
    assert not torch.equal(net(x), first)
