"""First-order MAML (FOMAML).

Finn, Abbeel, Levine, ICML 2017, arXiv:1703.03400, section 5.2: MAML whose meta-gradient takes the
inner gradients as constants, so that it is the mean of ∇L(θ′; query), taken at θ′.

Differs from the paper: nothing beyond what `maml.py` says.
"""

from dataclasses import dataclass
from typing import Literal

from tlresearch.fewshot.maml import MAML


@dataclass(frozen=True)
class FOMAML(MAML):
    """MAML without second derivatives."""

    order: Literal["second", "first"] = "first"
    """`second` is MAML."""
