"""Tapped features against the parts of a network, called one after the other."""

import importlib.util
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from tlresearch.backbones import MLP, ResNet20, build
from tlresearch.errors import UserError
from tlresearch.functional import taps
from tlresearch.functional.taps import call_with_taps, check_path, shapes, tapped
from tlresearch.training.stack import stack_networks


class Net(nn.Module):
    """Two layers with an in-place ReLU between, and an in-place sum with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.relu = nn.ReLU(inplace=True)
        self.stage = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = self.relu(self.first(x))
        out = self.stage(z)
        out += z
        return self.head(out)


PATHS = ["first", "stage", "stage.0"]


def by_hand(net: Net, x: Tensor) -> dict[str, Tensor]:
    first = net.first(x)
    z = first.clamp_min(0)
    return {"first": first, "stage": net.stage(z), "stage.0": net.stage[0](z)}


def make(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net().double().eval()


@pytest.fixture
def x() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(5, 3, dtype=torch.float64, generator=generator)


def no_trace(net: nn.Module) -> bool:
    modules = list(net.modules())
    return not any("forward" in m.__dict__ or m._forward_hooks for m in modules)


def test_features_are_what_the_modules_return(x):
    """Also where a later module changes them in place: a ReLU, and the sum with a shortcut."""
    net = make()
    plain = net(x)
    with tapped(net, PATHS) as features:
        logits = net(x)
    assert torch.equal(logits, plain) and no_trace(net)
    assert list(features) == PATHS and len(features) == 3
    for path, expected in by_hand(net, x).items():
        assert torch.equal(features[path], expected), path
    assert (features["first"] < 0).any()


def test_their_gradient_reaches_the_network(x):
    net = make()
    with tapped(net, PATHS) as features:
        logits = net(x)
    loss = logits.sum() + sum(z.square().sum() for z in features.values())
    expected = net(x).sum() + sum(z.square().sum() for z in by_hand(net, x).values())
    params = [net.first.weight, net.stage[0].weight]
    ours, theirs = torch.autograd.grad(loss, params), torch.autograd.grad(expected, params)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_nothing_is_left_after_an_exception(x):
    """Neither one of the block, nor one of the network, nor a path that does not exist."""
    net = make()
    with pytest.raises(RuntimeError, match="mine"), tapped(net, PATHS):
        net(x)
        raise RuntimeError("mine")
    assert no_trace(net)
    with pytest.raises(RuntimeError, match="shapes"), tapped(net, PATHS):
        net(x[:, :2])
    assert no_trace(net)
    with pytest.raises(UserError), tapped(net, ["first", "fisrt"]):
        pass
    assert no_trace(net)


def test_a_forward_that_was_replaced_before_is_found_again(x):
    net = make()
    own = net.first.forward = lambda x: F.linear(x, 2 * net.first.weight)  # type: ignore[assignment]
    with tapped(net, ["first", "stage"]) as outer, tapped(net, ["first"]) as inner:
        net(x)
    assert net.first.__dict__["forward"] is own
    assert torch.equal(outer["first"], F.linear(x, 2 * net.first.weight))
    assert torch.equal(inner["first"], outer["first"])


def test_functional_call_has_the_given_parameters(x):
    net, other = make(), make(1)
    logits, features = call_with_taps(net, dict(other.named_parameters()), (x,), PATHS)
    assert type(features) is dict and torch.equal(logits, other(x)) and no_trace(net)
    for path, expected in by_hand(other, x).items():
        assert torch.equal(features[path], expected)


def test_vmap_over_stacked_parameters_is_a_loop(x):
    """Logits, features and the gradient of a loss of both."""
    nets = [make(seed) for seed in range(3)]
    params, buffers = stack_module_state(nets)  # type: ignore[arg-type]

    def call(params, buffers, x):
        return call_with_taps(nets[0], params | buffers, x, PATHS)

    def loss(params, buffers, x):
        logits, features = call(params, buffers, x)
        return logits.square().sum() + sum(z.square().sum() for z in features.values())

    xs = torch.stack([x, 2 * x, -x])
    logits, features = vmap(call)(params, buffers, xs)
    grads = vmap(grad(loss))(params, buffers, xs)
    for i, net in enumerate(nets):
        torch.testing.assert_close(logits[i], net(xs[i]), rtol=0, atol=1e-13)
        hand = by_hand(net, xs[i])
        for path in PATHS:
            torch.testing.assert_close(features[path][i], hand[path], rtol=0, atol=1e-13)
        value = net(xs[i]).square().sum() + sum(z.square().sum() for z in hand.values())
        (expected,) = torch.autograd.grad(value, net.first.weight)
        torch.testing.assert_close(grads["first.weight"][i], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_loss_of_the_loop_can_tap(seeds):
    """As `SeedStack.bind` calls it: directly with one seed, else mapped by `functional_call`."""
    nets = [build(MLP(hidden=(4, 3)), (1, 2, 2), 3, seed) for seed in range(seeds)]
    layers: list[Any] = [net.backbone.layers for net in nets]
    expected = [both[:2](torch.ones(2, 4)).sum() for both in layers]
    stack = stack_networks(nets)

    def loss(networks, x):
        with tapped(networks, ["backbone.layers.1"]) as features:
            networks(x)
        return (features["backbone.layers.1"].sum(),)

    (values,) = stack.bind(loss, [])(torch.ones(seeds, 2, 1, 2, 2))
    torch.testing.assert_close(values.reshape(-1), torch.stack(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("how", ["direct", "functional_call", "vmap"])
def test_a_compiled_function_can_tap(how, x):
    """In one graph, and again without another compilation."""
    # As users have it: the shape checks of these tests wrap the generator behind `tapped`, and
    # torch.compile takes no context manager whose function has no `yield` of its own.
    spec = importlib.util.spec_from_file_location("unchecked_taps", taps.__file__)
    assert spec and spec.loader
    unchecked = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unchecked)
    net = make()
    params = dict(net.named_parameters())

    def direct(x):
        with unchecked.tapped(net, PATHS) as features:
            logits = net(x)
        return logits, features["first"], features["stage"]

    def call(x):
        logits, features = unchecked.call_with_taps(net, params, (x,), PATHS)
        return logits, features["first"], features["stage"]

    function = {"direct": direct, "functional_call": call, "vmap": vmap(call)}[how]
    given = torch.stack([x, -x]) if how == "vmap" else x
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    compiled(given)
    with torch._dynamo.config.patch(error_on_recompile=True):
        results = compiled(given)
    for ours, eager in zip(results, function(given), strict=True):
        torch.testing.assert_close(ours, eager, rtol=0, atol=1e-13)
    assert no_trace(net)


def test_a_model_that_was_compiled_before_is_refused_or_right(x):
    """Never features of nothing: what it does not see is said."""
    net = make()
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager")
    compiled(x)
    with tapped(net, ["first"]) as features:
        compiled(x)
    try:
        seen = features["first"]
    except UserError as error:
        assert "was not called" in str(error)
    else:
        assert torch.equal(seen, net.first(x))


def test_one_call_in_a_block(x):
    """A module that is not called, or twice, has no feature; one of the others is there."""
    net = make()
    with tapped(net, ["first", "unused"]) as features:
        net(x)
    assert torch.equal(features["first"], net.first(x))
    with pytest.raises(UserError, match="'unused' was not called"):
        features["unused"]
    with tapped(net, ["first"]) as features:
        net(x)
        net(x)
    with pytest.raises(UserError, match="'first' was called 2 times"):
        features["first"]
    twice = nn.Sequential(shared := nn.Linear(3, 3), nn.ReLU(), shared).double()
    with pytest.raises(UserError, match="'0' was called 2 times"):
        call_with_taps(twice, {}, (x,), ["0"])
    with pytest.raises(KeyError):
        features["stage"]


def test_a_tuple_is_no_feature():
    net = nn.Sequential(nn.LSTM(3, 2))
    with pytest.raises(UserError, match="'0' returns a tuple"), tapped(net, ["0"]):
        net(torch.zeros(4, 3))
    assert no_trace(net)


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("stage2", "'stage'"),
        ("stage.00", "'stage.0'"),
        ("frist", "'first'"),
        ("xyz", "'first', 'relu', 'stage', 'head', 'unused'"),
        ("", "'first'"),
        ("first.weight", "'first'"),
    ],
)
def test_a_path_that_names_no_module(path, near):
    with pytest.raises(UserError, match="Net has no module") as error:
        check_path(make(), path)
    assert near in str(error.value)


def test_paths_that_name_modules():
    net = make()
    assert check_path(net, "stage.1") is net.stage[1]
    shared = nn.ModuleDict({"a": net, "b": net})
    assert check_path(shared, "b.stage") is net.stage
    with pytest.raises(UserError, match="no modules at all"):
        check_path(nn.ReLU(), "layer")


def test_shapes_of_a_resnet_leave_it_as_it_was():
    """Table 6 of He et al.: 16, 32, 64 channels at 32, 16, 8 pixels."""
    net: Any = build(ResNet20(), (3, 32, 32), 10, 0)
    net.backbone.layer2.eval()
    modes = [m.training for m in net.modules()]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    random = torch.get_rng_state()
    paths = [f"backbone.layer{k}" for k in (1, 2, 3)] + ["backbone", "head"]
    found = shapes(net, paths, (3, 32, 32))
    assert list(found.values()) == [(16, 32, 32), (32, 16, 16), (64, 8, 8), (64,), (10,)]
    assert modes == [m.training for m in net.modules()] and no_trace(net)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


class Counting(nn.Module):
    """Counts its passes in a buffer, in evaluation mode too, and draws noise."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.turn = nn.Flatten(0)

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.turn(x + torch.randn(()))


def test_shapes_change_no_buffer_and_need_the_batch_first():
    net = Counting()
    random = torch.get_rng_state()
    with pytest.raises(UserError, match=r"'turn' returns shape \(6,\) for a batch of 2"):
        shapes(net, ["turn"], (3,))
    assert net.passes == 0 and torch.equal(random, torch.get_rng_state())


def test_functional_call_without_taps_is_the_plain_one(x):
    net = make()
    logits, features = call_with_taps(net, {}, x, [])
    assert features == {} and torch.equal(logits, functional_call(net, {}, x))
