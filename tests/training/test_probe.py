"""The probe: what can be stacked, what runs alone, what is refused."""

import random as python_random
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tlresearch.backbones import conversion
from tlresearch.backbones.layers import Dropout
from tlresearch.continual import EWC
from tlresearch.errors import UserError
from tlresearch.training.method import Loss, Method
from tlresearch.training.probe import Case, probe
from tlresearch.training.settings import Train


class Net(nn.Module):
    """Flatten, linear, `layer`, head."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.inner, self.layer, self.head = nn.Linear(12, 8), layer, nn.Linear(8, 3)

    def forward(self, x):
        conversion.restart(self)
        return self.head(self.layer(self.inner(x.flatten(1))))


class Layer(nn.Module):
    """Adds to x what a function gives."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return x + self.function(x)


class Counter(nn.Module):
    """Multiplies by the number of the call: a state that no checkpoint holds."""

    def __init__(self, remembers: bool = True) -> None:
        super().__init__()
        self.calls, self.remembers = 0, remembers

    def forward(self, x):
        self.calls += self.remembers
        return x * (1 + self.calls)


class Mapped(nn.Module):
    """Gives other numbers when it is mapped."""

    def forward(self, x):
        return x * (1.0 if torch._C._functorch.is_batchedtensor(x) else 2.0)  # type: ignore


class Averages(nn.Module):
    """A buffer that a forward pass moves, as batch norm's are."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x):
        if self.training:
            assert isinstance(self.mean, torch.Tensor)
            self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return x - self.mean


class Reassigns(Averages):
    """Puts a new tensor in the buffer's place: a stack's, and a checkpoint's, would stay behind."""

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x - self.mean


class OtherNorm(nn.BatchNorm1d):
    """A forward pass of its own."""

    def forward(self, input):
        return super().forward(input)


