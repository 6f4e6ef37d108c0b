"""Batch norm against torch's and finite differences; dropout against its definition."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from tlresearch.backbones.layers import (
    BatchNorm1d,
    BatchNorm2d,
    Dropout,
    dropout_keys,
    dropout_mask,
    set_dropout_part,
)
from tlresearch.functional.random import bits, fold, make_key

F64 = torch.float64


def exact(actual, expected, atol=1e-12):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


def pair(ours, theirs, features):
    """Our layer and torch's with the same random state in float64."""
    a, b = ours(features).to(F64), theirs(features).to(F64)
    for value in (*a.parameters(), a.running_mean):
        nn.init.normal_(value)
    nn.init.uniform_(a.running_var, 0.5, 2.0)
    b.load_state_dict(a.state_dict())
    return a, b


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [(BatchNorm1d, nn.BatchNorm1d, (7, 5)), (BatchNorm2d, nn.BatchNorm2d, (4, 5, 3, 2))],
)
def test_equals_torch(ours, theirs, shape, training):
    """Output, statistics and gradients of two steps, in training and in evaluation."""
    torch.manual_seed(0)
    a, b = pair(ours, theirs, 5)
    for layer in (a, b):
        layer.train(training)
    for _ in range(2):
        x = torch.randn(shape, dtype=F64) * 3 + 1
        weights = torch.randn(shape, dtype=F64)
        results = []
        for layer in (a, b):
            leaf = x.clone().requires_grad_()
            out = layer(leaf)
            inputs = (leaf, layer.weight, layer.bias)
            results.append((out, *torch.autograd.grad((out * weights).sum(), inputs)))
        for mine, torchs in zip(*results, strict=True):
            exact(mine, torchs)
    for name, value in b.state_dict().items():
        exact(a.state_dict()[name], value)
    assert int(a.num_batches_tracked) == (2 if training else 0)


@pytest.mark.parametrize("training", [True, False])
def test_without_running_statistics_the_batch_decides(training):
    """Hand-worked: of the columns (0, 2) the mean is 1 and the variance 1."""
    layer = BatchNorm1d(1, eps=3.0, track_running_stats=False).train(training)
    nn.init.constant_(layer.weight, 4.0)
    nn.init.constant_(layer.bias, 10.0)
    exact(layer(torch.tensor([[0.0], [2.0]])), torch.tensor([[8.0], [12.0]]), 1e-6)
    assert set(layer.state_dict()) == {"weight", "bias"}


class Small(nn.Module):
    """Convolution, batch norm, tanh, mean: smooth, so that finite differences hold."""

    def __init__(self, track=False):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = BatchNorm2d(4, track_running_stats=track)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x):
        return torch.tanh(self.norm(self.conv(x))).mean((2, 3))


def test_second_order_gradient_under_vmap_is_the_finite_difference():
    """d/dθ mean over tasks of L(θ − ½∇L(θ; x); y), along a random direction.

    Torch's affine batch norm gets this wrong by 1e-3 without a warning.
    """
    torch.manual_seed(0)
    net = Small().to(F64)
    theta = {k: v.detach() for k, v in net.named_parameters()}
    x, y = torch.randn(2, 3, 6, 2, 5, 5, dtype=F64)

    def loss(params, images):
        return functional_call(net, params, (images,)).square().sum()

    def adapted(params, images, queries):
        step = grad(loss)(params, images)
        return loss({k: params[k] - 0.5 * step[k] for k in params}, queries)

    def meta(params):
        return vmap(lambda s, q: adapted(params, s, q))(x, y).mean()

    direction = {k: torch.randn_like(v) for k, v in theta.items()}
    slope = sum((grad(meta)(theta)[k] * direction[k]).sum() for k in theta)
    step = 1e-5
    ahead, behind = (
        meta({k: theta[k] + sign * step * direction[k] for k in theta}) for sign in (1, -1)
    )
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=1e-7, atol=1e-9)


def test_bias_in_front_has_no_gradient():
    """A shift of every input of a channel is taken away with the mean."""
    torch.manual_seed(0)
    net = Small(track=True).to(F64)
    loss = (net(torch.randn(6, 2, 5, 5, dtype=F64)) * torch.randn(6, 4, dtype=F64)).sum()
    before, after = torch.autograd.grad(loss, (*net.conv.parameters(), net.norm.bias))[1:]
    assert before.abs().max() < 1e-12 < 1e-6 < after.abs().min()


def test_stack_of_three_equals_three_runs():
    """Outputs, gradients and running statistics, two steps."""
    torch.manual_seed(0)
    nets = [Small(track=True).to(F64) for _ in range(3)]
    params, buffers = stack_module_state(copy.deepcopy(nets))
    base = copy.deepcopy(nets[0])
    for _ in range(2):
        x, weights = torch.randn(3, 6, 2, 5, 5, dtype=F64), torch.randn(6, 4, dtype=F64)
        run = vmap(lambda p, b, i: functional_call(base, (p, b), (i,)), randomness="error")
        stacked = run(params, buffers, x)
        gradients = torch.autograd.grad((stacked * weights).sum(), list(params.values()))
        for s, net in enumerate(nets):
            out = net(x[s])
            exact(stacked[s], out)
            alone = torch.autograd.grad((out * weights).sum(), list(net.parameters()))
            for mine, expected in zip(gradients, alone, strict=True):
                exact(mine[s], expected)
    for s, net in enumerate(nets):
        for name, value in net.named_buffers():
            exact(buffers[name][s], value)
    assert buffers["norm.running_mean"].abs().min() > 0


