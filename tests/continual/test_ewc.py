"""EWC, online EWC and their bounds against the papers' equations, written out task by task."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tlresearch.backbones.layers import BatchNorm1d, Dropout
from tlresearch.backbones.mlp import MLP
from tlresearch.continual import EWC, METHODS, Joint, Naive, OnlineEWC
from tlresearch.continual.method import FisherSettings
from tlresearch.continual.protocol import StackRun, run_stack
from tlresearch.data.tasks import StreamSettings
from tlresearch.functional.fisher import diagonal_fisher
from tlresearch.functional.losses import cross_entropy
from tlresearch.functional.random import make_key
from tlresearch.training.method import Labelled
from tlresearch.training.observer import RunFiles
from tlresearch.training.settings import Train

F64 = torch.float64
MASK = torch.tensor([True, True, True, False])


class Samples:
    """A task's training data, for one seed."""

    def __init__(self, seed: int, mask: torch.Tensor | None = MASK) -> None:
        g = torch.Generator().manual_seed(seed)
        self.seed, self.mask = seed, mask
        self.x = torch.randn(20, 5, dtype=F64, generator=g)
        self.y = torch.randint(0, 3, (20,), generator=g)

    def places(self, samples=None, multiple=1):
        return range(20 if samples is None else samples)

    def average(self, tree, weight, /):
        return tree

    def batches(self, samples=None, multiple=1):
        stop = 20 if samples is None else samples
        for rows in (slice(0, min(8, stop)), slice(8, stop)):
            if len(self.x[rows]):
                yield self.x[rows], self.y[rows], self.mask

    def key(self, purpose):
        return make_key(self.seed, purpose)

    def batch(self) -> Labelled:
        return Labelled(self.x, self.y, self.mask)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(5, 6), BatchNorm1d(6), nn.Tanh(), Dropout(0.5), nn.Linear(6, 4)
    return nn.Sequential(*layers).to(F64).eval()


def move(module: nn.Module, seed: int) -> None:
    """Weights somewhere else, in place, as training does it."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.5 * torch.randn(p.shape, dtype=F64, generator=g)


def learn(method, module, seeds):
    """The state after tasks, and each task's own Fisher and weights, kept apart."""
    state, kept = method.init(module), []
    for seed in seeds:
        move(module, seed)
        data = Samples(seed)
        state = method.after_task(module, state, data)
        fisher = diagonal_fisher(module, [(data.x, data.y, data.mask)])
        kept.append((fisher, {k: p.detach().clone() for k, p in module.named_parameters()}))
    move(module, 99)
    return state, kept


def value_and_gradient(loss, module):
    names = dict(module.named_parameters())
    return loss.item(), dict(
        zip(names, torch.autograd.grad(loss, list(names.values())), strict=True)
    )


