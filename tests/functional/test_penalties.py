"""The quadratic penalty's closed forms, and a sum of quadratics as one quadratic."""

import pytest
import torch
from torch.func import grad, vmap

from tlresearch.functional.fisher import diagonal_fisher
from tlresearch.functional.penalties import (
    Quadratic,
    add_quadratics,
    evaluate_quadratic,
    quadratic_penalty,
)
from tlresearch.training.tree import tensors

F64 = torch.float64
SHAPES = {"layer.weight": (3, 4), "layer.bias": (3,), "scale": ()}
EMPTY = Quadratic({}, {}, torch.zeros((), dtype=F64))


def draw(seed: int, positive: bool = False) -> dict[str, torch.Tensor]:
    """Numbers of the shapes; positive ones span orders of magnitude, a third of them 0."""
    g = torch.Generator().manual_seed(seed)
    values = {k: torch.randn(s, dtype=F64, generator=g) for k, s in SHAPES.items()}
    if not positive:
        return values
    kept = {k: torch.rand(s, generator=g) > 1 / 3 for k, s in SHAPES.items()}
    return {k: (3 * v).exp() * kept[k] for k, v in values.items()}


def task(seed: int) -> Quadratic:
    return Quadratic(
        draw(seed, positive=True), draw(1000 + seed), torch.tensor(0.1 * seed, dtype=F64)
    )


def total_of(tasks: list[Quadratic]) -> Quadratic:
    total = EMPTY
    for one in tasks:
        total = add_quadratics(total, one)
    return total


def separately(tasks: list[Quadratic], theta: dict[str, torch.Tensor]) -> torch.Tensor:
    """Σ_t ½ Σᵢ F (θ − a)² + c, each task's own sum, not through the code under test."""
    value = torch.zeros((), dtype=F64)
    for one in tasks:
        value = value + one.constant
        for name, f in one.curvature.items():
            value = value + 0.5 * (f * (theta[name] - one.centre[name]) ** 2).sum()
    return value


def assert_same_function(quadratic: Quadratic, tasks: list[Quadratic], points: int = 5) -> None:
    """Equal in value and gradient at random θ."""
    for seed in range(points):
        theta = draw(5000 + seed)
        value, expected = evaluate_quadratic(quadratic, theta), separately(tasks, theta)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
        slope = grad(lambda p: evaluate_quadratic(quadratic, p))(theta)
        target = grad(lambda p: separately(tasks, p))(theta)
        for name in SHAPES:
            torch.testing.assert_close(slope[name], target[name], rtol=1e-11, atol=1e-11)


def test_worked_by_hand():
    """½ (2·(3−1)² + 5·(0−2)²) = ½ (8 + 20) = 14."""
    one = {"a": torch.tensor([3.0]), "b": torch.tensor([[0.0]])}
    anchor = {"a": torch.tensor([1.0]), "b": torch.tensor([[2.0]])}
    fisher = {"a": torch.tensor([2.0]), "b": torch.tensor([[5.0]])}
    assert quadratic_penalty(one, anchor, fisher).item() == 14.0


def test_gradient_is_fisher_times_distance():
    """∂/∂θ = F (θ − θ*), which the ½ makes so."""
    theta, anchor, fisher = draw(1), draw(2), draw(3, positive=True)
    slope = grad(lambda p: quadratic_penalty(p, anchor, fisher))(theta)
    for name in SHAPES:
        expected = fisher[name] * (theta[name] - anchor[name])
        torch.testing.assert_close(slope[name], expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("strength", [0.0, 0.7, 400.0])
def test_minimum_is_the_fisher_weighted_mean(strength):
    """A loss ½‖θ − b‖² is pulled to the weighted mean of b (weight 1) and a (weight λF)."""
    a, b, f = draw(1), draw(2), draw(3, positive=True)
    least = {k: (b[k] + strength * f[k] * a[k]) / (1 + strength * f[k]) for k in SHAPES}

    def objective(theta):
        near = sum((0.5 * (theta[k] - b[k]) ** 2).sum() for k in SHAPES)
        return near + strength * quadratic_penalty(theta, a, f)

    for slope in grad(objective)(least).values():
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-10)


