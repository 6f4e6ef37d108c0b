"""Optimal transport of the source onto the target, with class regularisation (OT-GL).

Courty, Flamary, Tuia and Rakotomamonjy, "Optimal transport for domain adaptation", IEEE TPAMI
39(9), 2017, arXiv:1507.00504. A plan whose group lasso keeps mass that a target sample gets within
one class of the source, and the barycentric map that it makes.

Differs from the paper: costs are divided by their median, so that ε and η mean the same for all
pairs; ε and η are settings and not chosen on target labels. Source samples that were not fitted to
go with the nearest one that was (Ferradans et al., "Regularized discrete optimal transport", SIAM
J. Imaging Sciences 7(3), 2014), which only source accuracy depends on.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tlresearch.adaptation.estimator import Alignment, Estimator, Labels, Matrix, Target, unchanged
from tlresearch.adaptation.shallow_classifiers import squared_distances
from tlresearch.adaptation.transport import class_transport
from tlresearch.training.settings import NonNegative, Positive


def barycentres(
    plan: Float[np.ndarray, "n k"], target: Float[np.ndarray, "k d"]
) -> Float[np.ndarray, "n d"]:
    """x̂ᵢ = Σⱼ γᵢⱼ xⱼ / Σⱼ γᵢⱼ, the barycentric map of a plan.

    Args:
        plan: γ, no row of it 0.
        target: xⱼ.
    """
    return (plan / plan.sum(1, keepdims=True)) @ target


def moved_with_nearest(
    x: Float[np.ndarray, "m d"],
    source: Float[np.ndarray, "n d"],
    moved: Float[np.ndarray, "n d"],
) -> Float[np.ndarray, "m d"]:
    """x + x̂ᵢ − xᵢ, i the source sample nearest to x; of a source sample its own x̂.

    Args:
        x: samples of the source's domain.
        source: xᵢ.
        moved: x̂ᵢ.
    """
    places = squared_distances(x, source).argmin(1)
    return x + (moved - source)[places]


@dataclass(frozen=True)
class OptimalTransport(Estimator):
    """Moves each source sample to the target samples that it is transported to."""

    entropy: Positive = 0.05
    """ε, above 0, in medians of the squared distances; a large one moves all to the mean."""
    strength: NonNegative = 0.5
    """η of the group lasso by class, at least 0; with 0 no label has a part in the plan."""

    def align(self, source: Matrix, labels: Labels, target: Target) -> Alignment:
        cost = squared_distances(source, target)
        cost /= np.median(cost) or 1.0
        plan = class_transport(cost, labels, self.entropy, self.strength)
        moved = barycentres(plan, target)
        return Alignment(lambda x: moved_with_nearest(x, source, moved), unchanged)
