"""Stub of METRIC's worktree; main's replaces it."""

from typing import NamedTuple

import torch
from torch import Tensor


class Episodes(NamedTuple):
    support_x: Tensor
    query_x: Tensor
    support_y: Tensor | None = None
    query_y: Tensor | None = None

    @property
    def sizes(self):
        return self.support_x.shape[1], self.support_x.shape[2], self.query_x.shape[2]


def labels(ways, each, device=None):
    return torch.arange(ways, device=device).repeat_interleave(each)
