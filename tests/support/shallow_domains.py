"""Two small domains of features, and what every shallow method is held to."""

from dataclasses import dataclass

import numpy as np
import torch

from tlresearch.adaptation.estimator import Estimator, Fitted
from tlresearch.adaptation.shallow import Shallow
from tlresearch.functional import random

KEY = random.make_key(0, "tests")


@dataclass(frozen=True)
class Domains:
    """Classes around centres; the target is turned, stretched and moved, its order another."""

    source: np.ndarray
    y: np.ndarray
    target: np.ndarray
    target_y: np.ndarray
    classes: int


def domains(
    n: int = 36, k: int = 30, dim: int = 5, classes: int = 3, seed: int = 0, moved: float = 1.0
) -> Domains:
    """Such domains.

    Args:
        n: source samples.
        k: target samples.
        dim: numbers of each.
        classes: of both.
        seed: of everything.
        moved: how far the target is; 0 leaves it where the source is.
    """
    rng = np.random.default_rng(seed)
    centres = 3 * rng.normal(size=(classes, dim))
    y, target_y = np.arange(n) % classes, rng.permutation(np.arange(k) % classes)
    source, target = (centres[labels] + rng.normal(size=(len(labels), dim)) for labels in
                      (y, target_y))  # fmt: skip
    change = np.eye(dim) + 0.5 * moved * rng.normal(size=(dim, dim))
    return Domains(source, y, target @ change + 2 * moved, target_y, classes)


def fitted(method: Estimator, of: Domains) -> Fitted:
    """The method's fit."""
    return method.fit(of.source, of.y, of.target, of.classes, KEY)


def scores(method: Estimator, of: Domains) -> np.ndarray:
    """Scores of the target's samples."""
    return fitted(method, of)(torch.from_numpy(of.target)).numpy()


def assert_differs_from_none(method: Estimator, of: Domains) -> None:
    """The method is no no-op: other scores than without it."""
    assert not np.allclose(scores(method, of), scores(Shallow(), of), atol=1e-3)


def assert_order_of_samples_has_no_part(method: Estimator, of: Domains) -> None:
    """Source and target in another order: the same scores of the same samples."""
    rng = np.random.default_rng(1)
    a, b = rng.permutation(len(of.source)), rng.permutation(len(of.target))
    other = Domains(of.source[a], of.y[a], of.target[b], of.target_y[b], of.classes)
    np.testing.assert_allclose(scores(method, other), scores(method, of)[b], atol=1e-6)
