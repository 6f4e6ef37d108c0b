"""The teacher as a function of a sample's number and view, asked at every step.

`CachedTeacher` answers the same, to the bit, from memory. It keeps sample i as it was in place
i mod `chunk` of a pass. Where the place matters to the bits, here too each sample is put in that
place, in as many passes as samples of a batch share one: 4 or 5 for 128 drawn at random. Few
networks need it (see `frozen_teacher`); whether one does is found out at the first question.
"""

from dataclasses import dataclass
from functools import cached_property
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
        if self.by_place:
            return self.in_places(indices, view, taps)
        x = self._inputs(indices, view)
        return self._shaped(self.teacher.outputs(x, taps, self.chunk), indices)

    @cached_property
    def by_place(self) -> bool:
        """Whether bits depend on a sample's place in its chunk, so that it must have its own.

        Found by asking one chunk, from all over the set, in several orders; False on a GPU,
        where bits are not promised.
        """
        samples = self.views.samples
        if samples.device.type != "cpu":
            return False
        step = max(1, len(samples) // self.chunk)
        indices = torch.arange(self.chunk) * step % len(samples)
        return self.teacher.place_matters(self._inputs(indices, 0), self.taps)

    def in_places(
        self, indices: Int64[Tensor, "*batch"], view: int | Tensor, taps: tuple[str, ...]
    ) -> Outputs:
        """As `outputs`, with sample i in place i mod `chunk` of a pass, as a cache is made.

        Args:
            indices: see `outputs`.
            view: see `outputs`.
            taps: paths of modules whose outputs are wanted.
        """
        x = self._inputs(indices, view)
        slots = _slots(indices.flatten() % self.chunk, self.chunk)
        passes = int(slots.max()) // self.chunk + 1
        source = slots.new_zeros(passes * self.chunk)  # the first one where no sample belongs
        source[slots] = torch.arange(len(slots), device=slots.device)
        logits, features = self.teacher.outputs(x[source], taps, self.chunk)
        found = Outputs(logits[slots], {path: rows[slots] for path, rows in features.items()})
        return self._shaped(found, indices)

    def _inputs(self, indices: Tensor, view: int | Tensor) -> Tensor:
        """Of all of them in a row."""
        view = view.flatten() if isinstance(view, Tensor) else view
        return self.views.inputs(indices.flatten(), view)

    def _shaped(self, found: Outputs, indices: Tensor) -> Outputs:
        """In the type of answers and the shape of the question."""
        logits, features = found
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


def _slots(places: Tensor, chunk: int) -> Tensor:
    """Numbers pass * chunk + place, all different: each place is taken once in a pass."""
    order = places.argsort(stable=True)
    ordered = places[order]
    earlier = torch.arange(len(places), device=places.device)
    earlier = earlier - torch.searchsorted(ordered, ordered)  # of the same place
    return places + chunk * torch.empty_like(earlier).scatter_(0, order, earlier)
