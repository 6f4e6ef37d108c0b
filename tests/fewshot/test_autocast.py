"""Embeddings in half precision, comparisons not."""

import pytest
import torch
from small_episodes import episodes

from tlresearch.backbones.mlp import MLP
from tlresearch.data.episodes import Episodes
from tlresearch.fewshot.matching import MatchingNetwork
from tlresearch.fewshot.protonet import PrototypicalNetwork
from tlresearch.fewshot.r2d2 import R2D2

PIXELS = MLP(hidden=())
METHODS = {
    "squared": PrototypicalNetwork(),
    "cosine": PrototypicalNetwork(distance="cosine"),
    "matching": MatchingNetwork(),
    "r2d2": R2D2(),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("number", [1, 3])
def test_comparisons_stay_in_float32(method, number):
    """Pixels as features, which autocast leaves alone: the loss is that without autocast."""
    noise = episodes(count=number)
    batch = Episodes(noise.support_x.float(), noise.query_x.float())
    net = method.networks(PIXELS, tuple(batch.support_x.shape[3:]), 3, 0)
    plain = method.loss(net, {}, batch).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = method.loss(net, {}, batch).total
    assert torch.equal(inside, plain)
