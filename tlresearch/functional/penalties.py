"""Quadratic penalties on weights, and the algebra that adds them up."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Params = Mapping[str, Tensor]
"""Tensors by parameter name."""


def quadratic_penalty(params: Params, anchor: Params, fisher: Params) -> Float[Tensor, ""]:
    """½ Σᵢ Fᵢ (θᵢ − θ*ᵢ)²: what λ multiplies in Kirkpatrick et al. 2017, eq. (3).

    Args:
        params: current weights θ, by parameter name.
        anchor: the weights θ* to stay near; parameters that it does not name are free.
        fisher: non-negative diagonal F for each name of `anchor`, in the shape of its weight;
            nats per squared unit of θ.

    Returns:
        A scalar in nats; an empty `anchor` gives 0.

    Raises:
        KeyError: a name of `anchor` is missing in `params` or `fisher`, as that of a frozen
            parameter is in the Fisher; says which and what to do.
    """
    total = next(iter(params.values())).new_zeros(()) if params else torch.zeros(())
    for name, point in anchor.items():
        if name not in params or name not in fisher:
            raise KeyError(_absence(anchor, params, fisher))
        gap = params[name] - point
        total = total + (fisher[name] * gap * gap).sum()
    return 0.5 * total


def _absence(anchor: Params, params: Params, fisher: Params) -> str:
    """Which names of `anchor` are missing where, and what to do about the usual reason."""
    absent, where = [name for name in anchor if name not in params], "params"
    remedy = "give dict(network.named_parameters()) of the network that the anchor was taken from"
    if not absent:
        absent, where = [name for name in anchor if name not in fisher], "fisher"
        remedy = (
            "diagonal_fisher leaves out frozen parameters (requires_grad=False), so take the "
            "anchor of its names: {name: params[name].detach().clone() for name in fisher}"
        )
    more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    return f"anchor names what {where} lacks: {', '.join(absent[:3])}{more}; {remedy}"


class Quadratic(NamedTuple):
    """The function θ ↦ ½ Σᵢ Fᵢ (θᵢ − aᵢ)² + c."""

    curvature: dict[str, Tensor]
    """F by parameter name."""
    centre: dict[str, Tensor]
    """a by parameter name."""
    constant: Float[Tensor, ""]
    """c, in nats."""


def add_quadratics(first: Quadratic, second: Quadratic) -> Quadratic:
    """The sum of two quadratics as one: equal to it for every θ, not only in its gradient.

    ½F₁(θ−a₁)² + ½F₂(θ−a₂)² = ½(F₁+F₂)(θ−a)² + ½ F₁F₂/(F₁+F₂) (a₁−a₂)² with the mean
    a = a₁ + F₂/(F₁+F₂) (a₂−a₁). Where F₁+F₂ = 0 any centre will do, and a₁ is kept. So the cost
    of a penalty does not grow with the number of tasks. (Huszár, arXiv:1712.03847, asks for the
    sum of Fishers but re-centres it on the last weights; this keeps every task's own centre.)

    Args:
        first: a quadratic; an empty one (no names) is its constant.
        second: another over the same names, or empty.

    Raises:
        KeyError: the names differ.
    """
    if not first.curvature:
        return second._replace(constant=first.constant + second.constant)
    if not second.curvature:
        return first._replace(constant=first.constant + second.constant)
    curvature, centre = {}, {}
    constant = first.constant + second.constant
    # Not a set of the names: its order differs from process to process, and so would the sum.
    for name in [*second.curvature, *(k for k in first.curvature if k not in second.curvature)]:
        f1, f2 = first.curvature[name], second.curvature[name]
        share = f2 / (f1 + f2).clamp_min(torch.finfo(f1.dtype).tiny)
        gap = second.centre[name] - first.centre[name]
        curvature[name] = f1 + f2
        centre[name] = first.centre[name] + share * gap
        constant = constant + 0.5 * (f1 * share * gap * gap).sum()
    order = list(second.curvature)
    return Quadratic({k: curvature[k] for k in order}, {k: centre[k] for k in order}, constant)


def evaluate_quadratic(quadratic: Quadratic, params: Params) -> Float[Tensor, ""]:
    """½ Σᵢ Fᵢ (θᵢ − aᵢ)² + c, in nats, for θ = `params`."""
    penalty = quadratic_penalty(params, quadratic.centre, quadratic.curvature)
    return penalty + quadratic.constant
