"""Plans of optimal transport between two sets of samples, with entropy and a group lasso by class.

Cuturi, "Sinkhorn distances", NIPS 2013, arXiv:1306.0895, in the log domain; the group lasso of
Courty et al., arXiv:1507.00504; its solution by generalised conditional gradient: Rakotomamonjy,
Flamary and Courty, arXiv:1510.06567.

POT 0.9.7 has the same problem as `ot.da.sinkhorn_l1l2_gl`, and stops before its minimum: it counts
the entropy in the linear part of the inner problem as well, where the paper leaves it out.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Plan = Float[np.ndarray, "n k"]
BLOCK = 20
"""Scalings between two computations of the kernel from the potentials."""


class Transport(NamedTuple):
    """A plan and the potentials that it comes from."""

    plan: Plan
    """γ = exp((f + g − cost) / ε): rows sum to 1/n, columns to 1/k."""
    f: Float[np.ndarray, " n"]
    g: Float[np.ndarray, " k"]


def sinkhorn(
    cost: Plan,
    entropy: float,
    start: Float[np.ndarray, " k"] | None = None,
    tolerance: float = 1e-9,
    blocks: int = 500,
) -> Transport:
    """argmin ⟨γ, cost⟩ + ε Σ γ log γ over γ ≥ 0 with rows 1/n and columns 1/k.

    Args:
        cost: finite.
        entropy: ε > 0, in the unit of `cost`.
        start: potential g to begin with; None: 0.
        tolerance: on the sum of what rows miss of 1/n.
        blocks: most blocks of `BLOCK` scalings; then the plan is what there is.
    """
    from scipy.special import logsumexp

    n, k = cost.shape
    g: np.ndarray = np.zeros(k) if start is None else start
    # One sweep of logarithms: from here on no row or column of the kernel vanishes.
    f = -entropy * (np.log(n) + logsumexp((g - cost) / entropy, axis=1))
    g = -entropy * (np.log(k) + logsumexp((f[:, None] - cost) / entropy, axis=0))
    for _ in range(blocks):
        kernel = np.exp((f[:, None] + g - cost) / entropy)
        if np.abs(kernel.sum(1) - 1 / n).sum() <= tolerance:
            break
        v = np.ones(k)
        for _ in range(BLOCK):
            u = 1 / (n * (kernel @ v))
            v = 1 / (k * (u @ kernel))
        f, g = f + entropy * np.log(u), g + entropy * np.log(v)
    return Transport(np.exp((f[:, None] + g - cost) / entropy), f, g)


def class_norms(plan: Plan, members: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "c k"]:
    """‖γ(I_c, j)‖₂ for each class c of the source and each target sample j."""
    return np.sqrt(members.T @ plan**2)


def class_transport(
    cost: Plan,
    labels: Int[np.ndarray, " n"],
    entropy: float,
    strength: float,
    tolerance: float = 1e-4,
    rounds: int = 100,
) -> Plan:
    """argmin ⟨γ, cost⟩ + ε Σ γ log γ + η Σ_j Σ_c ‖γ(I_c, j)‖₂ over plans.

    A convex problem. The group lasso alone is linearised, and what is left is Sinkhorn's problem,
    whose solution γ' gives a direction, and the bound F(γ) − F* ≤ gap that says when to stop.

    Args:
        cost: of moving source sample i to target sample j.
        labels: of the source.
        entropy: ε > 0.
        strength: η ≥ 0; 0 is `sinkhorn`.
        tolerance: on the gap, in the unit of `cost`.
        rounds: most directions; then the plan is what there is.
    """
    from scipy.special import xlogy

    at = sinkhorn(cost, entropy)
    plan, g = at.plan, at.g
    if strength == 0:
        return plan
    members = np.eye(labels.max() + 1)[labels]

    def value(plan: Plan) -> float:
        entropies = entropy * xlogy(plan, plan).sum()
        return (plan * cost).sum() + entropies + strength * class_norms(plan, members).sum()

    now = value(plan)
    for _ in range(rounds):
        norms = np.maximum(class_norms(plan, members), np.finfo(float).tiny)[labels]
        linear = cost + strength * plan / norms
        direction = sinkhorn(linear, entropy, g)
        g, step = direction.g, direction.plan - plan
        gap = -(linear * step).sum() - entropy * (
            xlogy(direction.plan, direction.plan).sum() - xlogy(plan, plan).sum()
        )
        if gap <= tolerance:
            break
        size = 1.0  # F falls by at least half the gap's share for small enough steps: F is convex
        while (then := value(plan + size * step)) > now - 1e-4 * size * gap and size > 1e-8:
            size /= 2
        plan, now = plan + size * step, then
    return plan
