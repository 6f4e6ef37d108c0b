"""Schedules as tables; stacked optimisers and clipping as separate ones of torch."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tlresearch.training.optimizers import clip_per_seed, make_optimizer, schedule_factor
from tlresearch.training.settings import Train, check_train


def test_constant_schedule():
    """1 at every step."""
    assert [schedule_factor(Train(steps=10), step) for step in range(10)] == [1.0] * 10


def test_cosine_schedule():
    """½ (1 + cos πp): 1, (2 + √2)/4, ½, (2 − √2)/4 at the quarters."""
    train = Train(steps=200, schedule="cosine")
    half = 2**0.5 / 4
    table = {0: 1.0, 50: 0.5 + half, 100: 0.5, 150: 0.5 - half}
    for step, factor in table.items():
        assert schedule_factor(train, step) == pytest.approx(factor, abs=1e-12)


def test_multistep_schedule():
    """γ for each milestone reached, from the step m · steps on."""
    train = Train(steps=100, schedule="multistep", milestones=(0.5, 0.75), gamma=0.2)
    table = {0: 1.0, 49: 1.0, 50: 0.2, 74: 0.2, 75: 0.04, 99: 0.04}
    for step, factor in table.items():
        assert schedule_factor(train, step) == pytest.approx(factor, abs=1e-12)


def test_annealed_schedule():
    """(1 + 10 p)^(−¾): 1, 6^(−¾) in the middle, and 11^(−¾) is never quite reached."""
    train = Train(steps=100, schedule="annealed")
    table = {0: 1.0, 10: 2**-0.75, 50: 6**-0.75, 99: 10.9**-0.75}
    for step, factor in table.items():
        assert schedule_factor(train, step) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(
    ("schedule", "table"),
    [
        ("constant", {0: 0.05, 1: 0.1, 18: 0.95, 19: 1.0, 20: 1.0, 99: 1.0}),
        ("cosine", {0: 0.05, 19: 1.0, 20: 1.0, 60: 0.5, 40: 0.5 + 2**0.5 / 4}),
        ("multistep", {0: 0.05, 19: 1.0, 20: 1.0, 49: 1.0, 50: 0.2}),
        ("annealed", {0: 0.05, 19: 1.0, 20: 1.0, 28: 2**-0.75, 60: 6**-0.75}),
    ],
)
def test_warm_up(schedule, table):
    """(step + 1) / 20 in the first 20 of 100 steps; then the schedule over the other 80."""
    extra = {"milestones": (0.5,), "gamma": 0.2} if schedule == "multistep" else {}
    train = Train(steps=100, warmup=0.2, schedule=schedule, **extra)
    for step, factor in table.items():
        assert schedule_factor(train, step) == pytest.approx(factor, abs=1e-12)


def random_gradients(stacked: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    lead = (3,) if stacked else ()
    shapes = [(4, 5), (4,), (2, 3, 2, 2)]
    return [torch.randn(lead + s, dtype=torch.float64, generator=generator) for s in shapes]


def clip_by_torch(gradients: list[Tensor], largest: float) -> list[Tensor]:
    """What torch.nn.utils makes of the gradients of one network."""
    params = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for param, g in zip(params, gradients, strict=True):
        param.grad = g.clone()
    torch.nn.utils.clip_grad_norm_(params, largest)
    return [param.grad for param in params if param.grad is not None]


@pytest.mark.parametrize("largest", [0.01, 1.0, 5.0, 100.0])
def test_clipping_equals_torchs_on_each_seed(largest):
    """To the 1e-6 that torch adds to the norm; gradients below the limit stay as they are."""
    gradients = random_gradients(stacked=True)
    for scale, place in ((0.3, 0), (1.0, 1), (4.0, 2)):
        for g in gradients:
            g[place] *= scale
    clipped = [g.clone() for g in gradients]
    clip_per_seed(clipped, largest, stacked=True)
    for place in range(3):
        alone = [g[place] for g in gradients]
        expected = clip_by_torch(alone, largest)
        for ours, theirs in zip(clipped, expected, strict=True):
            torch.testing.assert_close(ours[place], theirs, rtol=2e-6, atol=0)
        single = [g.clone() for g in alone]
        clip_per_seed(single, largest, stacked=False)
        for ours, theirs in zip(single, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=0)


@pytest.mark.parametrize("trouble", [1e150, float("inf"), float("nan")])
def test_a_seeds_huge_gradient_does_not_change_the_others(trouble):
    """Bit for bit."""
    plain, troubled = random_gradients(stacked=True), random_gradients(stacked=True)
    for g in troubled:
        g[1] *= trouble
    for gradients in (plain, troubled):
        clip_per_seed(gradients, 0.5, stacked=True)
    for ours, other in zip(plain, troubled, strict=True):
        assert torch.equal(ours[[0, 2]], other[[0, 2]])


def test_a_zero_gradient_stays_zero():
    """No 0 / 0."""
    gradients = [torch.zeros(2, 3), torch.zeros(2, 1)]
    clip_per_seed(gradients, 1.0, stacked=True)
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


def test_a_parameter_may_be_one_number():
    """A 0-dimensional parameter is (S,) in a stack: norms 5 and 10, clipped to 5."""
    gradients = [torch.tensor([3.0, 6.0]), torch.tensor([[4.0], [8.0]])]
    clip_per_seed(gradients, 5.0, stacked=True)
    torch.testing.assert_close(gradients[0], torch.tensor([3.0, 3.0]))
    torch.testing.assert_close(gradients[1], torch.tensor([[4.0], [4.0]]))


COMMON = {"lr": 0.05, "weight_decay": 0.1}
KINDS = {
    "sgd": (Train(optimizer="sgd", momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
    "adam": (Train(betas=(0.8, 0.9)), torch.optim.Adam, {"betas": (0.8, 0.9)}),
    "adamw": (Train(optimizer="adamw"), torch.optim.AdamW, {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_stacked_optimiser_is_separate_ones(name):
    """Twelve steps with weight decay on stacked tensors equal each seed's own optimiser."""
    train, kind, more = KINDS[name]
    values = random_gradients(stacked=True)
    leaves = [v.clone().requires_grad_() for v in values]
    ours = make_optimizer(replace(train, lr=0.05, weight_decay=0.1), leaves)
    separate = [[v[i].clone().requires_grad_() for v in values] for i in range(3)]
    theirs = [kind(p, foreach=False, fused=False, **COMMON, **more) for p in separate]
    generator = torch.Generator().manual_seed(2)
    for _ in range(12):
        for leaf, *own in zip(leaves, *separate, strict=True):
            grad = torch.randn(leaf.shape, dtype=leaf.dtype, generator=generator)
            leaf.grad = grad
            for place, param in enumerate(own):
                param.grad = grad[place].clone()
        for optimizer in (ours, *theirs):
            optimizer.step()
    for leaf, start, *own in zip(leaves, values, *separate, strict=True):
        torch.testing.assert_close(leaf, torch.stack(own), atol=1e-12, rtol=0)
        assert not torch.allclose(leaf, start)


@pytest.mark.parametrize(
    ("train", "word"),
    [
        (Train(milestones=(0.5,)), "train.milestones"),
        (Train(momentum=0.9), "train.momentum"),
        (Train(schedule="multistep", milestones=(0.75, 0.5)), "train.milestones"),
    ],
)
def test_contradictions_are_named(train, word):
    """One sentence that begins with the key."""
    sentence = check_train(train)
    assert sentence is not None
    assert sentence.startswith(word)


def test_settings_without_contradiction():
    """Nothing to say."""
    assert check_train(Train()) is None
    assert check_train(Train(optimizer="sgd", momentum=0.9)) is None
    assert check_train(Train(schedule="multistep", milestones=(0.5, 0.75))) is None
