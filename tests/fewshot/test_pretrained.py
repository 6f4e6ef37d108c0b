"""The rows of comparison: one network for all tasks, fine-tuned or told the task."""

import pytest
import torch
from small_tasks import F64, images, one, sinusoids, train

from tlresearch.backbones.mlp import MLP
from tlresearch.data.sinusoids import sinusoid, sinusoid_episodes, with_task
from tlresearch.fewshot.maml import MAML
from tlresearch.fewshot.oracle import Oracle
from tlresearch.fewshot.pretrained import Pretrained
from tlresearch.functional.random import make_key


def test_the_loss_is_the_mean_over_all_samples_of_all_tasks():
    method, batch = Pretrained(), sinusoids()
    networks = method.networks(MLP(hidden=(5,)), (1, 1, 1), 1, 0).to(F64)
    errors = [
        (networks(x.view(1, 1, 1, 1)) - y).square().item()
        for part in ((batch.support_x, batch.support_y), (batch.query_x, batch.query_y))
        for x, y in zip(*(t.flatten() for t in part if t is not None), strict=True)
    ]
    assert len(errors) == 27
    expected = torch.tensor(errors, dtype=F64).mean()
    torch.testing.assert_close(method.loss(networks, {}, batch).total, expected)


def test_it_adapts_at_test_as_maml_does():
    """The same rows from the same weights."""
    episode = one(sinusoids(), 0)
    pretrained, maml = Pretrained(inner_lr=0.02, test_steps=3), MAML(inner_lr=0.02, test_steps=3)
    networks = pretrained.networks(MLP(hidden=(5,)), (1, 1, 1), 1, 0).to(F64)
    rows = pretrained.predict_episode(networks, {}, episode)
    assert torch.equal(rows, maml.predict_episode(networks, {}, episode)) and len(rows) == 4


def test_labels_are_not_common_to_tasks():
    with pytest.raises(ValueError, match="no labels in common"):
        train(Pretrained(), "mlp", [0], images)


def test_the_oracle_sees_the_task_and_not_the_support_set():
    """Three inputs; another support set, the same prediction."""
    method = Oracle()
    episodes, task = sinusoid_episodes(make_key(0, "t", torch.arange(2)), 4, 6, F64)
    episodes = with_task(episodes, task)
    networks = method.networks(MLP(hidden=(5,)), (3, 1, 1), 1, 0).to(F64)
    rows = method.predict_episode(networks, {}, one(episodes, 0))
    assert rows.shape == (1, 6, 1) and method.sees_task
    other = one(episodes, 0)._replace(support_x=torch.zeros(1, 4, 3, dtype=F64))
    assert torch.equal(rows, method.predict_episode(networks, {}, other))
    assert method.loss(networks, {}, episodes).total > 0


def test_a_perfect_oracle_has_no_error():
    """Its x, A, φ suffice for y."""
    episodes, task = sinusoid_episodes(make_key(0, "t", torch.arange(2)), 4, 6, F64)
    told = with_task(episodes, task)
    assert told.query_y is not None and episodes.query_y is not None
    x, a, phase = told.query_x.unbind(-1)
    torch.testing.assert_close(a * torch.sin(x - phase), told.query_y.squeeze(-1))
    torch.testing.assert_close(sinusoid(x.squeeze(1), task), told.query_y.flatten(1))
