"""Whose statistics normalise a query, against batch norm worked out by hand."""

import pytest
import torch
from small_tasks import F64, build, images, one
from torch import nn

from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.layers import BatchNorm2d
from tlresearch.errors import UserError
from tlresearch.fewshot.maml import MAML
from tlresearch.fewshot.statistics import (
    prepare_norms,
    query_pass,
    support_pass,
    update_running,
)

SUPPORT, QUERY = (torch.randn(n, 3, 4, 4, dtype=F64) * 2 + 1 for n in (5, 7))


def norm(statistics):
    """A batch norm in a module, with scale 2 and shift 3."""
    module = nn.Sequential(BatchNorm2d(3)).to(F64)
    nn.init.constant_(module.get_parameter("0.weight"), 2.0)
    nn.init.constant_(module.get_parameter("0.bias"), 3.0)
    prepare_norms(module, statistics)
    return module


def normalised(x, by):
    """2 (x − μ) / √(σ² + ε) + 3 with the moments of `by`."""
    mean, variance = by.mean((0, 2, 3), keepdim=True), by.var((0, 2, 3), keepdim=True, correction=0)
    return 2 * (x - mean) / (variance + 1e-5).sqrt() + 3


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("statistics", "by"), [("transductive", QUERY), ("support", SUPPORT), ("running", None)]
)
def test_a_query_is_normalised_by(statistics, by, training):
    """By all queries, by the support set; `running`: by the queries in training only."""
    module, seen = norm(statistics).train(training), {}
    found = query_pass(module, statistics, module, SUPPORT, QUERY, seen)
    if statistics == "running" and not training:
        expected = 2 * QUERY / (1 + 1e-5) ** 0.5 + 3  # mean 0, variance 1 before any training
    else:
        expected = normalised(QUERY, QUERY if by is None else by)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert bool(seen) == (statistics == "running" and training)
    torch.testing.assert_close(
        support_pass(module, statistics, module, SUPPORT), normalised(SUPPORT, SUPPORT)
    )
    assert all(getattr(layer, "normaliser", None) is None for layer in module)


def test_no_pass_moves_a_buffer_and_the_update_is_torchs():
    """r ← .9 r + .1 s with the unbiased variance, as torch's batch norm does once."""
    module, reference, seen = norm("running"), nn.BatchNorm2d(3).to(F64), {}
    before = {name: b.clone() for name, b in module.named_buffers()}
    support_pass(module, "running", module, SUPPORT)
    query_pass(module, "running", module, SUPPORT, QUERY, seen)
    assert all(torch.equal(b, before[name]) for name, b in module.named_buffers())
    update_running(module, seen)
    reference(QUERY)
    for name, value in reference.named_buffers():
        torch.testing.assert_close(module.get_buffer(f"0.{name}"), value)


def test_running_averages_are_of_the_adapted_query_passes():
    """The mean over tasks, at the last inner step: by hooks on a plain loop over tasks."""
    method = MAML(inner_steps=2, inner_lr=0.3, statistics="running")
    networks, batch = build(method, "conv4"), images()
    method.loss(networks, {}, batch)
    means = []
    for task in range(3):
        plain = MAML(inner_steps=2, inner_lr=0.3)
        twin = build(plain, "conv4")
        inputs: list[torch.Tensor] = []

        def keep(layer, args, kept=inputs):
            kept.append(args[0])

        twin.get_submodule("backbone.layers.0.1").register_forward_pre_hook(keep)
        plain.predict_episode(twin, {}, one(batch, task))
        means.append(inputs[-1].mean((0, 2, 3)).detach())
    found = networks.get_buffer("backbone.layers.0.1.running_mean")
    torch.testing.assert_close(found, 0.1 * torch.stack(means).mean(0))


@pytest.mark.parametrize("statistics", ["transductive", "support", "running"])
def test_a_prediction_depends_on_the_other_queries_only_if_transductive(statistics):
    """Another image among the queries changes the first prediction, or does not."""
    method, episode = MAML(inner_steps=2, statistics=statistics), one(images(), 0)
    networks = build(method, "conv4").eval()
    first = method.predict_episode(networks, {}, episode)[:, 0]
    other = episode.query_x.clone()
    other[-1, -1] = 5.0
    again = method.predict_episode(networks, {}, episode._replace(query_x=other))[:, 0]
    unchanged = torch.allclose(first, again, rtol=0, atol=1e-12)
    assert unchanged == (statistics != "transductive")


@pytest.mark.parametrize("statistics", ["transductive", "support"])
def test_norms_keep_no_running_statistics_that_they_do_not_use(statistics):
    assert not list(build(MAML(statistics=statistics), "conv4").buffers())
    assert len(list(build(MAML(statistics="running"), "conv4").buffers())) == 12


def test_what_cannot_be_is_refused():
    """Running averages that are not kept; norms that are not ours."""
    with pytest.raises(UserError, match=r"backbone\.layers\.0\.1 keeps none; set backbone\.stat"):
        MAML(statistics="running").networks(Conv4(statistics="batch"), (1, 16, 16), 3, 0)
    with pytest.raises(UserError, match="scale and shift"):
        prepare_norms(nn.BatchNorm2d(3, affine=False), "support")
