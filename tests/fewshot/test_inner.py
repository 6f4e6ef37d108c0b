"""The inner loop against closed forms on quadratics, and chunks of tasks against the whole."""

import pytest
import torch
from small_tasks import F64
from torch.func import grad, vmap

from tlresearch.fewshot.inner import adapt, mean_over_tasks


def quadratic(curvature, minimum):
    """L = ½ a (w − m)², so that ∇L = a (w − m)."""
    return lambda params, step: 0.5 * (curvature * (params["w"] - minimum).square()).sum()


@pytest.mark.parametrize("first_order", [True, False])
def test_the_path_on_a_quadratic(first_order):
    """w_k = m + (1 − αa)^k (w₀ − m), from step 0 on."""
    a, m, w = torch.randn(3, 4, dtype=F64)
    path = adapt(quadratic(a, m), {"w": w}, 3, [0.1], first_order)
    for k, params in enumerate(path):
        torch.testing.assert_close(params["w"], m + (1 - 0.1 * a) ** k * (w - m))
    assert len(path) == 4


@pytest.mark.parametrize(("first_order", "power"), [(True, 0), (False, 3)])
def test_the_derivative_of_the_end_by_the_start(first_order, power):
    """dw₃/dw₀ = (1 − αa)³; with inner gradients as constants it is 1."""
    a, m, w = torch.randn(3, 4, dtype=F64)

    def end(w):
        return adapt(quadratic(a, m), {"w": w}, 3, [0.1], first_order)[-1]["w"].sum()

    torch.testing.assert_close(grad(end)(w), (1 - 0.1 * a) ** power)


@pytest.mark.parametrize("first_order", [True, False])
def test_the_derivative_by_the_rate(first_order):
    """dw₁/dα = −∇L, in either order."""
    a, m, w = torch.randn(3, 4, dtype=F64)

    def end(rate):
        return adapt(quadratic(a, m), {"w": w}, 1, [{"w": rate}], first_order)[-1]["w"].sum()

    torch.testing.assert_close(grad(end)(torch.full((4,), 0.1, dtype=F64)), -a * (w - m))


def test_rates_by_step_and_the_last_one_stays():
    """w₃ = (1 − α₀)(1 − α₁)² w₀ for L = ½ w²."""
    path = adapt(quadratic(1.0, 0.0), {"w": torch.ones(())}, 3, [0.5, 0.1])
    assert [round(p["w"].item(), 6) for p in path] == [1.0, 0.5, 0.45, 0.405]


def test_the_loss_of_each_step_is_its_own():
    """The step's number reaches the loss, for minibatches: m_k = k."""
    path = adapt(lambda p, k: 0.5 * (p["w"] - k).square(), {"w": torch.ones(())}, 3, [1.0])
    assert [p["w"].item() for p in path] == [1.0, 0.0, 1.0, 2.0]


def test_what_does_not_move_is_not_in_the_path():
    moved = {"w": torch.ones(())}
    path = adapt(lambda p, k: p["w"].square(), moved, 2, [0.1])
    assert path[0] is moved and all(set(p) == {"w"} for p in path)


def of_task(params, x):
    """sin(⟨w, x⟩ + b), and x as what comes with it."""
    return torch.sin((params["w"] * x).sum() + params["b"]), {"x": x}


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 9])
def test_chunks_equal_the_whole(chunk):
    """Value, gradient and company of 7 tasks to 1e-12, whatever the parts."""
    params = {"w": torch.randn(4, dtype=F64), "b": torch.randn((), dtype=F64)}
    for p in params.values():
        p.requires_grad_()
    x = torch.randn(7, 4, dtype=F64)
    results = []
    for size in (None, chunk):
        value, other = mean_over_tasks(of_task, params, [x], size)
        slopes = torch.autograd.grad(value, list(params.values()))
        results.append((value, other["x"], *slopes))
    plain = torch.stack([of_task(params, one)[0] for one in x]).mean()
    torch.testing.assert_close(results[0][0], plain, atol=1e-12, rtol=0)
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-12, rtol=0)


def test_chunks_map_over_seeds():
    """Inside `vmap`, each seed with its own parameters and tasks."""
    w, x = torch.randn(3, 4, dtype=F64), torch.randn(3, 7, 4, dtype=F64)

    def value(w, x, chunk):
        return mean_over_tasks(of_task, {"w": w, "b": w[0]}, [x], chunk)[0]

    def slope(w, x, chunk):
        return vmap(lambda a, b: value(a, b, chunk))(w, x)

    leaf = w.clone().requires_grad_()
    (parts,) = torch.autograd.grad(slope(leaf, x, 2).sum(), leaf)
    (whole,) = torch.autograd.grad(slope(leaf, x, None).sum(), leaf)
    torch.testing.assert_close(parts, whole, atol=1e-12, rtol=0)


def test_chunks_free_their_graphs():
    """What a chunked value holds until its backward pass is the gradient, and no task's graph."""
    seen = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, slope):
            seen.append("backward")
            return slope

        generate_vmap_rule = True

    def watched(params, x):
        return Watched.apply(params["w"] * x).sum(), {}

    w = torch.ones(2, requires_grad=True)
    value, _ = mean_over_tasks(watched, {"w": w}, [torch.ones(4, 2)], 2)
    assert len(seen) == 2
    value.backward()
    assert len(seen) == 2


def test_a_first_order_path_has_no_graph_of_second_order():
    """Its end depends on w₀ by additions alone: the graph has no product with the loss."""
    w = torch.ones(3, dtype=F64, requires_grad=True)
    ends = {}
    for first in (True, False):
        end = adapt(lambda p, k: p["w"].pow(3).sum(), {"w": w}, 2, [0.1], first)[-1]["w"]
        names, todo = [], [end.grad_fn]
        while todo:
            node = todo.pop()
            if node is not None:
                names.append(node.name())
                todo += [following for following, _ in node.next_functions]
        ends[first] = names
    assert not any("Pow" in name or "Mul" in name for name in ends[True])
    assert any("Pow" in name for name in ends[False])
