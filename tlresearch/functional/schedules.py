"""Schedules of domain adaptation as pure functions of progress p in [0, 1]."""

import math
from typing import TypeVar

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)


def reversal_strength(progress: Number, steepness: float = 10.0) -> Number:
    """2 / (1 + exp(−γ p)) − 1, γ = `steepness`: from 0 at p = 0 to nearly 1 at p = 1.

    λₚ of Ganin et al., JMLR 2016, section 5.2.2, with their γ = 10.
    """
    if isinstance(progress, Tensor):
        return 2 / (1 + torch.exp(-steepness * progress)) - 1
    return 2 / (1 + math.exp(-steepness * progress)) - 1


def annealed(progress: float, alpha: float = 10.0, beta: float = 0.75) -> float:
    """(1 + α p)^(−β), the factor of the learning rate of Ganin et al., section 5.2.2."""
    return (1 + alpha * progress) ** -beta
