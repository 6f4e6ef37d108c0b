"""ESZSL and attribute prototypes against their objectives, numpy and plain loops, in float64."""

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from tlresearch.fewshot.zeroshot.attribute_prototypes import (
    AttributePrototypes,
    negative_squared_distance,
    predict_attributes,
    ridge_head,
)
from tlresearch.fewshot.zeroshot.eszsl import ESZSL, bilinear_map
from tlresearch.functional import random

N, DIM, CLASSES, ATTRIBUTES = 20, 5, 4, 3
Seen = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def seen() -> Seen:
    """Features, labels and attributes of seen classes; one class has more images than others."""
    key = random.make_key(0, "estimators")
    features = random.normal(random.fold(key, 0), (N, DIM), torch.float64)
    labels = (random.integers(random.fold(key, 1), 2 * CLASSES, (N,)) - CLASSES).clamp_min(0)
    attributes = random.normal(random.fold(key, 2), (CLASSES, ATTRIBUTES), torch.float64)
    return features, labels, attributes


def signs(labels):
    return torch.nn.functional.one_hot(labels, CLASSES).double() * 2 - 1


def test_eszsl_is_where_the_gradient_of_its_objective_is_zero(seen: Seen):
    """‖XᵀVS − Y‖² + γ‖VS‖² + λ‖XᵀV‖² + γλ‖V‖², written out with no closed form."""
    x, labels, s = seen
    gamma, lam = 0.7, 2.5
    v = bilinear_map(x, labels, s, gamma, lam).requires_grad_()

    def objective(v):
        fit = (x @ v @ s.T - signs(labels)).square().sum()
        ridges = gamma * (v @ s.T).square().sum() + lam * (x @ v).square().sum()
        return fit + ridges + gamma * lam * v.square().sum()

    (gradient,) = torch.autograd.grad(objective(v), v)
    torch.testing.assert_close(gradient, torch.zeros_like(v), atol=1e-10, rtol=0)
    moved = objective(v + 1e-3 * torch.ones_like(v))
    assert moved > objective(v)  # a minimum, and no other point of rest


def test_eszsl_equals_the_papers_line_in_numpy(seen: Seen):
    """(X Xᵀ + γI)⁻¹ X Y Sᵀ (S Sᵀ + λI)⁻¹ with inverses, X and S as in the paper."""
    x, labels, s = seen
    big_x, y, big_s = x.numpy().T, signs(labels).numpy(), s.numpy().T
    left = np.linalg.inv(big_x @ big_x.T + 0.7 * np.eye(DIM))
    right = np.linalg.inv(big_s @ big_s.T + 2.5 * np.eye(ATTRIBUTES))
    expected = torch.from_numpy(left @ big_x @ y @ big_s.T @ right)
    torch.testing.assert_close(bilinear_map(x, labels, s, 0.7, 2.5), expected)


def test_eszsl_equals_the_normal_equations_of_one_long_regression(seen: Seen):
    """vec(V) solves the least squares of all n · z scores and the three penalties, stacked."""
    x, _, s = (t.numpy() for t in seen)
    gamma, lam = 0.7, 2.5
    y = signs(seen[1]).numpy()
    rows = [np.kron(x, s), gamma**0.5 * np.kron(np.eye(DIM), s)]
    rows += [lam**0.5 * np.kron(x, np.eye(ATTRIBUTES))]
    rows += [(gamma * lam) ** 0.5 * np.eye(DIM * ATTRIBUTES)]
    system = np.concatenate(rows)
    target = np.concatenate([y.ravel(), np.zeros(len(system) - y.size)])
    solution = np.linalg.lstsq(system, target, rcond=None)[0].reshape(DIM, ATTRIBUTES)
    torch.testing.assert_close(bilinear_map(*seen, gamma, lam), torch.from_numpy(solution))


def test_eszsl_scores_are_bilinear(seen: Seen):
    """x V sᵀ by a loop over images and classes; both settings are used, in their places."""
    x, _, s = seen
    method = ESZSL(feature_ridge=0.7, attribute_ridge=2.5)
    fitted = method.fit(*seen, seed=0)
    torch.testing.assert_close(fitted.weights, bilinear_map(*seen, 0.7, 2.5))
    loop = [[sum(x[i] @ fitted.weights * s[c]) for c in range(CLASSES)] for i in range(N)]
    torch.testing.assert_close(method.scores(fitted, x, s), torch.tensor(loop, dtype=torch.float64))


def test_ridge_head_is_where_the_gradient_of_its_objective_is_zero(seen: Seen):
    """Weights and intercept of Σ‖b + Wᵀx − a‖² + r‖W‖², whose intercept is free."""
    x, labels, s = seen
    head = ridge_head(x, s[labels], 1.3)
    weights = head.weights.clone().requires_grad_()
    intercept = (head.attribute_mean - head.feature_mean @ head.weights).requires_grad_()
    residual = intercept + x @ weights - s[labels]
    objective = residual.square().sum() + 1.3 * weights.square().sum()
    for gradient in torch.autograd.grad(objective, (weights, intercept)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-10, rtol=0)


@pytest.mark.parametrize("nearest", ["cosine", "squared"])
def test_prototype_scores_equal_a_loop(seen: Seen, nearest: Literal["cosine", "squared"]):
    """cos(a, s_c), or −‖a − s_c‖², pair by pair."""
    x, _, s = seen
    method = AttributePrototypes(ridge=1.3, nearest=nearest)
    fitted = method.fit(*seen, seed=0)
    predicted = predict_attributes(fitted, x)
    for i in range(N):
        for c in range(CLASSES):
            a = predicted[i]
            cosine = (a @ s[c]) / (a.norm() * s[c].norm())
            expected = cosine if nearest == "cosine" else -(a - s[c]).square().sum()
            torch.testing.assert_close(method.scores(fitted, x, s)[i, c], expected)


def test_exact_attributes_find_every_unseen_class():
    """Features that are an affine map of the attributes: unseen classes are recognised, too."""
    key = random.make_key(1, "estimators")
    attributes = random.normal(random.fold(key, 0), (8, 3), torch.float64)
    mix = random.normal(random.fold(key, 1), (3, 6), torch.float64)
    features, labels = attributes @ mix + 1, torch.arange(8)
    method = AttributePrototypes(ridge=1e-9, nearest="squared")
    fitted = method.fit(features[:5], labels[:5], attributes[:5], seed=0)
    scores = method.scores(fitted, features[5:], attributes)
    assert scores.argmax(1).tolist() == [5, 6, 7]
    torch.testing.assert_close(scores.amax(1), torch.zeros(3).double(), atol=1e-6, rtol=0)


def test_squared_distance_is_not_the_distance():
    a, s = torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)
    assert negative_squared_distance(a, s).item() == -25
