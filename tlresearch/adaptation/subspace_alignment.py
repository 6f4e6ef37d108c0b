"""Subspace alignment (SA).

Fernando, Habrard, Sebban and Tuytelaars, "Unsupervised visual domain adaptation using subspace
alignment", ICCV 2013. Algorithm 1: the source's principal subspace is turned into the target's,
M* = X_Sᵀ X_T.

Differs from the paper: each domain is centred by its own mean first, which changes nothing where
features are z-scores by domain, as in the paper; `dim` is a setting and not chosen by the bound.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tlresearch.adaptation.estimator import Alignment, Estimator, Labels, Matrix, Target, check_dim
from tlresearch.training.settings import Count


def subspace(x: Float[np.ndarray, "n d"], dim: int) -> Float[np.ndarray, "d dim"]:
    """X: the orthonormal directions of most variance, in falling order.

    Args:
        x: samples.
        dim: at most min(n, d).
    """
    _, _, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
    return axes[:dim].T


def alignment_matrix(
    of_source: Float[np.ndarray, "d dim"], of_target: Float[np.ndarray, "d dim"]
) -> Float[np.ndarray, "dim dim"]:
    """M* = X_Sᵀ X_T, where ‖X_S M − X_T‖ is least.

    Args:
        of_source: X_S, orthonormal columns.
        of_target: X_T.
    """
    return of_source.T @ of_target


@dataclass(frozen=True)
class SubspaceAlignment(Estimator):
    """Turns the source's principal subspace into the target's."""

    dim: Count = 20
    """Dimensions of both subspaces, at most as many as numbers of an input and as samples of the
    smaller domain."""

    def align(self, source: Matrix, labels: Labels, target: Target) -> Alignment:
        check_dim(self.dim, source, target, min(len(source), len(target)))
        of_source, of_target = subspace(source, self.dim), subspace(target, self.dim)
        turned = of_source @ alignment_matrix(of_source, of_target)
        centre, goal = source.mean(0), target.mean(0)
        return Alignment(lambda x: (x - centre) @ turned, lambda x: (x - goal) @ of_target)