def test_zero_at_the_anchor_and_before_the_first_task():
    """No distance, or no anchor: 0, in the parameters' dtype."""
    theta = draw(1)
    assert quadratic_penalty(theta, theta, draw(2, positive=True)).item() == 0.0
    before = quadratic_penalty(theta, {}, {})
    assert before.item() == 0.0 and before.dtype == F64


def test_a_layer_without_an_anchor_is_free():
    """Parameters that the anchor lacks cost nothing and get no gradient."""
    theta, anchor, fisher = draw(1), draw(2), draw(3, positive=True)
    del anchor["scale"]
    slope = grad(lambda p: quadratic_penalty(p, anchor, fisher))(theta)
    assert slope["scale"].item() == 0.0
    assert (slope["layer.weight"] != 0).any()


@pytest.mark.parametrize("lacking", ["params", "fisher"])
def test_an_anchor_of_unknown_name_is_refused(lacking):
    """KeyError where θ or F lacks a parameter that the anchor names; it says which and where."""
    trees = {"params": draw(1), "anchor": draw(2), "fisher": draw(3, positive=True)}
    del trees[lacking]["scale"]
    with pytest.raises(KeyError, match=f"{lacking} lacks: scale;"):
        quadratic_penalty(**trees)


def test_an_anchor_of_frozen_parameters_is_explained():
    """The Fisher leaves them out; the error names them, at most three, and the way out."""
    network = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(3)))
    network[:2].requires_grad_(False)
    params = dict(network.named_parameters())
    fisher = diagonal_fisher(network, [(torch.ones(1, 2), torch.zeros(1, dtype=torch.int64))])
    with pytest.raises(KeyError, match=r"0\.weight, 0\.bias, 1\.weight and 1 more; .*frozen"):
        quadratic_penalty(params, params, fisher)
    own = {name: params[name].detach().clone() for name in fisher}
    assert quadratic_penalty(params, own, fisher).item() == 0


def test_penalty_maps_over_a_stack():
    """vmap equals a loop over seeds."""
    parts = [[draw(10 * s), draw(10 * s + 1), draw(10 * s + 2, positive=True)] for s in range(3)]
    stacked = [{k: torch.stack([p[i][k] for p in parts]) for k in SHAPES} for i in range(3)]
    looped = torch.stack([quadratic_penalty(*p) for p in parts])
    torch.testing.assert_close(vmap(quadratic_penalty)(*stacked), looped, rtol=1e-13, atol=0)


def test_sum_worked_by_hand():
    """½·1·θ² + ½·3·(θ−4)² = ½·4·(θ−3)² + 6: curvature 4, centre 12/4, constant ½·¾·16."""
    first = Quadratic({"a": torch.tensor([1.0])}, {"a": torch.tensor([0.0])}, torch.tensor(0.0))
    second = Quadratic({"a": torch.tensor([3.0])}, {"a": torch.tensor([4.0])}, torch.tensor(0.0))
    total = add_quadratics(first, second)
    assert total.curvature["a"].item() == 4.0
    assert total.centre["a"].item() == 3.0
    assert total.constant.item() == 6.0


@pytest.mark.parametrize("tasks", [1, 2, 20])
def test_one_quadratic_equals_the_separate_penalties(tasks):
    """In value and gradient at any θ, with zeros in F and curvatures e⁻⁶ to e⁶."""
    quadratics = [task(seed) for seed in range(tasks)]
    assert_same_function(total_of(quadratics), quadratics)


def test_twenty_tasks_in_single_precision():
    """Adding in float32 loses no more than rounding, value and gradient."""
    tasks = [task(seed) for seed in range(20)]
    total = Quadratic({}, {}, torch.zeros(()))
    for t in tasks:
        curvature, centre = ({k: v.float() for k, v in part.items()} for part in t[:2])
        total = add_quadratics(total, Quadratic(curvature, centre, t.constant.float()))
    theta = draw(5000)
    single = {k: v.float() for k, v in theta.items()}
    value = evaluate_quadratic(total, single)
    torch.testing.assert_close(value.double(), separately(tasks, theta), rtol=1e-5, atol=0)


