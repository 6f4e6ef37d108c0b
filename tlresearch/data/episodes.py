"""Stub of METRIC's worktree; main's replaces it."""

from typing import NamedTuple

from torch import Tensor


class Episodes(NamedTuple):
    support_x: Tensor
    query_x: Tensor
    support_y: Tensor | None = None
    query_y: Tensor | None = None
