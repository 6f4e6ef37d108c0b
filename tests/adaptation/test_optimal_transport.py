"""Transport plans against their constraints, a general solver, limits and POT."""

import warnings

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, minimize
from shallow_domains import assert_differs_from_none, assert_order_of_samples_has_no_part, domains

from tlresearch.adaptation.optimal_transport import (
    OptimalTransport,
    barycentres,
    moved_with_nearest,
)
from tlresearch.adaptation.transport import class_transport, sinkhorn

RNG = np.random.default_rng(0)
COST, LABELS = RNG.random((6, 5)), np.array([0, 0, 0, 1, 1, 1])
CASES = [(0.1, 0.3), (0.05, 0.1), (1.0, 0.1)]


def value(plan: np.ndarray, entropy: float, strength: float) -> float:
    """The objective, class by class and sample by sample."""
    found = float((plan * COST).sum() + entropy * (plan * np.log(np.maximum(plan, 1e-300))).sum())
    for label in (0, 1):
        for j in range(plan.shape[1]):
            found += strength * float(np.linalg.norm(plan[label == LABELS, j]))
    return found


def solved(entropy: float, strength: float) -> float:
    """The least value, by a solver of general problems."""
    rows = {"type": "eq", "fun": lambda p: p.reshape(6, 5).sum(1) - 1 / 6}
    columns = {"type": "eq", "fun": lambda p: (p.reshape(6, 5).sum(0) - 1 / 5)[:-1]}
    found = minimize(
        lambda p: value(p.reshape(6, 5), entropy, strength),
        np.full(30, 1 / 30),
        bounds=[(1e-12, 1)] * 30,
        constraints=[rows, columns],
        method="SLSQP",
        options={"maxiter": 2000, "ftol": 1e-12},
    )
    return float(found.fun)


@pytest.mark.parametrize("entropy", [1.0, 0.1, 0.01, 1e-3])
def test_marginals(entropy: float):
    """Rows 1/n, columns 1/k, nothing negative; of the class-wise plan as well."""
    plans = [sinkhorn(COST, entropy).plan, class_transport(COST, LABELS, entropy, 0.3)]
    for plan in plans:
        np.testing.assert_allclose(plan.sum(1), 1 / 6, atol=1e-8)
        np.testing.assert_allclose(plan.sum(0), 1 / 5, atol=1e-8)
        assert (plan >= 0).all()


@pytest.mark.parametrize(("entropy", "strength"), CASES)
def test_no_plan_is_better(entropy: float, strength: float):
    """A general solver finds the same least value."""
    ours = value(class_transport(COST, LABELS, entropy, strength, 1e-9, 1000), entropy, strength)
    assert ours == pytest.approx(solved(entropy, strength), abs=1e-6)


def test_sinkhorn_is_where_the_gradient_vanishes():
    """cost + ε (1 + log γ) = f̃ + g̃: its doubly centred part is 0."""
    plan = sinkhorn(COST, 0.1).plan
    gradient = COST + 0.1 * np.log(plan)
    centred = gradient - gradient.mean(1, keepdims=True)
    np.testing.assert_allclose(centred - centred.mean(0), 0, atol=1e-7)


def test_limits_of_the_entropy():
    """ε → ∞: all pairs alike; ε → 0: the best assignment."""
    np.testing.assert_allclose(sinkhorn(COST, 1e4).plan, 1 / 30, atol=1e-5)
    square = RNG.random((5, 5))
    rows, columns = linear_sum_assignment(square)
    expected = np.zeros((5, 5))
    expected[rows, columns] = 1 / 5
    np.testing.assert_allclose(sinkhorn(square, 1e-3).plan, expected, atol=1e-3)


def test_a_tiny_entropy_underflows_nothing():
    """exp(−cost / ε) alone would be 0 everywhere."""
    plan = sinkhorn(COST + 10, 1e-3).plan
    np.testing.assert_allclose(plan, sinkhorn(COST, 1e-3).plan, atol=1e-8)
    np.testing.assert_allclose(plan.sum(1), 1 / 6, atol=1e-8)


def test_the_group_lasso_gathers_classes():
    """A target sample's mass comes from fewer classes as η grows; with 0 labels have no part."""
    of = domains(n=12, k=10, moved=0.3)
    cost = ((of.source[:, None] - of.target) ** 2).sum(2)
    cost /= np.median(cost)

    def purity(strength: float) -> float:
        plan = class_transport(cost, of.y, 0.2, strength)
        parts = np.stack([plan[of.y == label].sum(0) for label in range(3)])
        return float(10 * parts.max(0).mean())

    assert purity(0.0) < purity(1.0) < purity(5.0)
    none = class_transport(cost, of.y, 0.2, 0.0)
    np.testing.assert_allclose(none, class_transport(cost, of.y[::-1], 0.2, 0.0))
    np.testing.assert_allclose(none, sinkhorn(cost, 0.2).plan)


def test_barycentres_by_hand():
    """Half and half lies in the middle; all of the mass is the sample itself."""
    plan, target = np.array([[0.25, 0.25], [0.0, 0.5]]), np.array([[0.0], [4.0]])
    assert barycentres(plan, target).tolist() == [[2.0], [4.0]]
    source, moved = np.array([[0.0], [10.0]]), np.array([[2.0], [4.0]])
    found = moved_with_nearest(np.array([[0.0], [1.0], [9.0]]), source, moved)
    assert found.tolist() == [[2.0], [3.0], [3.0]]


def test_the_source_lands_among_the_target():
    """Moved samples are means of target samples: within their box; with little ε, on them."""
    of = domains(n=20, k=20)
    moved = (
        OptimalTransport(entropy=1e-3, strength=0.0)
        .align(of.source, of.y, of.target)
        .source(of.source)
    )
    nearest = np.sqrt(((moved[:, None] - of.target) ** 2).sum(2)).min(1)
    assert np.median(nearest) < 0.05
    broad = OptimalTransport().align(of.source, of.y, of.target).source(of.source)
    assert (broad >= of.target.min(0)).all() and (broad <= of.target.max(0)).all()


def test_pots_plans():
    """ot.sinkhorn is right. ot.da.sinkhorn_l1l2_gl stops above the minimum: ours is our own."""
    ot = pytest.importorskip("ot")
    a, b = np.full(6, 1 / 6), np.full(5, 1 / 5)
    np.testing.assert_allclose(
        sinkhorn(COST, 0.1).plan, ot.sinkhorn(a, b, COST, 0.1, stopThr=1e-12), atol=1e-8
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ot.da.sinkhorn_l1l2_gl(a, LABELS, b, COST, 0.1, 0.3, 1000, 1000, 1e-12)
    ours = class_transport(COST, LABELS, 0.1, 0.3, 1e-9, 1000)
    assert value(ours, 0.1, 0.3) < value(theirs, 0.1, 0.3) - 1e-3


def test_units_of_the_features_have_no_part():
    """Costs are divided by their median: ten times the features, ten times the moved ones."""
    of = domains()
    one, ten = (
        OptimalTransport().align(s * of.source, of.y, s * of.target).source(s * of.source) / s
        for s in (1, 10)
    )
    np.testing.assert_allclose(one, ten, atol=1e-6)


def test_it_is_no_no_op_and_knows_no_order():
    assert_differs_from_none(OptimalTransport(), domains())
    assert_order_of_samples_has_no_part(OptimalTransport(), domains())
