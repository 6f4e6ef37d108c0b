"""Transfer component analysis (TCA).

Pan, Tsang, Kwok and Yang, "Domain adaptation via transfer component analysis", IEEE Transactions on
Neural Networks 22(2), 2011. The unsupervised form: min tr(Wᵀ K L K W) + μ tr(Wᵀ W) subject to
Wᵀ K H K W = I, components of much variance in which the means of the domains are near each other.

Differs from the paper: the kernel is linear; μ counts in units of ‖L‖, so that it does not depend
on the number of samples. By default inputs and embedded samples are brought to length 1. Both is
what public code does (Long et al., "Transfer feature learning with joint distribution adaptation",
ICCV 2013, and those who follow it).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from tlresearch.adaptation.estimator import (
    Alignment,
    Estimator,
    Labels,
    Map,
    Matrix,
    Target,
    check_dim,
)
from tlresearch.training.settings import Count, Positive

Scale = Literal["variance", "length"]


def components(
    source: Float[np.ndarray, "n d"],
    target: Float[np.ndarray, "k d"],
    dim: int,
    mu: float,
    scale: Scale,
) -> Float[np.ndarray, "d dim"]:
    """Xᵀ W, W the `dim` leading solutions of K H K w = λ (K L K / ‖L‖ + μ I) w, K = X Xᵀ.

    L = e eᵀ with e = 1/n for the source and −1/k for the target, so that tr(Wᵀ K L K W) is the
    squared distance of the embedded means, and ‖L‖ = 1/n + 1/k. Solved in the r ≤ d dimensions of
    X's range: with X = U S Vᵀ and W = U c, K W = X V S c and ‖W‖ = ‖c‖.

    Args:
        source: samples X_S, the first rows of X.
        target: X_T, the others.
        dim: at most min(n + k, d).
        mu: μ > 0, weight of ‖W‖².
        scale: of each w: `variance`, wᵀ K H K w = 1, the paper's constraint; `length`, ‖w‖ = 1.

    Returns:
        For rows: x → x (Xᵀ W), the embedding of new samples too.
    """
    import scipy.linalg

    x = np.concatenate([source, target])
    _, singular, axes = np.linalg.svd(x, full_matrices=False)
    basis = axes.T * singular
    features = x @ basis  # K U
    gap = features[: len(source)].mean(0) - features[len(source) :].mean(0)
    unit = 1 / len(source) + 1 / len(target)
    within = np.outer(gap, gap) / unit + mu * np.eye(len(gap))
    centred = features - features.mean(0)
    total = centred.T @ centred
    last = len(gap) - 1
    _, found = scipy.linalg.eigh(total, within, subset_by_index=[last + 1 - dim, last])
    squares = (found * (total @ found)).sum(0) if scale == "variance" else (found**2).sum(0)
    # A component without variance, where dim exceeds the rank, is 0 whatever its scale.
    return basis @ (found / np.sqrt(np.maximum(squares, np.finfo(float).tiny)))[:, ::-1]


def at_length_one(x: Matrix) -> Matrix:
    """x / ‖x‖ of each row; 0 stays 0."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(float).tiny)


@dataclass(frozen=True)
class TCA(Estimator):
    """Components of much variance in which the domains' means are alike."""

    dim: Count = 20
    """Components, at most as many as numbers of an input and as samples."""
    mu: Positive = 1.0
    """μ, above 0, in units of ‖L‖: a small one prefers equal means to variance."""
    unit: bool = True
    """Whether inputs, and embedded samples again, are brought to length 1."""
    scale: Scale = "variance"
    """Each component has variance 1/(n + k) over all samples, as the paper's constraint says, or
    ‖w‖ = 1, as some solvers return it."""

    def align(self, source: Matrix, labels: Labels, target: Target) -> Alignment:
        check_dim(self.dim, source, target, len(source) + len(target))
        shape: Map = at_length_one if self.unit else lambda x: x
        found = components(shape(source), shape(target), self.dim, self.mu, self.scale)

        def embedded(x: Matrix) -> Float[np.ndarray, "samples components"]:
            return shape(shape(x) @ found)

        return Alignment(embedded, embedded)
