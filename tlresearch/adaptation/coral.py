"""CORAL: the source gets the target's covariance.

Sun, Feng and Saenko, "Return of frustratingly easy domain adaptation", AAAI 2016,
arXiv:1511.05547. Algorithm 1: whitening by the source's covariance, re-colouring by the target's,
each with the identity added.

Differs from the paper: domains need not have mean 0, as the source is moved to the target's mean
(with mean 0 this is Algorithm 1); the identity's factor is a setting.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tlresearch.adaptation.estimator import Alignment, Estimator, Labels, Matrix, Target, unchanged
from tlresearch.errors import UserError
from tlresearch.training.settings import NonNegative

Square = Float[np.ndarray, "dim dim"]


def recolouring(
    source: Float[np.ndarray, "n dim"], target: Float[np.ndarray, "k dim"], ridge: float
) -> Square:
    """A = C_S^(−½) C_T^(½), with C = cov + r I of each domain; Algorithm 1.

    Args:
        source: samples, at least two.
        target: likewise.
        ridge: r, at least 0.

    Returns:
        A, for rows: x → x A.

    Raises:
        UserError: r = 0 and the source's covariance is singular.
    """
    of_source, of_target = spectrum(source), spectrum(target)
    values = of_source[0]
    least = ridge + (values[-1] if len(values) == source.shape[1] else 0)
    if least <= (values[0] + ridge) * source.shape[1] * np.finfo(float).eps:
        raise UserError(
            "ridge: the source's covariance has no inverse; set it above 0 (the paper: 1)"
        )
    return power(*of_source, ridge, -0.5) @ power(*of_target, ridge, 0.5)


def spectrum(
    x: Float[np.ndarray, "n dim"],
) -> tuple[Float[np.ndarray, " rank"], Float[np.ndarray, "rank dim"]]:
    """Eigenvalues, falling, and eigenvectors (in rows) of cov(x), as many as min(n, dim).

    By the samples' singular values, which with fewer samples than features (Amazon: 1,800 of
    5,000) takes a fraction of the covariance's own decomposition.
    """
    centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    _, singular, vectors = np.linalg.svd(centred, full_matrices=False)
    return singular**2, vectors


def power(
    values: Float[np.ndarray, " rank"],
    vectors: Float[np.ndarray, "rank dim"],
    ridge: float,
    exponent: float,
) -> Square:
    """(C + r I)^p, C = Vᵀ diag(values) V; in the directions that V leaves out C is 0."""
    rest = ridge**exponent if ridge else 0.0
    return rest * np.eye(vectors.shape[1]) + vectors.T @ (
        ((values + ridge) ** exponent - rest)[:, None] * vectors
    )


@dataclass(frozen=True)
class CORAL(Estimator):
    """Gives the source the target's mean and covariance."""

    ridge: NonNegative = 1.0
    """r, at least 0: what is added to the diagonal of both covariances; in squared units of the
    features, so 1 is much or little as they are scaled."""

    def align(self, source: Matrix, labels: Labels, target: Target) -> Alignment:
        if min(len(source), len(target)) < 2:
            raise UserError("a covariance needs two samples of each domain; take more samples")
        change = recolouring(source, target, self.ridge)
        centre, goal = source.mean(0), target.mean(0)
        return Alignment(lambda x: (x - centre) @ change + goal, unchanged)
