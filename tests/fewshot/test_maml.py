"""MAML's meta-gradient against finite differences and plain loops, for an MLP and Conv-4."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_tasks import (
    F64,
    WAYS,
    assert_stack_is_separate_runs,
    before_norm,
    build,
    images,
    meta_gradient,
    one,
    relative_errors,
    sinusoids,
    train,
)
from torch.func import functional_call

from tlresearch.fewshot.fomaml import FOMAML
from tlresearch.fewshot.maml import MAML, annealed_weights

CASES = [(backbone, steps) for backbone in ("mlp", "conv4") for steps in (1, 5)]
OPTIONS = {
    "plain": {},
    "support": {"statistics": "support"},
    "running": {"statistics": "running"},
    "chunked": {"task_chunk": 2},
    "multi-step": {"multi_step_loss": 10},
    "rates": {"learn_rates": "per_step"},
}


@pytest.mark.parametrize(
    ("backbone", "steps", "options"),
    [(*case, "plain") for case in CASES]
    + [("conv4", 2, options) for options in OPTIONS if options not in ("plain", "chunked")],
)
def test_meta_gradient_is_the_finite_difference(backbone, steps, options):
    """To 1e-6 of its size, along a random direction in each parameter (pytest -s prints all)."""
    method = MAML(inner_steps=steps, inner_lr=0.1, **OPTIONS[options])
    networks = build(method, backbone)
    silent = before_norm(networks)

    def skip(name):
        return any(name.endswith(bias.replace(".", "/")) or name == bias for bias in silent)

    errors = relative_errors(method, networks, images(), skip)
    print(f"\n{backbone}, {steps} inner steps, {options}: largest relative error of "
          f"{len(errors)} directions {max(errors.values()):.1e}")  # fmt: skip
    assert max(errors.values()) < 1e-6


def test_meta_gradient_of_a_regression_is_the_finite_difference():
    method = MAML(inner_steps=2, inner_lr=0.01)
    networks = MLP_of_one_input(method)
    errors = relative_errors(method, networks, sinusoids(), lambda name: False)
    assert max(errors.values()) < 1e-6


def MLP_of_one_input(method, seed=0):
    """A perceptron for sinusoids."""
    from tlresearch.backbones.mlp import MLP

    return method.networks(MLP(hidden=(5, 5)), (1, 1, 1), 1, seed).to(F64)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_bias_before_batch_norm_has_no_meta_gradient(steps):
    """Below 1e-12: batch norm takes a shift away, in support and query passes alike."""
    method = MAML(inner_steps=steps, inner_lr=0.1)
    networks = build(method, "conv4")
    slopes = meta_gradient(method, networks, images())
    biases = before_norm(networks)
    largest = max(slopes[name].abs().max().item() for name in biases)
    print(f"\nconv4, {steps} inner steps: conv biases before batch norm at most {largest:.1e}")
    assert largest < 1e-12
    assert all(slopes[k].abs().max() > 1e-6 for k in slopes if k not in biases)


def by_hand(networks, batch, steps, rate, first_order):
    """The meta-loss by a plain loop over tasks and autograd."""
    losses = []
    for support, query in zip(batch.support_x, batch.query_x, strict=True):
        params = dict(networks.named_parameters())
        y, y_query = (torch.arange(WAYS).repeat_interleave(t.shape[1]) for t in (support, query))
        for _ in range(steps):
            loss = F.cross_entropy(functional_call(networks, params, (support.flatten(0, 1),)), y)
            slopes = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            slopes = [g.detach() for g in slopes] if first_order else slopes
            moved = zip(params.items(), slopes, strict=True)
            params = {name: p - rate * g for (name, p), g in moved}
        outputs = functional_call(networks, params, (query.flatten(0, 1),))
        losses.append(F.cross_entropy(outputs, y_query))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.parametrize(("backbone", "steps"), CASES)
def test_equals_a_plain_loop(backbone, steps, order):
    """Loss and meta-gradient, the inner gradients detached by hand for the first order."""
    method = MAML(inner_steps=steps, inner_lr=0.3, order=order)
    networks, batch = build(method, backbone), images()
    expected = by_hand(networks, batch, steps, 0.3, order == "first")
    torch.testing.assert_close(method.loss(networks, {}, batch).total, expected, rtol=0, atol=1e-12)
    slopes = torch.autograd.grad(expected, list(networks.parameters()))
    ours = meta_gradient(method, networks, batch).values()
    for mine, slope in zip(ours, slopes, strict=True):
        torch.testing.assert_close(mine, slope, rtol=0, atol=1e-12)


def test_first_and_second_order_differ():
    """And FOMAML is MAML of first order."""
    batch, slopes = images(), {}
    for name, method in {
        "second": MAML(inner_lr=0.3),
        "first": MAML(inner_lr=0.3, order="first"),
        "fomaml": FOMAML(inner_lr=0.3),
    }.items():
        slopes[name] = meta_gradient(method, build(method, "mlp"), batch)["head.weight"]
    assert torch.equal(slopes["first"], slopes["fomaml"])
    assert (slopes["first"] - slopes["second"]).abs().max() > 1e-3


@pytest.mark.parametrize("backbone", ["mlp", "conv4"])
@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("order", ["second", "first"])
def test_chunks_equal_the_whole(backbone, chunk, order):
    """Loss, meta-gradient and running statistics of three tasks, to 1e-12."""
    results = []
    for size in (None, chunk):
        method = MAML(inner_steps=2, task_chunk=size, order=order, statistics="running")
        networks = build(method, backbone)
        slopes = meta_gradient(method, networks, images())
        results.append(slopes | dict(networks.named_buffers()))
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("backbone", ["mlp", "conv4"])
def test_a_stack_is_separate_runs(backbone, options):
    """Three meta-steps of Adam on three seeds."""
    method = MAML(inner_steps=2, inner_lr=0.1, **OPTIONS[options])
    assert_stack_is_separate_runs(method, backbone, images)


@pytest.mark.usefixtures("without_shape_checks")
def test_stacked_inner_rates_are_separate_runs():
    """α as a tensor over the stack, which a check of the settings' types would refuse."""
    rates = [0.01, 0.2]
    stacked = train(MAML(), "mlp", [4, 4], images, fields={"inner_lr": rates}).stack
    for place, rate in enumerate(rates):
        alone = train(MAML(inner_lr=rate), "mlp", [4], images).stack
        for name, value in alone.params.items():
            torch.testing.assert_close(stacked.params[name][place], value[0], atol=1e-9, rtol=0)


