"""Where the outer-product rule of linear layers does not hold, the Fisher is still right."""

import pytest
import torch
from torch import nn

from tlresearch.functional import fisher
from tlresearch.functional.fisher import diagonal_fisher

F64 = torch.float64


def loop(network, x, labels="exact"):
    """F by one backward pass for each sample and class, for the parameters that are trained."""
    params = {k: p for k, p in network.named_parameters() if p.requires_grad}
    total = {k: torch.zeros_like(p) for k, p in params.items()}
    for n in range(len(x)):
        log_p = network(x[n : n + 1]).log_softmax(-1)[0]
        for c in range(len(log_p)):
            predicted = float(log_p.argmax() == c)
            weight = log_p[c].detach().exp() if labels == "exact" else predicted
            grads = torch.autograd.grad(
                log_p[c], list(params.values()), retain_graph=True, materialize_grads=True
            )
            for name, g in zip(params, grads, strict=True):
                total[name] += weight * g.square() / len(x)
    return total


def assert_close(actual, expected):
    assert list(actual) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-9, atol=1e-14)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(F64)


def test_a_network_of_linear_layers_needs_no_sample_loop(monkeypatch):
    """An MLP, masked or not, does not go through `vmap(grad)`."""
    monkeypatch.setattr(fisher, "_add_general", None)
    network, x = mlp(), torch.randn(5, 4, dtype=F64)
    for mask in (None, torch.tensor([True, False, True]), torch.ones(5, 3).bool()):
        diagonal_fisher(network, [(x, None, mask)])


class Odd(nn.Module):
    """Linear layers used in a way that breaks dₙ aₙᵀ."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.a, self.b = kind, nn.Linear(3, 3), nn.Linear(3, 3)
        self.act = nn.ReLU(inplace=kind == "changed in place")
        if kind == "shared weight":
            self.b.weight = self.a.weight
        if kind == "shared bias":
            self.b.bias = self.a.bias
        if kind == "spectral norm":
            nn.utils.spectral_norm(self.a)

    def forward(self, x):
        a, b = self.a, self.b
        extra = {
            "weight read": lambda z: z @ b.weight.square(),
            "bias read": lambda z: z * b.bias,
            "used twice": lambda z: b(z.tanh()),
            "rows of rows": lambda z: b(torch.stack([z, z.sin()], 1)).sum(1),
        }
        if self.kind == "never called":
            return b(x)
        if self.kind == "output unused":
            a(x)
            return b(x)
        return extra.get(self.kind, lambda z: z)(b(self.act(a(x))))


ODD = [
    "shared weight",
    "shared bias",
    "weight read",
    "bias read",
    "used twice",
    "rows of rows",
    "changed in place",
    "never called",
    "output unused",
    "spectral norm",
]


@pytest.mark.parametrize("kind", ODD)
def test_unusual_use_of_linear_layers_is_right(kind):
    """Where the outer-product rule fails, the result is still that of the loop."""
    torch.manual_seed(0)
    network, x = Odd(kind).to(F64).eval(), torch.randn(6, 3, dtype=F64)
    assert_close(diagonal_fisher(network, [(x, None)]), loop(network, x))


@pytest.mark.parametrize(
    "frozen", [["0.weight", "0.bias"], ["0.weight"], ["2.bias"], ["2.weight", "2.bias"]]
)
def test_frozen_parameters_are_left_out(frozen):
    """No entry for them; the others' values do not change."""
    network, x = mlp(), torch.randn(5, 4, dtype=F64)
    whole = loop(network, x)
    for name in frozen:
        network.get_parameter(name).requires_grad_(False)
    expected = {k: f for k, f in whole.items() if k not in frozen}
    assert_close(diagonal_fisher(network, [(x, None)]), expected)
    expected = {k: f for k, f in loop(network, x, "predicted").items() if k not in frozen}
    assert_close(diagonal_fisher(network, [(x, None)], "predicted"), expected)


@pytest.mark.parametrize(("labels", "batch"), [("exact", 1), ("predicted", 1), ("predicted", 2)])
@pytest.mark.parametrize("kind", ["plain", "used twice"])
def test_works_where_gradients_are_switched_off(kind, labels, batch):
    """The estimate takes the gradients that it needs, inside `torch.no_grad` too."""
    network, x = Odd(kind).to(F64).eval(), torch.randn(6, 3, dtype=F64)
    expected = diagonal_fisher(network, [(x, None)], labels, batch)
    with torch.no_grad():
        assert_close(diagonal_fisher(network, [(x, None)], labels, batch), expected)


@pytest.mark.parametrize("kind", ["never called", "output unused"])
def test_a_layer_without_influence_has_no_information(kind):
    """F = 0 for its weights in batches too, as for single samples."""
    network, x = Odd(kind).to(F64).eval(), torch.randn(6, 3, dtype=F64)
    result = diagonal_fisher(network, [(x, None)], "predicted", batch=2)
    assert not result["a.weight"].any() and not result["a.bias"].any()
    assert result["b.weight"].any()
