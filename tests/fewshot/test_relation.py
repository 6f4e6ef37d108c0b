"""Relation networks: scores and loss by a loop over pairs of concatenated maps."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_episodes import (
    F64,
    assert_maps,
    assert_stack_equals_runs,
    assert_symmetric,
    close,
    episodes,
    features,
)

from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.mlp import MLP
from tlresearch.errors import UserError
from tlresearch.fewshot.relation import RelationNetwork

METHOD = RelationNetwork(hidden=5)
BACKBONE = Conv4(channels=2)
SHAPE = (1, 16, 16)
DIM = 2 * 4 * 4


def network(seed: int = 0, method=METHOD) -> Any:
    return method.networks(BACKBONE, SHAPE, 3, seed).double()


def images(seed: int):
    return episodes(seed, shape=SHAPE)


def of_pair(net, class_map, query_map):
    """The relation module on the concatenation of maps of shape (n, C, r, c), without sigmoid."""
    pair = torch.cat([class_map, query_map], dim=1)
    return net.relation.rest(F.conv2d(pair, net.relation.first.weight, padding=1)).squeeze(1)


def test_scores_equal_a_loop_over_pairs():
    """The class's map is the sum over its shots, and is concatenated first."""
    net = network().eval()
    support, query = features(ways=3, shots=2, queries=4, dim=DIM)
    expected = torch.empty(4, 3, dtype=F64)
    for j in range(4):
        for i in range(3):
            class_map = (support[i, 0] + support[i, 1]).view(1, 2, 4, 4)
            expected[j, i] = of_pair(net, class_map, query[j].view(1, 2, 4, 4))
    close(METHOD.compare(net, {}, support, query), expected)


def test_loss_is_the_mean_squared_error_to_one_hot():
    """All pairs share the statistics of batch norm, in the training mode of the paper."""
    net, batch = network().train(), images(0)
    other = copy.deepcopy(net)
    loss = METHOD.loss(net, {}, batch).total
    every = torch.cat([batch.support_x.flatten(0, 2), batch.query_x.flatten(0, 2)])
    maps = other.backbone.layers(every)
    support, query = maps[:12].view(2, 3, 2, 2, 4, 4), maps[12:].view(2, 6, 2, 4, 4)
    places = [(e, j, i) for e in range(2) for j in range(6) for i in range(3)]
    classes = torch.stack([support[e, i].sum(0) for e, j, i in places])
    queries = torch.stack([query[e, j] for e, j, i in places])
    truth = torch.tensor([float(j // 2 == i) for e, j, i in places], dtype=F64)
    scores = 1 / (1 + (-of_pair(other, classes, queries)).exp())
    close(loss, ((scores - truth) ** 2).sum() / 36)
    for name, buffer in net.named_buffers():
        close(buffer, dict(other.named_buffers())[name])


def test_networks_have_the_papers_sizes():
    """28 x 28 images: maps of 64 x 7 x 7, linear layers of 64, 8 and 1."""
    net = RelationNetwork().networks(Conv4(), (1, 28, 28), 5, seed=0)
    assert net.backbone.map_shape == (64, 7, 7) and net.backbone.width == 3136
    assert METHOD.embed(net, torch.rand(2, 1, 28, 28)).shape == (2, 3136)
    shapes = {name: tuple(p.shape) for name, p in net.relation.named_parameters()}
    assert shapes["first.weight"] == (64, 128, 3, 3)
    assert [s for s in shapes.values() if len(s) == 2] == [(8, 64), (1, 8)]


def test_networks_depend_on_the_seed_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (network(seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["relation.first.weight"], other["relation.first.weight"])


def test_conv4_without_its_last_poolings():
    """Four convolutions, `pools` poolings, padded so that maps keep their size between them."""
    x = torch.rand(2, 1, 20, 12)
    for pools, places in ((0, (20, 12)), (1, (10, 6)), (2, (5, 3)), (3, (2, 1))):
        net = Conv4(channels=3, pools=pools).build((1, 20, 12)).eval()
        assert net.layers(x).shape[1:] == net.map_shape == (3, *places)
        assert net(x).shape == (2, net.width)


def test_pools_of_the_method_go_before_those_of_the_backbone():
    for method, pools, rows in ((METHOD, 4, 7), (RelationNetwork(pools=None), 1, 14)):
        net = method.networks(Conv4(channels=2, pools=pools), (1, 28, 28), 3, seed=0)
        assert net.backbone.map_shape[1] == rows


@pytest.mark.parametrize(
    "method, backbone, message",
    [
        (METHOD, MLP(), "choose the backbone conv4"),
        (RelationNetwork(pools=None), BACKBONE, "16 x 16 pixels give 1 x 1 here; set pools"),
    ],
)
def test_refuses_what_has_no_maps(method, backbone, message):
    with pytest.raises(UserError, match=message):
        method.networks(backbone, SHAPE, 3, 0)


def test_finite_and_without_ties_at_scores_of_500():
    """The sigmoid of 500 is 1: the order of classes is that of the logits."""
    net = network().float().eval()
    support, query = (x.float() for x in features(dim=DIM))
    plain = METHOD.compare(net, {}, support, query)
    with torch.no_grad():
        net.relation.rest[-1].bias.add_(500)
    scores = METHOD.compare(net, {}, support, query)
    assert (scores > 400).all() and torch.equal(scores.argmax(1), plain.argmax(1))
    batch = images(0)
    loss = METHOD.loss(net, {}, type(batch)(batch.support_x.float(), batch.query_x.float())).total
    loss.backward()
    assert loss.item() == pytest.approx(2 / 3)  # all r = 1 where one of three should be
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_symmetries():
    net = network().eval()
    assert_symmetric(lambda s, q: METHOD.compare(net, {}, s, q), *features(dim=DIM))


def test_maps_over_episodes():
    assert_maps(METHOD, network().eval(), {}, dim=DIM)


def test_stack_equals_separate_runs():
    assert_stack_equals_runs(METHOD, BACKBONE, images, SHAPE)