@pytest.mark.parametrize("options", ["plain", "chunked"])
def test_an_inner_loop_that_explodes_stops_its_seed_alone(options):
    """At the step it is named for; the sister has the numbers that she has alone."""
    method = MAML(inner_steps=3, inner_lr=0.1, **OPTIONS[options])
    both = train(method, "mlp", [2, 5], poisoned_from(5, 1), steps=3)
    alone = train(method, "mlp", [2], images, steps=3)
    assert both.active == [True, False] and both.steps == [3, 1]
    assert both.failures[0] is None
    assert both.failures[1] == "the loss was nan at step 1"
    for name, value in alone.stack.params.items():
        torch.testing.assert_close(both.stack.params[name][0], value[0], atol=1e-9, rtol=0)
        assert both.stack.params[name][1].isfinite().all()


def poisoned_from(seed, step):
    """Episodes of which one seed's are infinite at one step, and so is its inner loop."""

    def batch_of(number):
        batch = images(number)
        if number == 100 * seed + step:
            batch = batch._replace(support_x=batch.support_x / 0)
        return batch

    return batch_of


@pytest.mark.usefixtures("without_shape_checks")
def test_an_inner_rate_that_explodes_stops_its_seed_alone():
    """α = 1e200 beside α = .1."""
    fields = {"inner_lr": [0.1, 1e200]}
    both = train(MAML(inner_steps=2), "mlp", [2, 2], images, fields=fields)
    assert both.active == [True, False]
    assert both.failures[1] is not None and "at step 0" in both.failures[1]


@pytest.mark.parametrize("backbone", ["mlp", "conv4"])
def test_predictions_by_inner_step(backbone):
    """Row k is the network after k steps of a plain loop, beyond the steps of training too."""
    method = MAML(inner_steps=1, inner_lr=0.3, test_steps=3)
    networks, episode = build(method, backbone).eval(), one(images(), 0)
    rows = method.predict_episode(networks, {}, episode)
    assert rows.shape == (4, WAYS * 3, WAYS) and not rows.requires_grad
    params = {k: p.detach().requires_grad_() for k, p in networks.named_parameters()}
    y = torch.arange(WAYS).repeat_interleave(2)
    for row in rows:
        outputs = functional_call(networks, params, (episode.query_x.flatten(0, 1),))
        torch.testing.assert_close(row, outputs.detach())
        support = functional_call(networks, params, (episode.support_x.flatten(0, 1),))
        slopes = torch.autograd.grad(F.cross_entropy(support, y), list(params.values()))
        moved = zip(params.items(), slopes, strict=True)
        params = {k: (p - 0.3 * g).detach().requires_grad_() for (k, p), g in moved}


