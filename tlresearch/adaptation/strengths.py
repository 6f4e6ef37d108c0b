"""How the strength of an adaptation loss goes with the training's progress."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from tlresearch.functional.schedules import reversal_strength

Schedules = Literal["rising", "constant"]
"""`rising`: 2 / (1 + exp(−10 p)) − 1 over the progress p; `constant`: 1 throughout."""


def factor(schedule: Schedules, progress: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """What a strength is multiplied by at progress p in [0, 1]."""
    return reversal_strength(progress) if schedule == "rising" else progress * 0 + 1