def test_where_no_task_has_curvature_the_first_centre_stays():
    """F = 0 in both: finite, nothing is divided by 0."""
    zero = {k: torch.zeros(s, dtype=F64) for k, s in SHAPES.items()}
    first, second = task(1)._replace(curvature=zero), task(2)._replace(curvature=zero)
    total = add_quadratics(first, second)
    for name in SHAPES:
        assert torch.equal(total.centre[name], first.centre[name])
        assert torch.equal(total.curvature[name], zero[name])
    assert total.constant.item() == pytest.approx(0.3)
    one_sided = add_quadratics(first, task(3))
    assert_same_function(one_sided, [first, task(3)])


def test_small_curvatures_are_weighed_alike():
    """Fishers of confident networks, 1e-12 of the usual: the sum is scaled, the centre the same."""
    few = [task(seed)._replace(constant=torch.zeros((), dtype=F64)) for seed in (1, 2, 3)]
    small = [t._replace(curvature={k: 1e-12 * f for k, f in t.curvature.items()}) for t in few]
    assert_same_function(total_of(small), small, points=2)
    for name, centre in total_of(few).centre.items():
        torch.testing.assert_close(total_of(small).centre[name], centre, rtol=1e-9, atol=1e-12)


def test_order_and_grouping_do_not_matter():
    """q₁ + q₂ = q₂ + q₁ and (q₁ + q₂) + q₃ = q₁ + (q₂ + q₃), as functions."""
    a, b, c = task(1), task(2), task(3)
    for total in (
        add_quadratics(b, add_quadratics(c, a)),
        add_quadratics(add_quadratics(a, b), c),
        add_quadratics(a, add_quadratics(b, c)),
    ):
        assert_same_function(total, [a, b, c])


@pytest.mark.parametrize("empty_first", [True, False])
def test_an_empty_quadratic_is_zero(empty_first):
    """Adding nothing, on either side, changes nothing but adds the constants."""
    nothing, one = EMPTY._replace(constant=torch.tensor(2.0, dtype=F64)), task(4)
    total = add_quadratics(nothing, one) if empty_first else add_quadratics(one, nothing)
    assert_same_function(total, [nothing, one])


@pytest.mark.parametrize("swap", [False, True])
def test_differing_names_are_refused(swap):
    """KeyError, whichever side lacks the name."""
    less = task(1)
    del less.curvature["scale"], less.centre["scale"]
    pair = (task(2), less) if swap else (less, task(2))
    with pytest.raises(KeyError, match="scale"):
        add_quadratics(*pair)


def test_cost_does_not_grow_with_tasks():
    """The state after 20 tasks has the tensors, and numbers, of that after 2."""
    few, many = (total_of([task(s) for s in range(n)]) for n in (2, 20))
    assert [t.shape for t in tensors(few)] == [t.shape for t in tensors(many)]
    assert len(tensors(many)) == 2 * len(SHAPES) + 1
    assert list(many.curvature) == list(SHAPES) == list(many.centre)


class Name(str):
    """A parameter's name that chooses its hash, and so its place in a set."""

    sign = 1

    def __hash__(self) -> int:
        return len(self) * self.sign


class Reversed(Name):
    """The same names; sets of them have another order."""

    sign = -1


def constant_of_a_sum(name: type[Name]) -> torch.Tensor:
    """The constant of a sum over seven parameters, in float32."""
    g = torch.Generator().manual_seed(0)
    trees: list[dict[str, torch.Tensor]] = [
        {name("p" * i): torch.randn(50, generator=g).exp() for i in range(1, 8)} for _ in range(4)
    ]
    first, second = (Quadratic(f, a, torch.zeros(())) for f, a in (trees[:2], trees[2:]))
    return add_quadratics(first, second).constant


def test_constant_does_not_depend_on_hashes():
    """Python salts the hashes of names in each process; the log's numbers must not follow."""
    assert torch.equal(constant_of_a_sum(Name), constant_of_a_sum(Reversed))


def test_addition_leaves_its_inputs_alone():
    """Neither operand is changed in place."""
    a, b, a_again, b_again = task(1), task(2), task(1), task(2)
    add_quadratics(a, b)
    for used, fresh in ((a, a_again), (b, b_again)):
        for left, right in zip(tensors(used), tensors(fresh), strict=True):
            assert torch.equal(left, right)