def test_half_precision_stays_half_under_autocast():
    norm, linear = BatchNorm1d(4), nn.Linear(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm(linear(torch.randn(8, 3))).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 2, 2), (0, 4)])
def test_mask_reads_four_lanes_of_each_word(shape):
    """Element i is lane i mod 4 (16 bits, the sign left out) of word ⌊i / 4⌋."""
    key, size = make_key(3, "dropout", 8), math.prod(shape)
    words = bits(key, (size,)).tolist()
    lanes = [(words[i // 4] >> 16 * (i % 4)) & 0x7FFF for i in range(size)]
    expected = torch.tensor([lane < 20000 for lane in lanes], dtype=torch.bool).view(shape)
    assert torch.equal(dropout_mask(key, 20000, shape), expected)


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_the_parts_of_a_batch_have_the_mask_of_the_whole(rows):
    """Three parts of `rows` x 5 elements, told apart by `part`, are dropped as one batch is."""
    layer, x = Dropout(0.5), torch.ones(3 * rows, 5)
    layer.key = make_key(3, "dropout", 8)
    parts = []
    for part, own in enumerate(x.split(rows)):
        set_dropout_part(nn.Sequential(layer), part)
        parts.append(layer(own))
    set_dropout_part(layer, 0)
    assert torch.equal(torch.cat(parts), layer(x))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_of_zeros_and_mean(p):
    """Over 400,000 elements both lie within 5 standard errors; kept elements are 1 / (1 − p)."""
    n = 400_000
    layer = Dropout(p)
    layer.key.copy_(make_key(0, "dropout", 1))
    out = layer(torch.ones(1000, 400))
    error = 5 * math.sqrt(p * (1 - p) / n)
    assert abs((out == 0).float().mean().item() - p) < error
    assert abs(out.mean().item() - 1) < error / (1 - p)
    assert out.max().item() == pytest.approx(1 / (1 - p), rel=2e-4)
    columns = (out == 0).float().mean(0)
    assert (columns - p).abs().max() < 6 * math.sqrt(p * (1 - p) / 1000)


def test_expectation_is_the_input():
    """Mean over 4,000 keys of dropout(x), rounded probability and all."""
    layer, x = Dropout(0.3), torch.tensor([1.0, -2.0, 3.0], dtype=F64)
    keys = make_key(torch.arange(4000), "dropout")
    drawn = vmap(lambda key: functional_call(layer, {"key": key}, (x,)))(keys)
    exact(drawn.mean(0) / x, torch.ones(3, dtype=F64), 5 * math.sqrt(0.3 / 0.7 / 4000))


def test_gradient_is_the_mask():
    layer, x = Dropout(0.5), torch.ones(50, requires_grad=True)
    out = layer(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient, out.detach())
    assert 0 < (out == 0).sum() < 50


def test_same_key_same_mask_other_key_other_mask():
    layer, x = Dropout(0.5), torch.ones(20, 30)
    first = layer(x)
    assert torch.equal(first, layer(x))
    layer.key.copy_(make_key(0, "dropout", 1))
    agreement = (layer(x) == first).float().mean().item()
    assert abs(agreement - 0.5) < 5 * 0.5 / math.sqrt(600)


def test_off_in_evaluation_and_at_zero():
    x = torch.randn(4, 5)
    assert Dropout(0.7).eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("p", [1e-9, 1 - 1e-9])
def test_extreme_probabilities_are_finite(p):
    assert Dropout(p)(torch.ones(1000)).isfinite().all()


@pytest.mark.parametrize("p", [-0.1, 1.0, math.nan])
def test_impossible_probability_is_refused(p):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        Dropout(p)


def test_stack_of_keys_equals_separate_masks():
    layer, x = Dropout(0.4), torch.randn(6, 5)
    keys = make_key(torch.arange(3), "dropout", 17)
    run = vmap(lambda key: functional_call(layer, {"key": key}, (x,)), randomness="error")
    for s, drawn in enumerate(run(keys)):
        assert torch.equal(drawn, functional_call(layer, {"key": keys[s]}, (x,)))
    assert not torch.equal(*run(keys)[:2])


def test_keys_are_named_in_order_and_not_saved():
    net = nn.Sequential(nn.Linear(2, 2), Dropout(0.1), nn.Sequential(nn.Identity(), Dropout(0.2)))
    assert dropout_keys(net) == ["1.key", "2.1.key"]
    assert dropout_keys(Dropout(0.1)) == ["key"]
    assert dropout_keys(nn.Linear(2, 2)) == []
    assert set(net.state_dict()) == {"0.weight", "0.bias"}
    key = make_key(0, "dropout", 5)
    masks = [dropout_mask(fold(key, i), 1 << 14, (64,)) for i in range(2)]
    assert not torch.equal(*masks)
