"""Loss scaling for float16, with a scale of its own for each seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FIRST_SCALE = 2.0**16
"""Scale of the first step, as in `torch.amp.GradScaler`; so are the next three."""

GROWTH, BACKOFF = 2.0, 0.5
"""Factors of the scale after `GROWTH_INTERVAL` good steps in a row, and after a bad one."""

GROWTH_INTERVAL = 2000
"""Good steps in a row until the scale grows."""

LEAST_SCALE = 2.0**-14
"""A gradient that is not finite at this scale is not an overflow: its seed is stopped."""


@dataclass
class Scaler:
    """Dynamic loss scaling (Micikevicius et al., arXiv:1710.03740, section 3.2), per seed.

    The loss of seed s is multiplied by scale[s] before the backward pass and its gradient divided
    by it after. Where a gradient is not finite, that seed's step is left out and its scale
    halved; its sisters do not notice.

    Differs from `torch.amp.GradScaler`: a step that is left out counts in the schedule and in
    Adam's bias correction, as the seeds of a stack share the optimiser's count.
    """

    scale: Tensor
    """float32 (S,)."""
    good: Tensor
    """Good steps in a row, int64 (S,)."""

    @staticmethod
    def start(seeds: int, device: torch.device) -> "Scaler":
        """Before any step."""
        scale = torch.full((seeds,), FIRST_SCALE, device=device)
        return Scaler(scale, torch.zeros(seeds, dtype=torch.int64, device=device))

    def scaled(self, loss: Tensor) -> Tensor:
        """The sum of the seeds' scaled losses, a scalar; `loss` is (S,), or () where S = 1."""
        return (loss.reshape(-1) * self.scale).sum()

    def unscale(self, gradients: Sequence[Tensor], stacked: bool) -> list[bool]:
        """Divides each seed's gradient by its scale, in place.

        Args:
            gradients: (S, …) each where `stacked`, else of one seed.
            stacked: whether the leading dimension is the seeds.

        Returns:
            For each seed whether its gradient is finite. The others' gradients are set to 0.
        """
        seeds = len(self.scale)
        finite = torch.ones(seeds, dtype=torch.bool, device=self.scale.device)
        for g in gradients:
            finite &= g.reshape(seeds if stacked else 1, -1).isfinite().all(1)
        for g in gradients:
            shape = (-1, *[1] * (g.dim() - 1)) if stacked else ()
            g.mul_((1 / self.scale).view(shape).to(g.dtype))
            g.masked_fill_(~finite.view(shape), 0.0)
        return finite.tolist()

    def exhausted(self) -> list[bool]:
        """Which seeds have a scale that is not lowered further."""
        return (self.scale <= LEAST_SCALE).tolist()

    def update(self, finite: Sequence[bool], active: Sequence[bool]) -> None:
        """Raises or lowers the scale of each active seed after a step."""
        device = self.scale.device
        was_good, on = torch.tensor(finite, device=device), torch.tensor(active, device=device)
        good = torch.where(was_good, self.good + 1, 0)
        grows = good >= GROWTH_INTERVAL
        factor = torch.where(was_good, torch.where(grows, GROWTH, 1.0), BACKOFF)
        scale = (self.scale * factor).clamp_min(LEAST_SCALE)
        self.good = torch.where(on, torch.where(grows, 0, good), self.good)
        self.scale = torch.where(on, scale, self.scale)
