"""Meta-SGD: a rate for each number of each weight, learned by an exact gradient."""

import pytest
import torch
from small_tasks import (
    F64,
    assert_stack_is_separate_runs,
    before_norm,
    build,
    images,
    meta_gradient,
    relative_errors,
)

from tlresearch.fewshot.maml import MAML
from tlresearch.fewshot.meta_sgd import MetaSGD


@pytest.mark.parametrize(("backbone", "steps"), [("mlp", 1), ("mlp", 5), ("conv4", 1)])
def test_gradients_of_weights_and_rates_are_finite_differences(backbone, steps):
    """Along a random direction in each tensor; the rates of conv biases reach nothing."""
    method = MetaSGD(inner_steps=steps, inner_lr=0.1)
    networks = build(method, backbone)
    silent = {name.replace(".", "/") for name in before_norm(networks)}

    def skip(name):
        return name.removeprefix("rates.").replace(".", "/") in silent

    errors = relative_errors(method, networks, images(), skip)
    assert len(errors) == {"mlp": 8, "conv4": 28}[backbone]
    print(f"\nMeta-SGD, {backbone}, {steps} steps: relative error {max(errors.values()):.1e}")
    assert max(errors.values()) < 1e-6


def test_equal_rates_are_maml():
    """Before α is trained, loss and gradient of the weights are MAML's."""
    batch = images()
    slopes = {}
    for method in (MAML(inner_steps=2, inner_lr=0.125), MetaSGD(inner_steps=2, inner_lr=0.125)):
        slopes[type(method)] = meta_gradient(method, build(method, "conv4"), batch)
    for name, value in slopes[MAML].items():
        torch.testing.assert_close(slopes[MetaSGD][name], value, rtol=0, atol=1e-12)


def test_rates_have_the_shapes_of_the_weights():
    networks = build(MetaSGD(inner_lr=0.02), "mlp")
    params = dict(networks.named_parameters())
    for name in [k for k in params if not k.startswith("rates.")]:
        rate = params["rates." + name.replace(".", "/")]
        assert rate.dtype == F64
        torch.testing.assert_close(rate.detach(), torch.full_like(params[name], 0.02))


def test_the_gradient_of_a_rate_after_one_step():
    """∂L/∂α = −∇L(θ′; query) ∘ ∇L(θ; support), one task and one step."""
    method = MetaSGD(inner_lr=0.1)
    networks, batch = build(method, "mlp"), images(tasks=1)
    slopes = meta_gradient(method, networks, batch)
    y, y_query = (torch.arange(3).repeat_interleave(t.shape[2]) for t in batch[:2])
    weight = networks.get_parameter("head.weight")
    params = [p for k, p in networks.named_parameters() if not k.startswith("rates.")]

    def loss(x, y):
        return torch.nn.functional.cross_entropy(networks(x.flatten(0, 2)), y)

    before = torch.autograd.grad(loss(batch.support_x, y), params)
    for p, slope in zip(params, before, strict=True):
        p.data -= 0.1 * slope
    (after,) = torch.autograd.grad(loss(batch.query_x, y_query), weight)
    expected = -after * before[[p is weight for p in params].index(True)]
    torch.testing.assert_close(slopes["rates.head/weight"], expected)


@pytest.mark.parametrize("chunk", [None, 2])
def test_a_stack_is_separate_runs(chunk):
    method = MetaSGD(inner_steps=2, inner_lr=0.1, task_chunk=chunk)
    assert_stack_is_separate_runs(method, "conv4", images)
