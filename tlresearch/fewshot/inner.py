"""The inner loop of gradient-based meta-learning: pure functions of parameter dictionaries.

Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks",
ICML 2017, arXiv:1703.03400. `adapt` is eq. (1), `mean_over_tasks` the objective
minᵩ Σ_i L_i(θ′_i) of section 2.2 (a mean here), whose gradient goes through the inner steps.

Both nest: `torch.func.grad` in `vmap` over tasks in `vmap` over seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad, grad_and_value, vmap
from torch.utils import _pytree as pytree

Params = dict[str, Tensor]
"""Parameters by name."""

Rate = float | Tensor | Mapping[str, Tensor]
"""α: one number, or by parameter name a tensor that broadcasts against the parameter."""

Tree = Any

Valued = tuple[Tensor, Tree]
"""A loss, and what comes with it. Named, because a subscript that is evaluated when a function is
called, as in the signature of one within it, breaks a compiled graph in two."""


def parameters_of(networks: nn.Module) -> Params:
    """The parameters of networks by name."""
    params: Params = dict(networks.named_parameters())  # `dict[…](…)` would break a compiled graph
    return params


def adapt(
    loss_of: Callable[[Params, int], Tensor],
    params: Params,
    steps: int,
    rates: Sequence[Rate],
    first_order: bool = False,
) -> list[Params]:
    """θ₀ … θ_K by θ_{k+1} = θ_k − α_k ∇L_k(θ_k), Finn et al., eq. (1).

    Args:
        loss_of: L_k as a pure function of (θ_k, k), a scalar.
        params: θ₀, by name; any shapes.
        steps: K, at least 0.
        rates: α₀, α₁, …; the last one is kept for all steps beyond them.
        first_order: takes ∇L as a constant: derivatives of θ_K see θ₀ and α, not the Hessian
            (Finn et al., section 5.2), and no graph of second order is built.

    Returns:
        K + 1 dictionaries of the same names and shapes.
    """
    path = [params]
    for k in range(steps):
        here, rate = path[-1], rates[min(k, len(rates) - 1)]
        at = {name: value.detach() for name, value in here.items()} if first_order else here
        slope = grad(loss_of)(at, k)
        if first_order:
            slope = {name: value.detach() for name, value in slope.items()}
        path.append(
            {
                name: value - (rate[name] if isinstance(rate, Mapping) else rate) * slope[name]
                for name, value in here.items()
            }
        )
    return path


def mean_over_tasks(
    of_task: Callable[..., tuple[Tensor, Tree]],
    params: Params,
    tasks: Sequence[Float[Tensor, "tasks ..."]],
    chunk: int | None = None,
) -> tuple[Float[Tensor, ""], Tree]:
    """(1/T) Σ_t L_t(θ) and the mean of what comes with it, over a batch of tasks.

    With `chunk` the gradient with respect to `params` is computed here, part by part, so that no
    more than `chunk` tasks are in memory at once; what is returned is the same number with the
    same gradient, Σ ⟨g, θ − sg(θ)⟩ + sg(L). It can be differentiated once.

    Args:
        of_task: (θ, *tensors of one task) to (L_t, a tree of tensors that carry no gradient).
        params: θ, all that the loss is to be differentiated by.
        tasks: tensors whose first dimension is the task.
        chunk: how many tasks one `vmap` takes, the last part perhaps fewer; None: all.
    """

    def mean(params: Params, *part: Tensor) -> Valued:
        values, others = vmap(of_task, in_dims=(None, *(0 for _ in part)), randomness="error")(
            params, *part
        )
        return values.mean(), pytree.tree_map(lambda leaf: leaf.mean(0), others)

    count = len(tasks[0])
    if chunk is None or chunk >= count:
        return mean(params, *tasks)
    constants = {name: value.detach() for name, value in params.items()}
    mapped = not all(isinstance(value, nn.Parameter) for value in params.values())
    slope_of = _mapped_slope if mapped or torch.compiler.is_compiling() else _slope
    total, slope, others = None, None, None
    for part in zip(*(t.split(chunk) for t in tasks), strict=True):
        share = len(part[0]) / count
        g, (value, other) = slope_of(mean, constants, part)
        one = pytree.tree_map(lambda leaf, share=share: leaf.detach() * share, (value, g, other))
        if total is None:
            total, slope, others = one
        else:
            total, slope, others = pytree.tree_map(torch.add, (total, slope, others), one)
    assert total is not None and slope is not None
    moved = [(slope[name] * (params[name] - constants[name])).sum() for name in params]
    return total + torch.stack(moved).sum(), others


def _mapped_slope(
    function: Callable[..., Valued], params: Params, part: Sequence[Tensor]
) -> tuple[Params, Valued]:
    """∇f and (f, what comes with it), for tensors of any kind."""
    return grad_and_value(function, has_aux=True)(params, *part)


def _slope(
    function: Callable[..., Valued], params: Params, part: Sequence[Tensor]
) -> tuple[Params, Valued]:
    """The same for plain tensors, in half the memory.

    `torch.func` differentiates so that its result can be differentiated again, and so keeps what
    that would need.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    value, other = function(leaves, *part)
    slopes = torch.autograd.grad(
        value, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(leaves, slopes, strict=True)), (value, other)
