"""R2-D2: ridge regression by scikit-learn and by its normal equations."""

import math

import pytest
import torch
from sklearn.linear_model import Ridge
from small_episodes import (
    F64,
    assert_maps,
    assert_stack_equals_runs,
    assert_symmetric,
    close,
    episodes,
    features,
    generator,
)

from tlresearch.backbones.mlp import MLP
from tlresearch.fewshot.r2d2 import R2D2, ridge_weights

METHOD = R2D2(ridge=0.5, scale=2.0)
BACKBONE = MLP(hidden=(6,), norm="batch")


def network(method=METHOD, seed: int = 0):
    return method.networks(BACKBONE, (1, 4, 4), 3, seed).double()


@pytest.mark.parametrize("rows", [4, 9])
@pytest.mark.parametrize("ridge", [1e-3, 2.0])
def test_weights_are_those_of_scikit_learn(rows, ridge):
    """Fewer rows than columns, and more."""
    x = torch.randn(rows, 6, dtype=F64, generator=generator(0))
    y = torch.randn(rows, 3, dtype=F64, generator=generator(1))
    model = Ridge(alpha=ridge, fit_intercept=False, solver="svd").fit(x.numpy(), y.numpy())
    close(ridge_weights(x, y, ridge), torch.from_numpy(model.coef_).T, atol=1e-9)


def test_scores_solve_the_normal_equations():
    """α X'W + β with (XᵀX + λI) W = XᵀY, for λ, α and β as they may be after training."""
    support, query = features(ways=3, shots=2, dim=6)
    net = network()
    with torch.no_grad():
        for parameter, value in ((net.log_factor, 0.3), (net.factor, -1.7), (net.shift, 0.9)):
            parameter.fill_(value)
    x = support.flatten(0, 1)
    one_hot = torch.tensor([[1, 0, 0]] * 2 + [[0, 1, 0]] * 2 + [[0, 0, 1]] * 2, dtype=F64)
    system = x.T @ x + 0.5 * math.exp(0.3) * torch.eye(6, dtype=F64)
    expected = 2 * -1.7 * query @ torch.linalg.inv(system) @ x.T @ one_hot + 0.9
    close(METHOD.compare(net, {}, support, query), expected, atol=1e-9)


def test_training_starts_at_the_settings():
    """λ₀ = 0.5 and α₀ = 2, which are no part of the networks: so a stack may hold several."""
    support, query = features(ways=3, shots=2, dim=6)
    x = support.flatten(0, 1)
    one_hot = torch.eye(3, dtype=F64).repeat_interleave(2, 0)
    expected = 2 * query @ ridge_weights(x, one_hot, 0.5)
    close(METHOD.compare(network(R2D2(ridge=9.0)), {}, support, query), expected)


def test_gradient_is_the_finite_difference():
    """Of λ, α, β and a weight of the network, through the linear system."""
    net, batch, step = network(), episodes(), 1e-6
    names = ["log_factor", "factor", "shift", "backbone.layers.0.weight"]
    parameters = dict(net.named_parameters())
    slopes = torch.autograd.grad(
        METHOD.loss(net, {}, batch).total, [parameters[name] for name in names]
    )
    for name, slope in zip(names, slopes, strict=True):
        flat, values = parameters[name].detach().view(-1), []
        for sign in (1, -1):
            flat[0] += sign * step
            values.append(METHOD.loss(net, {}, batch).total.item())
            flat[0] -= sign * step
        assert slope.view(-1)[0].item() == pytest.approx(
            (values[0] - values[1]) / (2 * step), rel=1e-6, abs=1e-9
        )
    assert all(slope.abs().max() > 1e-6 for slope in slopes[:2])


def test_finite_with_features_of_500_and_equal_images():
    """All support images of a class equal: the kernel alone is singular, λ makes it regular."""
    net = network().float()
    support = torch.tensor([[500.0, 0.0], [-500.0, 0.0]]).unsqueeze(1).expand(2, 3, 2)
    scores = METHOD.compare(net, {}, support, torch.tensor([[500.0, 3.0], [0.0, -500.0]]))
    assert scores.isfinite().all()
    assert scores[0].argmax() == 0


def test_symmetries():
    net = network()
    assert_symmetric(lambda s, q: METHOD.compare(net, {}, s, q), *features(dim=6))


def test_maps_over_episodes():
    assert_maps(METHOD, network(), {})


def test_stack_equals_separate_runs():
    assert_stack_equals_runs(METHOD, BACKBONE, episodes)
