"""The teacher as a function of a sample's number and view, asked at every step.

`CachedTeacher` answers the same, to the bit, from memory.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tlresearch.distillation.frozen_teacher import CHUNK, FrozenTeacher, Outputs
from tlresearch.distillation.views import Views
from tlresearch.errors import UserError
from tlresearch.functional.taps import check_path

DTYPES = (torch.float16, torch.float32, torch.float64)
"""Types that answers can be kept in; numpy has no bfloat16."""


@runtime_checkable
class Teacher(Protocol):
    """What a student asks: `LiveTeacher` or `CachedTeacher`."""

    def outputs(self, indices: Int64[Tensor, "*batch"], view: int | Tensor = 0) -> Outputs:
        """Logits and features of samples.

        Args:
            indices: of the samples, of any shape, such as (seeds, batch).
            view: one for all, or one for each: int64 of the shape of `indices`.

        Returns:
            Tensors (*batch, …), without gradient.
        """
        ...

    def logits(
        self, indices: Int64[Tensor, "*batch"], view: int | Tensor = 0
    ) -> Float[Tensor, "*batch classes"]:
        """As `outputs`, without features."""
        ...


@dataclass(frozen=True)
class LiveTeacher:
    """Evaluates the teacher when it is asked; also says what its answers depend on."""

    teacher: FrozenTeacher
    views: Views
    taps: tuple[str, ...] = ()
    """Paths of modules whose outputs are wanted."""
    chunk: int = CHUNK
    """Rows of a pass, at least 1; best the batch of a step, or a divisor of it."""
    dtype: torch.dtype = torch.float32
    """Of the answers; the teacher is evaluated in the type of its own weights."""

    def __post_init__(self) -> None:
        for path in self.taps:
            check_path(self.teacher.network, path)
        if self.dtype not in DTYPES or self.chunk < 1:
            raise UserError(
                f"A teacher's answers in {self.dtype} by chunks of {self.chunk} rows cannot be "
                "had; expected float16, float32 or float64, and at least 1 row."
            )

    def outputs(self, indices: Int64[Tensor, "*batch"], view: int | Tensor = 0) -> Outputs:
        """See `Teacher`."""
        return self._ask(indices, view, self.taps)

    def logits(
        self, indices: Int64[Tensor, "*batch"], view: int | Tensor = 0
    ) -> Float[Tensor, "*batch classes"]:
        """See `Teacher`."""
        return self._ask(indices, view, ()).logits

    def _ask(self, indices: Tensor, view: int | Tensor, taps: tuple[str, ...]) -> Outputs:
        view = view.flatten() if isinstance(view, Tensor) else view
        x = self.views.inputs(indices.flatten(), view)
        logits, features = self.teacher.outputs(x, taps, self.chunk)
        logits, *rows = (
            rows.to(self.dtype).view(*indices.shape, *rows.shape[1:])
            for rows in (logits, *features.values())
        )
        return Outputs(logits, dict(zip(features, rows, strict=True)))

    def facts(self, view: int) -> dict[str, Any]:
        """All that the answers of a view depend on, as JSON values."""
        return {
            "teacher": self.teacher.digest(),
            "data": self.views.data,
            "samples": len(self.views.samples),
            "view": self.views.name(view),
            "dtype": str(self.dtype).removeprefix("torch."),
            "chunk": self.chunk,
            "taps": list(self.taps),
        }