def test_predictions_map_over_episodes_without_gradients():
    """As the evaluation calls them."""
    method, batch = MAML(inner_steps=2), images()
    networks = build(method, "conv4").eval()
    with torch.no_grad():
        rows = torch.func.vmap(
            lambda s, q: method.predict_episode(networks, {}, type(batch)(s, q))
        )(batch.support_x, batch.query_x)
        for place, row in enumerate(rows):
            torch.testing.assert_close(row, method.predict_episode(networks, {}, one(batch, place)))


def test_predictions_of_a_regression():
    method = MAML(inner_steps=1, test_steps=2, inner_lr=0.01)
    rows = method.predict_episode(MLP_of_one_input(method), {}, one(sinusoids(), 0))
    assert rows.shape == (3, 5, 1)


@pytest.mark.parametrize(
    ("done", "weights"),
    [(0.0, [1 / 4] * 4), (0.5, [1 / 8] * 3 + [5 / 8]), (1.0, [0, 0, 0, 1]), (3.0, [0, 0, 0, 1])],
)
def test_weights_of_the_multi_step_loss(done, weights):
    """Worked by hand for K = 4: alike, half way, over."""
    found = annealed_weights(torch.tensor(done, dtype=F64), 4)
    torch.testing.assert_close(found, torch.tensor(weights, dtype=F64))


def test_the_multi_step_loss_anneals_with_the_passes():
    """The mean of the losses after 1, 2, 3 steps; two passes later that after 3 alone."""
    batch = images()
    after = [MAML(inner_steps=k, inner_lr=0.3) for k in (1, 2, 3)]
    networks = build(after[0], "mlp")
    losses = [method.loss(networks, {}, batch).total.item() for method in after]
    method = MAML(inner_steps=3, inner_lr=0.3, multi_step_loss=2)
    annealed = build(method, "mlp")
    found = [method.loss(annealed, {}, batch).total.item() for _ in range(3)]
    assert math.isclose(found[0], sum(losses) / 3, rel_tol=1e-6)
    assert math.isclose(found[1], sum(losses[:2]) / 6 + losses[2] * 2 / 3, rel_tol=1e-6)
    assert math.isclose(found[2], losses[2], rel_tol=1e-12)


def test_learned_rates_start_as_one_and_are_trained():
    """At first as without; then α moves, one for each weight tensor and step."""
    batch, plain = images(), MAML(inner_steps=2, inner_lr=0.1)
    method = MAML(inner_steps=2, inner_lr=0.1, learn_rates="per_step")
    networks = build(method, "conv4")
    expected = plain.loss(build(plain, "conv4"), {}, batch).total
    torch.testing.assert_close(method.loss(networks, {}, batch).total, expected)
    rates = {k: p for k, p in networks.named_parameters() if k.startswith("rates.")}
    assert len(rates) == 18 and all(p.shape == (2,) for p in rates.values())
    assert networks.get_parameter("rates.head/weight").dtype == F64
    trained = train(method, "conv4", [0], images)
    moved = trained.stack.params["rates.head/weight"][0]
    assert (moved - 0.1).abs().min() > 1e-3


def test_steps_beyond_the_learned_ones_repeat_the_last_rate():
    method = MAML(inner_steps=2, test_steps=3, inner_lr=0.1, learn_rates="per_step")
    networks, episode = build(method, "mlp").eval(), one(images(), 0)
    for name, p in networks.named_parameters():
        if name.startswith("rates."):
            p.data.copy_(torch.tensor([0.1, 0.0], dtype=F64))
    rows = method.predict_episode(networks, {}, episode)
    assert torch.equal(rows[1], rows[2]) and torch.equal(rows[2], rows[3])
    assert not torch.allclose(rows[0], rows[1])


def test_the_table_says_whose_statistics():
    assert MAML().notes()["batch statistics"] == "query (transductive)"
    assert MAML(statistics="support").notes()["batch statistics"] == "support"
    assert MAML(statistics="running").notes()["batch statistics"] == "running averages"
