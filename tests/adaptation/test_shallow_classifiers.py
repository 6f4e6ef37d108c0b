"""Nearest neighbour, SVM and logistic regression against loops and their optimality conditions."""

import numpy as np
import pytest
from shallow_domains import KEY, domains
from sklearn.svm import LinearSVC

from tlresearch.adaptation import shallow_classifiers as classifiers
from tlresearch.errors import UserError
from tlresearch.functional import random

OF = domains()
Z, Y, X = OF.source, OF.y, OF.target


def test_nearest_neighbour_by_a_loop():
    """The class of the nearest sample; scores are distances to each class."""
    scores = classifiers.nearest(Z, Y, 3)(X)
    for x, row in zip(X, scores, strict=True):
        distances = [float(np.sqrt(((x - z) ** 2).sum())) for z in Z]
        assert row.argmax() == Y[int(np.argmin(distances))]
        for label in range(3):
            assert -row[label] == pytest.approx(min(np.array(distances)[label == Y]), abs=1e-6)


def test_a_sample_is_its_own_nearest_and_ties_go_to_the_first_class():
    assert (classifiers.nearest(Z, Y, 3)(Z).argmax(1) == Y).all()
    assert (
        classifiers.nearest(np.zeros((3, 2)), np.array([2, 1, 0]), 3)(np.ones((1, 2))).argmax() == 0
    )
    scores = classifiers.nearest(Z[Y < 2], Y[Y < 2], 3)(X)
    assert np.isneginf(scores[:, 2]).all()  # a class without samples is never said


def hinge(w: np.ndarray, b: float, t: np.ndarray, c: float) -> float:
    """½ ‖w‖² + C Σ max(0, 1 − t (wᵀz + b))."""
    return float(0.5 * w @ w + c * np.maximum(0, 1 - t * (Z @ w + b)).sum())


@pytest.mark.parametrize("c", [0.01, 1.0])
def test_the_svm_minimises_the_hinge_loss(c: float):
    """No step in any direction is better, for each class against the rest."""
    (scores,) = classifiers.linear_svm(Z, Y, 3, [c])
    bias = scores(np.zeros((1, 5)))[0]
    weights = scores(np.eye(5)) - bias
    rng = np.random.default_rng(0)
    for label in range(3):
        t = np.where(label == Y, 1.0, -1.0)
        least = hinge(weights[:, label], bias[label], t, c)
        for _ in range(200):
            size = 10 ** rng.uniform(-3, 0)
            step = size * rng.normal(size=6)
            moved = hinge(weights[:, label] + step[:5], bias[label] + step[5], t, c)
            assert moved >= least * (1 - 1e-6)


def test_two_classes_are_one_problem():
    """Scores 0 and wᵀx + b, as scikit-learn's other solver has them."""
    two, y = Z[Y < 2], Y[Y < 2]
    (scores,) = classifiers.linear_svm(two, y, 2, [0.05])
    assert (scores(X)[:, 0] == 0).all()
    other = LinearSVC(C=0.05, loss="hinge", intercept_scaling=100, tol=1e-8, max_iter=1_000_000)
    other.fit(two, y)
    np.testing.assert_allclose(scores(X)[:, 1], other.decision_function(X), atol=0.02)
    assert (scores(two).argmax(1) == y).mean() > 0.9


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_is_where_its_gradient_vanishes(classes: int):
    """W = C Σ zᵢ (onehot − p)ᵀ; of two classes the one w of σ(wᵀz + b)."""
    z, y, c = Z[classes > Y], Y[classes > Y], 0.5
    (scores,) = classifiers.logistic(z, y, classes, [c])
    logits = scores(z)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    weights = scores(np.eye(5)) - scores(np.zeros((1, 5)))
    gap = np.eye(classes)[y] - p
    np.testing.assert_allclose(gap.sum(0), 0, atol=1e-3)  # the intercept is free
    if classes == 2:
        np.testing.assert_allclose(weights[:, 1], c * z.T @ gap[:, 1], atol=1e-3)
    else:
        np.testing.assert_allclose(weights, c * z.T @ gap, atol=1e-3)


def test_folds_have_a_fifth_of_each_class():
    labels = np.repeat([0, 1, 2], [10, 5, 23])
    fold = classifiers.folds(labels, KEY)
    for label in range(3):
        counts = np.bincount(fold[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    counts = np.bincount(fold)
    assert counts.max() - counts.min() <= 1
    other = classifiers.folds(labels, random.make_key(1, "tests"))
    assert (fold != other).any() and (fold == classifiers.folds(labels, KEY)).all()


def test_cross_validation_by_a_loop():
    """Each fold is predicted by a classifier that did not see it."""
    values = [1e-4, 0.1]
    found = classifiers.cross_validation(classifiers.linear_svm, Z, Y, 3, values, KEY)
    fold = classifiers.folds(Y, KEY)
    for c, accuracy in zip(values, found, strict=True):
        right = 0
        for i in range(len(Z)):
            kept = fold != fold[i]
            (scores,) = classifiers.linear_svm(Z[kept], Y[kept], 3, [c])
            right += int(scores(Z[i : i + 1]).argmax() == Y[i])
        assert accuracy == right / len(Z)


def test_labels_without_a_pattern_are_not_learned():
    """A fold that was trained on would be remembered by 1-NN: 100 % instead of chance."""
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(60, 4)), np.arange(60) % 2

    def remember(z, y, classes, values):
        return [classifiers.nearest(z, y, classes)]

    (found,) = classifiers.cross_validation(remember, z, y, 2, [1.0], KEY)
    assert 0.2 < found < 0.8


def test_a_class_with_too_few_samples_is_refused():
    few = np.append(np.repeat([0, 1], 10), 2)
    with pytest.raises(
        UserError, match=r"^class 2 .* has 1 training samples, and 5-fold cross-val"
    ):
        classifiers.cross_validation(classifiers.linear_svm, Z[:21], few, 3, [1.0], KEY)
    for train in classifiers.TRAINERS.values():
        with pytest.raises(UserError, match=r"^class 3 .* has 0 training samples, and one is"):
            train(Z[:21], few, 4, [1.0])
