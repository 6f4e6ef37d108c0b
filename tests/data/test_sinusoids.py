"""Sinusoid tasks: ranges, moments, and that they are functions of their keys."""

import math

import pytest
import torch

from tlresearch.data.sinusoids import sinusoid, sinusoid_episodes, with_task
from tlresearch.functional.random import make_key

F64 = torch.float64
KEYS = make_key(torch.arange(3).unsqueeze(1), "tasks", torch.arange(500))


def test_shapes():
    """(*keys, 1, samples, 1), one or many keys."""
    for key in (KEYS[0, 0], KEYS[0], KEYS):
        episodes, task = sinusoid_episodes(key, 5, 7)
        assert episodes.support_x.shape == (*key.shape, 1, 5, 1)
        assert episodes.query_y is not None and episodes.query_y.shape == (*key.shape, 1, 7, 1)
        assert task.shape == (*key.shape, 2) and task.dtype == torch.float32


def test_values_are_the_sinusoid_of_the_task():
    """y = A sin(x − φ), by numpy's words."""
    episodes, task = sinusoid_episodes(KEYS[0, 0], 5, 7, F64)
    amplitude, phase = task.tolist()
    for x, y in ((episodes.support_x, episodes.support_y), (episodes.query_x, episodes.query_y)):
        assert y is not None
        for a, b in zip(x.flatten().tolist(), y.flatten().tolist(), strict=True):
            assert math.isclose(b, amplitude * math.sin(a - phase), abs_tol=1e-12)
    assert sinusoid(torch.tensor([1.0]), torch.tensor([2.0, 1.0])).item() == 0


@pytest.mark.parametrize(
    ("low", "high", "of"),
    [
        (0.1, 5.0, lambda e, t: t[..., 0]),
        (0.0, math.pi, lambda e, t: t[..., 1]),
        (-5.0, 5.0, lambda e, t: e.support_x),
        (-5.0, 5.0, lambda e, t: e.query_x),
    ],
)
def test_each_is_uniform(low, high, of):
    """Bounds, and mean and standard deviation within 5 standard errors."""
    values = of(*sinusoid_episodes(KEYS, 2, 3, F64)).flatten()
    assert low <= values.min() and values.max() < high
    assert values.min() < low + 0.02 * (high - low) and values.max() > high - 0.02 * (high - low)
    spread = (high - low) / math.sqrt(12)
    assert abs(values.mean() - (low + high) / 2) < 5 * spread / math.sqrt(len(values))
    assert abs(values.std() / spread - 1) < 5 / math.sqrt(len(values))


def test_they_are_functions_of_the_key():
    """A key has its episode alone, among others and in either order; keys differ."""
    many, tasks = sinusoid_episodes(KEYS, 4, 4)
    one, task = sinusoid_episodes(KEYS[1, 7], 4, 4)
    assert torch.equal(many.support_x[1, 7], one.support_x) and torch.equal(tasks[1, 7], task)
    assert not torch.equal(tasks[0, 0], tasks[0, 1])
    assert not torch.equal(tasks[0, 0], tasks[1, 0])
    longer, same = sinusoid_episodes(KEYS[1, 7], 4, 9)
    assert torch.equal(same, task) and torch.equal(longer.support_x, one.support_x)


def test_support_and_queries_are_other_samples():
    episodes, _ = sinusoid_episodes(KEYS[0], 4, 4)
    assert not torch.equal(episodes.support_x, episodes.query_x)


def test_x_is_told_the_task():
    """(x, A, φ) at each sample."""
    episodes, task = sinusoid_episodes(KEYS[0], 2, 3)
    told = with_task(episodes, task)
    assert told.support_x.shape == (500, 1, 2, 3) and told.query_x.shape == (500, 1, 3, 3)
    assert torch.equal(told.query_x[..., :1], episodes.query_x)
    assert torch.equal(told.query_x[4, 0, 1, 1:], task[4])
    assert told.support_y is episodes.support_y
