"""ANIL moves the head alone, and its meta-gradient still reaches all weights."""

import pytest
import torch
from small_tasks import (
    assert_stack_is_separate_runs,
    before_norm,
    build,
    images,
    meta_gradient,
    one,
    relative_errors,
)
from torch.func import functional_call, grad

from tlresearch.fewshot.anil import ANIL
from tlresearch.fewshot.inner import parameters_of
from tlresearch.fewshot.maml import MAML
from tlresearch.fewshot.rows import task_loss


def by_hand(networks, batch, steps, rate):
    """MAML's plain loop on whole networks, whose body has rate 0."""
    y, y_query = (torch.arange(3).repeat_interleave(t.shape[2]) for t in batch[:2])
    losses = []
    for support, query in zip(*(t.flatten(1, 2) for t in batch[:2]), strict=True):
        params = dict(networks.named_parameters())

        def loss_of(p, x=support):
            return task_loss(functional_call(networks, p, (x,)), y)

        for _ in range(steps):
            slopes = grad(loss_of)(params)
            heads = {k: p - rate * slopes[k] for k, p in params.items() if "head" in k}
            params = params | heads
        losses.append(task_loss(functional_call(networks, params, (query,)), y_query))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("backbone", ["mlp", "conv4"])
def test_is_maml_whose_body_stays(backbone):
    """Loss and meta-gradient of two inner steps."""
    method, batch = ANIL(inner_steps=2, inner_lr=0.3), images()
    networks = build(method, backbone)
    expected = by_hand(networks, batch, 2, 0.3)
    torch.testing.assert_close(method.loss(networks, {}, batch).total, expected, rtol=0, atol=1e-12)
    slopes = torch.autograd.grad(expected, list(networks.parameters()))
    ours = meta_gradient(method, networks, batch)
    for mine, slope in zip(ours.values(), slopes, strict=True):
        torch.testing.assert_close(mine, slope, rtol=0, atol=1e-12)
    assert ours["backbone.layers.0.0.weight" if backbone == "conv4" else "head.weight"].any()


def test_the_inner_loop_moves_the_head_only():
    method = ANIL()
    params = parameters_of(build(method, "conv4"))
    assert set(method.adapted(params)) == {"head.weight", "head.bias"}
    assert set(MAML().adapted(params)) == set(params)


@pytest.mark.parametrize("statistics", ["transductive", "support", "running"])
def test_meta_gradient_is_the_finite_difference(statistics):
    method = ANIL(inner_steps=3, inner_lr=0.2, statistics=statistics)
    networks = build(method, "conv4")
    silent = before_norm(networks)
    errors = relative_errors(method, networks, images(), lambda name: name in silent)
    assert max(errors.values()) < 1e-6


@pytest.mark.parametrize("options", [{}, {"learn_rates": "per_step", "statistics": "running"}])
def test_a_stack_is_separate_runs(options):
    assert_stack_is_separate_runs(ANIL(inner_steps=2, **options), "conv4", images)


def test_predictions_by_inner_step():
    """Row 0 is the network as it is; MAML without a body's step differs."""
    method = ANIL(inner_steps=2, inner_lr=0.3, test_steps=3)
    networks, episode = build(method, "conv4").eval(), one(images(), 0)
    rows = method.predict_episode(networks, {}, episode)
    assert rows.shape == (4, 9, 3)
    torch.testing.assert_close(rows[0], networks(episode.query_x.flatten(0, 1)).detach())
    assert not torch.allclose(rows[0], rows[1])
