"""What losses on a student's and a teacher's features share: precision, directions, sizes.

Features are vectors (batch, dim) or maps (batch, channels, rows, columns). Everything maps over
seeds and differentiates; where a vector is 0, a direction and its gradient are 0.
"""

from contextlib import AbstractContextManager
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Form = Literal["code", "paper"]
"""Where public code has another factor or another sum than its paper: `code` is what published
weights belong to, `paper` the printed equation. Each loss says what differs."""


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Within: no autocast. Sums of squares of features do not fit into half precision."""
    return torch.autocast(x.device.type, enabled=False)


def wide(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """x in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def prepared(
    student: Float[Tensor, "batch *student"], teacher: Float[Tensor, "batch *teacher"]
) -> tuple[Float[Tensor, "batch *student"], Float[Tensor, "batch *teacher"]]:
    """Both in float32 at least, the teacher's without gradient: a loss never moves the teacher."""
    return wide(student), wide(teacher.detach())


def scaled(x: Float[Tensor, "batch *shape"], each: bool = False) -> Float[Tensor, "batch *shape"]:
    """x / max |x|, so that squares neither overflow nor vanish.

    The maximum counts as a constant: right in losses that do not change with the scale of x,
    whose gradient through it is 0.

    Args:
        x: features; 0 stays 0.
        each: whether each sample has its own maximum, or the batch one.
    """
    over = tuple(range(1 if each else 0, x.ndim))
    largest = x.detach().abs().amax(over, keepdim=True)
    return x / torch.where(largest > _negligible(x), largest, 1.0)


def unit(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """x / ‖x‖ of each row; 0, with gradient 0, where the row is 0.

    So counts a row without an entry above √tiny, about 1e-19 in float32 and 1e-154 in float64.
    """
    largest = x.detach().abs().amax(-1, keepdim=True)
    there = largest > _negligible(x)
    rows = torch.where(there, x / torch.where(there, largest, 1.0), 0.0)
    squares = rows.square().sum(-1, keepdim=True)
    return rows * torch.where(there, squares, 1.0).rsqrt()


def length(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """‖x‖ of each row; its gradient is 0 where the row is 0."""
    squares = x.square().sum(-1)
    there = squares > 0
    return torch.where(there, torch.where(there, squares, 1.0).sqrt(), 0.0)


def _negligible(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny ** 0.5


def pooled_alike(
    student: Float[Tensor, "batch channels rows columns"],
    teacher: Float[Tensor, "batch teacher_channels teacher_rows teacher_columns"],
) -> tuple[
    Float[Tensor, "batch channels common_rows common_columns"],
    Float[Tensor, "batch teacher_channels common_rows common_columns"],
]:
    """Maps of one size: the larger is averaged over the cells of the smaller one's grid.

    Rows and columns each for themselves; where the sides are no multiples, cells overlap
    (`torch.nn.functional.adaptive_avg_pool2d`).
    """
    size = common_size(tuple(student.shape[2:]), tuple(teacher.shape[2:]))
    return _pooled(student, size), _pooled(teacher, size)


def _pooled(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if tuple(x.shape[2:]) == size else F.adaptive_avg_pool2d(x, size)


def common_size(student: tuple[int, ...], teacher: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) that `pooled_alike` gives maps of these sizes."""
    (rows, columns), (others, across) = student, teacher
    return min(rows, others), min(columns, across)
