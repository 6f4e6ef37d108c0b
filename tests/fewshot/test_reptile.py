"""Reptile's direction against a plain loop of gradient descent."""

import pytest
import torch
import torch.nn.functional as F
from small_tasks import (
    F64,
    WAYS,
    assert_stack_is_separate_runs,
    build,
    images,
    one,
    sinusoids,
    train,
)
from torch.func import functional_call

from tlresearch.backbones.mlp import MLP
from tlresearch.fewshot.reptile import Reptile


def adapted_by_hand(networks, images_of, steps, rate, size):
    """θ_K of one task: K steps on `size` images in turn, one image of each class after another."""
    params = {k: p.detach().clone().requires_grad_() for k, p in networks.named_parameters()}
    samples = [
        (images_of[way, shot], way)
        for shot in range(images_of.shape[1])
        for way in range(images_of.shape[0])
    ]
    for step in range(steps):
        part = [samples[(step * size + i) % len(samples)] for i in range(size)]
        x, y = torch.stack([x for x, _ in part]), torch.tensor([y for _, y in part])
        loss = F.cross_entropy(functional_call(networks, params, (x,)), y)
        slopes = torch.autograd.grad(loss, list(params.values()))
        moved = zip(params.items(), slopes, strict=True)
        params = {k: (p - rate * g).detach().requires_grad_() for (k, p), g in moved}
    return params


@pytest.mark.parametrize("backbone", ["mlp", "conv4"])
@pytest.mark.parametrize("size", [None, 6, 4])
def test_the_gradient_is_the_mean_way_back(backbone, size):
    """mean over tasks of θ − θ_K, on all of a task's samples, in minibatches."""
    method, batch = Reptile(inner_steps=4, inner_lr=0.2, inner_batch=size), images()
    networks = build(method, backbone)
    loss = method.loss(networks, {}, batch).total
    slopes = torch.autograd.grad(loss, list(networks.parameters()))
    joined = torch.cat([batch.support_x, batch.query_x], 2)
    ends = [adapted_by_hand(networks, task, 4, 0.2, size or 15) for task in joined]
    for (name, p), slope in zip(networks.named_parameters(), slopes, strict=True):
        expected = torch.stack([p - end[name] for end in ends]).mean(0)
        torch.testing.assert_close(slope, expected, rtol=0, atol=1e-12)


def test_sgd_moves_by_epsilon_towards_the_adapted_weights():
    """One step of SGD at rate ε = .25 is θ + ε mean(θ_K − θ)."""
    method, batch = Reptile(inner_steps=3, inner_lr=0.2), images()
    networks = build(method, "mlp")
    before = {k: p.detach().clone() for k, p in networks.named_parameters()}
    joined = torch.cat([batch.support_x, batch.query_x], 2)
    ends = [adapted_by_hand(networks, task, 3, 0.2, 15) for task in joined]
    optimizer = torch.optim.SGD(networks.parameters(), lr=0.25)
    method.loss(networks, {}, batch).total.backward()
    optimizer.step()
    for name, p in networks.named_parameters():
        mean = torch.stack([end[name] for end in ends]).mean(0)
        torch.testing.assert_close(p, before[name] + 0.25 * (mean - before[name]))


def test_the_value_is_the_adapted_loss_on_all_samples():
    method, batch = Reptile(inner_steps=3, inner_lr=0.2), images(tasks=1)
    networks = build(method, "mlp")
    task = torch.cat([batch.support_x, batch.query_x], 2)[0]
    end = adapted_by_hand(networks, task, 3, 0.2, 15)
    outputs = functional_call(networks, end, (task.flatten(0, 1),))
    expected = F.cross_entropy(outputs, torch.arange(WAYS).repeat_interleave(5))
    torch.testing.assert_close(method.loss(networks, {}, batch).total, expected)


@pytest.mark.parametrize("chunk", [1, 2])
def test_chunks_equal_the_whole(chunk):
    """Direction and running statistics."""
    results = []
    for size in (None, chunk):
        method = Reptile(inner_steps=2, task_chunk=size, statistics="running")
        networks = build(method, "conv4")
        loss = method.loss(networks, {}, images()).total
        slopes = torch.autograd.grad(loss, list(networks.parameters()))
        results.append((loss, *slopes, *networks.buffers()))
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"task_chunk": 2}, {"inner_batch": 4, "statistics": "running"}]
)
def test_a_stack_is_separate_runs(options):
    assert_stack_is_separate_runs(Reptile(inner_steps=2, **options), "conv4", images)


def test_predictions_by_inner_step():
    """Minibatches of the support set alone."""
    method = Reptile(inner_steps=2, inner_lr=0.2, inner_batch=4, test_steps=3)
    networks, episode = build(method, "mlp").eval(), one(images(), 0)
    rows = method.predict_episode(networks, {}, episode)
    assert len(rows) == 4
    for steps, row in enumerate(rows):
        end = adapted_by_hand(networks, episode.support_x, steps, 0.2, 4)
        outputs = functional_call(networks, end, (episode.query_x.flatten(0, 1),))
        torch.testing.assert_close(row, outputs.detach())


def test_learns_sinusoids():
    """A regression: 40 steps lower the loss on fresh tasks after adaptation."""
    method = Reptile(inner_steps=5, inner_lr=0.02)
    networks = method.networks(MLP(hidden=(20,)), (1, 1, 1), 1, 0).to(F64)
    optimizer = torch.optim.SGD(networks.parameters(), lr=1.0)
    fresh = sinusoids(999, tasks=50)
    before = method.loss(networks, {}, fresh).total.item()
    for step in range(40):
        optimizer.zero_grad()
        method.loss(networks, {}, sinusoids(step, tasks=10)).total.backward()
        optimizer.step()
    assert method.loss(networks, {}, fresh).total.item() < 0.9 * before


def test_training_goes_through_the_common_loop():
    training = train(Reptile(inner_steps=2), "mlp", [1, 2], images)
    assert training.steps == [3, 3] and training.failures == [None, None]