def case(layer: Any = nn.Identity, method: Method | None = None, **changes: Any) -> Case:
    def networks(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        net = Net(layer())
        conversion.convert(net)
        return net

    made = Case("mine", method or Method(), networks, (3, 2, 2), 3, True, Train())
    return replace(made, **changes)


def refusal(layer: Any = nn.Identity, method: Method | None = None, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        probe(case(layer, method, **changes), stacked=False)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("mine: ")
    return str(caught.value)


FINE = {
    "plain": nn.Identity,
    "batch norm": lambda: nn.BatchNorm1d(8),
    "unconverted norm": lambda: OtherNorm(8),
    "torch's dropout, converted": lambda: nn.Dropout(0.5),
    "our dropout": lambda: Dropout(0.5),
    "a buffer of its own": Averages,
}


@pytest.mark.parametrize("precision", ["fp32", "fp64", "bf16-mixed"])
@pytest.mark.parametrize("layer", FINE.values(), ids=FINE)
def test_what_is_exact_may_be_stacked(layer: Any, precision: Any):
    """And torch's generator is left as it was."""
    state = torch.random.get_rng_state()
    made = case(layer, EWC(), train=Train(precision=precision), fields=("strength",))
    assert probe(made, stacked=True) is None
    assert torch.equal(state, torch.random.get_rng_state())


@dataclass(frozen=True)
class Items(Method):
    """Reads a value of a tensor."""

    def loss(self, networks, state, batch):
        value = super().loss(networks, state, batch)
        return value if value.total.item() > 0 else Loss(value.total, {})


@dataclass(frozen=True)
class ItemsLater(Items):
    """Only once it has a state."""

    def loss(self, networks, state, batch):
        return super().loss(networks, state, batch) if state else Method().loss(networks, {}, batch)

    def after_task(self, networks, state, data):
        batch = next(iter(data.batches(2)))
        return {"x": batch[0].mean(), "key": data.key("anything")}


@dataclass(frozen=True)
class Branches(Method):
    """Its number must be a number."""

    strength: float = 1.0

    def loss(self, networks, state, batch):
        value = super().loss(networks, state, batch)
        return Loss(value.total * 2, {}) if self.strength > 0.5 else value


REFUSING = {
    "item": (case(method=Items()), "its loss refuses vmap: RuntimeError: vmap: It looks like"),
    "item, after a task": (case(method=ItemsLater()), "its loss refuses vmap"),
    "a number that is a tensor": (case(method=Branches(), fields=("strength",)), "refuses vmap"),
    "another result": (case(Mapped), "gave the loss other numbers than one after the other"),
}


@pytest.mark.parametrize("name", REFUSING)
def test_what_refuses_a_stack_says_why_in_one_line(name: str):
    """It runs alone all the same."""
    made, sentence = REFUSING[name]
    reason = probe(made, stacked=True)
    assert reason is not None and sentence in reason
    assert "\n" not in reason and len(reason) < 250 and "functorch" not in reason
    assert probe(made, stacked=False) is None


def test_a_number_is_no_obstacle_where_it_is_the_same_for_all():
    assert probe(case(method=Branches()), stacked=True) is None


HIDDEN = {
    "torch": lambda: Layer(torch.rand_like),
    "functional dropout": lambda: Layer(lambda x: F.dropout(x, 0.5, True)),
    "channels": lambda: nn.Dropout1d(0.5),
    "numpy": lambda: Layer(lambda x: float(np.random.rand())),
    "python": lambda: Layer(lambda x: python_random.random()),
    "counter": Counter,
}


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_randomness_and_state_are_refused(name: str):
    """A resumed run would not repeat them."""
    assert "draws hidden random numbers, or keeps" in refusal(HIDDEN[name])
    assert probe(case(lambda: Counter(remembers=False)), stacked=True) is None


@dataclass(frozen=True)
class Draws(Method):
    """Draws where it makes its state."""

    where: str = "init"

    def init(self, networks):
        return {"r": torch.rand(()) if self.where == "init" else torch.zeros(())}

    def after_task(self, networks, state, data):
        return {"r": torch.rand(())}


@pytest.mark.parametrize("where", ["init", "after_task"])
def test_a_state_drawn_from_torchs_generator_is_refused(where: str):
    assert f"mine: {where} draws hidden random numbers" in refusal(method=Draws(where))


@dataclass(frozen=True)
class Wrong(Method):
    """Fails in one of several ways."""

    how: str = ""

    def init(self, networks):
        return {} if self.how != "init" else 1 / 0

    def loss(self, networks, state, batch):
        total = super().loss(networks, state, batch).total
        results = {"bare": total, "vector": Loss(total.expand(2), {})}
        return results.get(self.how) if self.how in results else Loss(total, {})

    def predict(self, networks, state, x, context):
        scores = super().predict(networks, state, x, context)
        return scores.argmax(-1) if self.how == "labels" else scores

    def after_task(self, networks, state, data):
        return state if self.how != "after" else 1 / 0


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("init", "its state cannot be made: ZeroDivisionError"),
        ("bare", "loss must return tlresearch.training.method.Loss(total, terms)"),
        ("vector", "0-dimensional total"),
        ("labels", "predict must return scores of shape (batch, classes), not (4,)"),
    ],
)
def test_a_broken_contract_is_refused(how: str, sentence: str):
    assert sentence in refusal(method=Wrong(how))


def test_a_loss_that_fails_and_weights_that_do_not_follow_from_the_seed_are_refused():
    failing = refusal(lambda: Layer(lambda x: x @ torch.ones(3)))
    assert "its loss fails on 4 images of noise: RuntimeError: size mismatch" in failing

    def unseeded() -> nn.Module:
        layer = nn.Linear(8, 8)
        nn.init.constant_(layer.weight, python_random.random())
        return layer

    assert "two networks of one seed have different weights" in refusal(unseeded)


def test_a_task_of_four_images_need_not_be_enough():
    """`after_task` may fail on noise; the first state is tried all the same."""
    assert probe(case(method=Wrong("after")), stacked=True) is None


@dataclass(frozen=True)
class SecondOrder(Method):
    second_order: ClassVar[bool] = True


def test_a_norm_that_is_wrong_in_second_order_is_refused_for_a_method_that_needs_it():
    sentence = refusal(lambda: OtherNorm(8), SecondOrder())
    assert "second order of the affine norm layer (OtherNorm) is wrong under vmap" in sentence
    assert probe(case(lambda: nn.BatchNorm1d(8), SecondOrder()), stacked=True) is None


def test_a_buffer_that_is_assigned_anew_is_refused():
    """It would be in no checkpoint; changed in place, as in `Averages`, it is fine."""
    assert "its buffer" in (text := refusal(Reassigns)) and "assigned anew" in text
    assert probe(case(Averages), stacked=False) is None


class NoisyPrediction(Method):
    """Its loss is exact, its prediction is not."""

    def predict(self, networks, state, x, context):
        return super().predict(networks, state, x, context) + torch.rand(len(x), 1)


def test_a_prediction_that_draws_is_refused():
    assert "its predict draws hidden random numbers" in refusal(method=NoisyPrediction())