def assert_loss_equals(method, state, module, penalty) -> None:
    """Value and gradient equal cross-entropy + λ · penalty(θ by name)."""
    batch = Samples(7).batch()
    ours = value_and_gradient(method.loss(module, state, batch).total, module)
    task = cross_entropy(module(batch.x), batch.y, batch.mask)
    written_out = task + method.strength * penalty(dict(module.named_parameters()))
    expected = value_and_gradient(written_out, module)
    assert ours[0] == pytest.approx(expected[0], rel=1e-12)
    assert expected[0] > task.item() + 1e-3
    for name, value in expected[1].items():
        torch.testing.assert_close(ours[1][name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("tasks", [1, 3])
def test_ewc_is_the_sum_of_separate_penalties(tasks):
    """Eq. (3): Σ_t λ/2 Σᵢ F_t (θ − θ*_t)², with every task's Fisher and weights kept."""
    method, module = EWC(strength=30.0), network()
    state, kept = learn(method, module, range(tasks))

    def penalty(theta):
        return sum((f[k] * (theta[k] - a[k]) ** 2).sum() / 2 for f, a in kept for k in theta)

    assert_loss_equals(method, state, module, penalty)


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("tasks", [1, 3])
def test_online_ewc_is_its_recursion(tasks, decay):
    """Eq. (9): λ/2 Σᵢ γ F* (θ − θ*_last)² with F* ← γ F* + F."""
    method, module = OnlineEWC(strength=30.0, decay=decay), network()
    state, kept = learn(method, module, range(tasks))
    running = {k: torch.zeros_like(f) for k, f in kept[0][0].items()}
    for fisher, _ in kept:
        running = {k: decay * running[k] + f for k, f in fisher.items()}
    last = kept[-1][1]

    def penalty(theta):
        return sum((decay * running[k] * (theta[k] - last[k]) ** 2).sum() / 2 for k in theta)

    if decay == 0:
        assert method.loss(module, state, Samples(7).batch()).terms["penalty"].item() == 0.0
    else:
        assert_loss_equals(method, state, module, penalty)


@pytest.mark.parametrize("method", [EWC(strength=30.0), OnlineEWC(strength=30.0)])
def test_a_step_follows_the_closed_form(method):
    """θ ← θ − η (∂CE/∂θ + λ F (θ − θ*)) after one task, by an optimiser's step."""
    module = network()
    state, [(fisher, anchor)] = learn(method, module, [1])
    batch = Samples(7).batch()
    before = {k: p.detach().clone() for k, p in module.named_parameters()}
    task = cross_entropy(module(batch.x), batch.y, batch.mask)
    _, slope = value_and_gradient(task, module)
    method.loss(module, state, batch).total.backward()
    torch.optim.SGD(module.parameters(), lr=0.01).step()
    for name, p in module.named_parameters():
        pull = 30.0 * fisher[name] * (before[name] - anchor[name])
        expected = before[name] - 0.01 * (slope[name] + pull)
        torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-13)


def test_minimum_of_a_quadratic_task_is_the_fisher_weighted_mean(monkeypatch):
    """Two tasks kept, a third ½‖θ − b‖²: least at (b + λ Σ F_t a_t) / (1 + λ Σ F_t)."""
    method, module = EWC(strength=3.0), network()
    state, kept = learn(method, module, [0, 1])
    goal = {k: torch.randn_like(p) for k, p in module.named_parameters()}

    def quadratic(_logits, _y, _mask):
        return sum(0.5 * (p - goal[k]).square().sum() for k, p in module.named_parameters())

    monkeypatch.setattr("tlresearch.training.method.cross_entropy", quadratic)
    with torch.no_grad():
        for k, p in module.named_parameters():
            above = goal[k] + 3.0 * sum(f[k] * a[k] for f, a in kept)
            p.copy_(above / (1 + 3.0 * sum(f[k] for f, _ in kept)))
    _, slope = value_and_gradient(method.loss(module, state, Samples(7).batch()).total, module)
    for value in slope.values():
        torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", [EWC(strength=30.0), OnlineEWC(strength=30.0)])
def test_anchors_are_copies(method):
    """Training on in place moves no anchor (a view would make the penalty 0 for ever)."""
    module = network()
    state = method.after_task(module, method.init(module), Samples(0))
    learned = {k: p.detach().clone() for k, p in module.named_parameters()}
    move(module, 5)
    for name, value in learned.items():
        assert torch.equal(state.centre[name], value)
    assert method.loss(module, state, Samples(7).batch()).terms["penalty"] > 0


@pytest.mark.parametrize("method", [EWC(strength=30.0), OnlineEWC(strength=30.0)])
def test_before_the_first_task_the_loss_is_naive(method):
    """Cross-entropy alone, and no term that would read as a penalty."""
    module, batch = network(), Samples(7).batch()
    ours = method.loss(module, method.init(module), batch)
    assert ours.total.item() == Naive().loss(module, {}, batch).total.item()
    assert list(ours.terms) == ["cross_entropy"]


def test_terms_add_up_to_the_total():
    """Total = cross-entropy + λ · penalty, the terms unweighted."""
    for method in (EWC(strength=30.0), OnlineEWC(strength=30.0, decay=0.5)):
        module = network()
        state, _ = learn(method, module, [0, 1])
        loss = method.loss(module, state, Samples(7).batch())
        total = loss.terms["cross_entropy"] + 30.0 * loss.terms["penalty"]
        assert loss.total.item() == pytest.approx(total.item(), rel=1e-13)


@pytest.mark.parametrize("method", [EWC(), OnlineEWC()])
def test_fisher_is_estimated_in_evaluation_mode(method):
    """A network left in training mode: no dropout in F, no statistic moved, and its mode kept."""
    module = network()
    expected = method.after_task(module, method.init(module), Samples(0)).curvature
    module.train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = method.after_task(module, method.init(module), Samples(0))
    for name, value in expected.items():
        assert torch.equal(state.curvature[name], value)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(m.training for m in module.modules())


def test_fisher_settings_mean_what_they_say():
    """Samples, labels, batch, active classes and the mean, each against `diagonal_fisher`."""
    module, data = network(), Samples(3)
    rows = (data.x, data.y, data.mask)
    key = data.key("fisher labels")
    first = tuple(part[:6] for part in rows[:2])
    cases = {
        FisherSettings(): diagonal_fisher(module, [rows]),
        FisherSettings(samples=6): diagonal_fisher(module, [(*first, MASK)]),
        FisherSettings(active_only=False): diagonal_fisher(module, [rows[:2]]),
        FisherSettings("empirical"): diagonal_fisher(module, [rows], "empirical"),
        FisherSettings("predicted", batch=3): diagonal_fisher(module, [rows], "predicted", 3),
        FisherSettings("sample"): diagonal_fisher(module, [rows], "sample", 1, key),
    }
    for settings, expected in cases.items():
        estimate = settings.estimate(module, data)
        for name, value in expected.items():
            torch.testing.assert_close(estimate[name], value, rtol=1e-9, atol=1e-14)
            scaled = replace(settings, normalize=True).estimate(module, data)
            mean = torch.cat([f.flatten() for f in expected.values()]).mean()
            torch.testing.assert_close(scaled[name], value / mean, rtol=1e-9, atol=1e-12)
    distinct = {round(sum(f.sum().item() for f in e.values()), 9) for e in cases.values()}
    assert len(distinct) == len(cases)


# --- whole runs on real digits --------------------------------------------------------------------

TRAIN = Train(steps=100, batch_size=32, lr=0.01)
SEEDS = [0, 1]


def run(method, folder, stream, tasks):
    """What each seed came to, on embedded 8 x 8 digits with the task known."""
    settings = StreamSettings("optdigits", stream=stream, tasks=tasks, scenario="task")
    stack = StackRun(settings, MLP(hidden=(32,)), method, TRAIN, SEEDS, {})
    files = RunFiles(folder / "checkpoint.pt", folder / "metrics.jsonl")
    return run_stack(stack, torch.device("cpu"), files)


def weights(training):
    return {k: p.detach().clone() for k, p in training.stack.params.items()}


@pytest.mark.parametrize("name", ["ewc", "online_ewc"])
def test_strength_0_is_naive_to_the_bit_and_strength_is_not(name, tmp_path, trainings):
    """λ = 0: the same weights after two tasks; λ = 100: other weights."""
    methods = Naive(), METHODS[name](strength=0.0), METHODS[name](strength=100.0)
    for place, method in enumerate(methods):
        run(method, tmp_path / str(place), "split", tasks=2)
    naive, zero, strong = (weights(t) for t in trainings)
    for k in naive:
        assert torch.equal(naive[k], zero[k])
        assert not torch.equal(naive[k], strong[k])


def test_ewc_forgets_less_than_naive_and_joint_learns_best(tmp_path):
    """Five permutations of optdigits, each seed by itself."""
    methods = {
        "naive": Naive(),
        "ewc": EWC(strength=100.0),
        "online_ewc": OnlineEWC(strength=100.0),
        "joint": Joint(),
    }
    outcomes = {n: run(m, tmp_path / n, "permuted", tasks=5) for n, m in methods.items()}
    for place in range(len(SEEDS)):
        scores = {name: seeds[place].metrics for name, seeds in outcomes.items()}
        assert scores["naive"]["forgetting"] > 0.1
        for name in ("ewc", "online_ewc"):
            assert scores[name]["forgetting"] < 0.05
            assert scores["naive"]["acc"] < scores[name]["acc"] < scores["joint"]["acc"]


def test_what_each_method_sees():
    """Joint alone trains on all tasks so far."""
    sees = {name: method.sees for name, method in METHODS.items()}
    assert sees == {k: "tasks so far" if k == "joint" else "task" for k in METHODS}
    batch, module = Samples(7).batch(), network()
    expected = cross_entropy(module(batch.x), batch.y, batch.mask)
    for method in (Naive(), Joint()):
        assert method.loss(module, method.init(module), batch).total.item() == expected.item()
        assert method.after_task(module, {}, Samples(7)) == {}
