"""Sinusoids as tasks of regression, a pure function of a key.

Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML
2017, arXiv:1703.03400, section 5.1: y = A sin(x − φ), A ~ U[.1, 5], φ ~ U[0, π], x ~ U[−5, 5].
The sign of φ is that of the authors' code (github.com/cbfinn/maml, data_generator.py).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.data.episodes import Episodes
from tlresearch.functional import random

LOWEST, HIGHEST = -5.0, 5.0
"""Of x."""
LEAST, GREATEST = 0.1, 5.0
"""Of the amplitude."""


def sinusoid(
    x: Float[Tensor, "*tasks samples"], task: Float[Tensor, "*tasks 2"]
) -> Float[Tensor, "*tasks samples"]:
    """y = A sin(x − φ) for tasks (A, φ)."""
    amplitude, phase = task.unsqueeze(-2).unbind(-1)
    return amplitude * torch.sin(x - phase)


def sinusoid_episodes(
    key: random.Key, shots: int, queries: int, dtype: torch.dtype = torch.float32
) -> tuple[Episodes, Float[Tensor, "*streams 2"]]:
    """An episode for each key, and its task: amplitude and phase (radians).

    Args:
        key: keys of any shape.
        shots: K, samples to learn from.
        queries: samples to be predicted; with another K they are other samples.
        dtype: of all numbers, float32 or float64.

    Returns:
        Episodes with x and y of shape (*key.shape, 1, samples, 1), and the tasks.
    """
    u = random.uniform(random.fold(key, 0), (2,), dtype)
    scale = u.new_tensor([GREATEST - LEAST, math.pi])
    task = u * scale + u.new_tensor([LEAST, 0.0])
    drawn = random.uniform(random.fold(key, 1), (shots + queries,), dtype)
    x = LOWEST + (HIGHEST - LOWEST) * drawn
    y = sinusoid(x, task)
    x, y = (t.unsqueeze(-2).unsqueeze(-1) for t in (x, y))
    support, query = slice(None, shots), slice(shots, None)
    episodes = Episodes(x[..., support, :], x[..., query, :], y[..., support, :], y[..., query, :])
    return episodes, task


def with_task(episodes: Episodes, task: Float[Tensor, "*streams 2"]) -> Episodes:
    """The same, each x followed by amplitude and phase: (…, 1, samples, 3), for an oracle."""

    def told(x: Tensor) -> Tensor:
        own = task[..., None, None, :].expand(*x.shape[:-1], 2)
        return torch.cat([x, own], -1)

    return episodes._replace(support_x=told(episodes.support_x), query_x=told(episodes.query_x))
