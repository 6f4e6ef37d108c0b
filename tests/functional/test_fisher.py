"""The diagonal Fisher against loops over samples and classes, closed forms and BackPACK."""

import itertools
from typing import Any

import jaxtyping
import pytest
import torch
from peers import peer
from torch import nn

from tlresearch.backbones.classifier import Classifier
from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.layers import BatchNorm2d, Dropout
from tlresearch.functional import fisher
from tlresearch.functional.fisher import diagonal_fisher
from tlresearch.functional.random import make_key

F64 = torch.float64
KEY = make_key(0, "labels")


def per_class_squares(network, x, mask=None):
    """p (N, C) and (∂ log p(c|xₙ)/∂θ)² by name (N, C, …), one sample and class at a time."""
    params = {k: p for k, p in network.named_parameters() if p.requires_grad}
    probabilities, squares = [], {k: [] for k in params}
    for n in range(len(x)):
        logits = network(x[n : n + 1])[0]
        active = torch.ones_like(logits, dtype=torch.bool)
        if mask is not None:
            active = mask[n] if mask.dim() == 2 else mask
        log_p = logits - logits[active].logsumexp(0)
        probabilities.append(log_p.detach().exp() * active)
        for c in range(len(logits)):
            grads = torch.autograd.grad(
                log_p[c], list(params.values()), retain_graph=True, materialize_grads=True
            )
            for name, g in zip(params, grads, strict=True):
                squares[name].append(g.square() * active[c])
    p = torch.stack(probabilities)
    return p, {k: torch.stack(s).view(*p.shape, *params[k].shape) for k, s in squares.items()}


def brute_force(network, x, labels="exact", y: Any = None, mask=None):
    """(1/N) Σₙ Σ_c q(c|xₙ) (∂ log p(c|xₙ)/∂θ)², with the network as it is now."""
    p, squares = per_class_squares(network, x, mask)
    chosen = p.argmax(1) if labels == "predicted" else y
    q = p if labels == "exact" else (torch.arange(p.shape[1]) == chosen.unsqueeze(1)).to(p)
    return {k: torch.einsum("nc,nc...->...", q, s) / len(x) for k, s in squares.items()}


def assert_close(actual, expected, **tolerance):
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert actual[name].shape == value.shape
        torch.testing.assert_close(
            actual[name], value, **(tolerance or {"rtol": 1e-9, "atol": 1e-14})
        )


def mlp(inputs=4, classes=3):
    return nn.Sequential(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, classes)).to(F64)


def conv():
    """Split batch norm with statistics of its own, dropout, and a linear head."""
    norm = BatchNorm2d(3)
    assert norm.running_mean is not None and norm.running_var is not None
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), norm, nn.ReLU(), Dropout(0.5), nn.Flatten(), nn.Linear(12, 3)
    ).to(F64)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


NETWORKS = {
    "mlp": (mlp, (4,)),
    "conv": (conv, (1, 4, 4)),
    "linear": (lambda: nn.Linear(4, 3).to(F64), (4,)),
}
MASKS = {
    "none": None,
    "classes": torch.tensor([True, False, True]),
    "batch classes": torch.tensor([[1, 0, 1], [1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 0, 1]]).bool(),
}
Y = torch.tensor([0, 0, 2, 2, 0])  # active in every mask


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("labels", ["exact", "predicted", "empirical"])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_a_loop_over_samples_and_classes(name, labels, mask):
    """In float64, on the linear path and the general one, all classes or the active ones."""
    make, shape = NETWORKS[name]
    network, x = make().eval(), torch.randn(5, *shape, dtype=F64)
    result = diagonal_fisher(network, [(x, Y, MASKS[mask])], labels)
    assert_close(result, brute_force(network, x, labels, Y, MASKS[mask]))


def test_conv4_equals_a_loop():
    """A real backbone with batch norm and pooling, through `vmap(grad)`."""
    network = Classifier(Conv4(channels=2).build((1, 16, 16)), 3).to(F64).eval()
    x = torch.randn(3, 1, 16, 16, dtype=F64)
    assert_close(diagonal_fisher(network, [(x, None)]), brute_force(network, x))


def test_closed_form_of_softmax_regression():
    """F of W[c, i] = meanₙ p_c (1 − p_c) xᵢ², of b[c] without the x."""
    network, x = nn.Linear(4, 3).to(F64), torch.randn(50, 4, dtype=F64)
    p = network(x).softmax(-1).detach()
    spread = p * (1 - p)
    result = diagonal_fisher(network, [(x, None)])
    torch.testing.assert_close(result["weight"], spread.T @ x.square() / 50)
    torch.testing.assert_close(result["bias"], spread.mean(0))


def test_equals_backpack():
    """BackPACK's DiagGGNExact of the mean cross-entropy is the exact Fisher; both our paths."""
    backpack = peer("backpack")
    from backpack.extensions import DiagGGNExact

    perceptron = nn.Sequential(nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))
    image = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(8, 3))
    for network, shape in ((perceptron, (16,)), (image, (1, 4, 4))):
        network, x = network.to(F64), torch.randn(7, *shape, dtype=F64)
        ours = diagonal_fisher(network, [(x, None)])
        extended = backpack.extend(network)
        loss = backpack.extend(nn.CrossEntropyLoss())(
            extended(x.requires_grad_()), torch.arange(7) % 3
        )
        with backpack.backpack(DiagGGNExact()):
            loss.backward()
        assert_close(ours, {k: p.diag_ggn_exact for k, p in extended.named_parameters()})


def test_sampled_labels_average_to_the_exact_fisher():
    """20,000 labels a sample, for three keys: within 5 standard errors in every weight."""
    network, x, draws = mlp(), torch.randn(3, 4, dtype=F64), 20_000
    p, squares = per_class_squares(network, x)
    results = []
    for seed in range(3):
        key = make_key(seed, "labels")
        results.append(diagonal_fisher(network, [(x.repeat(draws, 1), None)], "sample", key=key))
    for name, s in squares.items():
        mean = torch.einsum("nc,nc...->n...", p, s)
        variance = torch.einsum("nc,nc...->n...", p, s.square()) - mean.square()
        error = (variance.mean(0) / (3 * draws)).sqrt()
        for result in results:
            assert ((result[name] - mean.mean(0)).abs() <= 5 * error + 1e-12).all()
    assert not torch.equal(results[0]["0.weight"], results[1]["0.weight"])


def test_sampled_labels_are_a_function_of_the_key():
    """Same key, same F; batches draw their own labels; and each F is one of the possible ones."""
    network, x = mlp(), torch.randn(1, 4, dtype=F64)
    once, again = (diagonal_fisher(network, [(x, None)], "sample", key=KEY) for _ in range(2))
    assert_close(once, again, rtol=0, atol=0)
    _, squares = per_class_squares(network, x)
    choices = [{k: s[0, c] for k, s in squares.items()} for c in range(3)]
    assert any(torch.allclose(once["0.weight"], c["0.weight"]) for c in choices)
    many = diagonal_fisher(network, [(x, None)] * 60, "sample", key=KEY)
    assert not any(torch.allclose(many["0.weight"], c["0.weight"]) for c in choices)


@pytest.mark.parametrize("labels", ["predicted", "empirical"])
@pytest.mark.parametrize("name", NETWORKS)
def test_batched_is_the_square_of_the_mean_gradient(name, labels):
    """Batches of 2, 2 and the 1 left over each count once."""
    make, shape = NETWORKS[name]
    network, x = make().eval(), torch.randn(5, *shape, dtype=F64)
    mask = MASKS["classes"]
    expected = {k: torch.zeros_like(p) for k, p in network.named_parameters()}
    for rows in (slice(0, 2), slice(2, 4), slice(4, 5)):
        log_p = network(x[rows]).masked_fill(~mask, -torch.inf).log_softmax(-1)
        label = log_p.argmax(1) if labels == "predicted" else Y[rows]
        mean = -nn.functional.nll_loss(log_p, label)
        for k, g in zip(
            expected, torch.autograd.grad(mean, list(network.parameters())), strict=True
        ):
            expected[k] += g.square() / 3
    assert_close(diagonal_fisher(network, [(x, Y, mask)], labels, batch=2), expected)


def test_batched_is_about_b_times_too_small():
    """With labels from the model the scores have mean 0, so the ratio's expectation is b = 8."""
    network, x = mlp(), torch.randn(4, 4, dtype=F64).repeat(2000, 1)
    batched = diagonal_fisher(network, [(x, None)], "sample", batch=8, key=KEY)
    exact = diagonal_fisher(network, [(x, None)])
    of_one, of_eight = (sum(f.sum().item() for f in each.values()) for each in (exact, batched))
    assert 7.4 < of_one / of_eight < 8.6


@pytest.mark.parametrize(("labels", "batch"), [("exact", 1), ("sample", 1), ("empirical", 2)])
@pytest.mark.parametrize("name", NETWORKS)
def test_estimates_in_evaluation_mode_and_leaves_no_trace(name, labels, batch):
    """Mode of each module, buffers, weights and .grad are as before; F is that of eval()."""
    make, shape = NETWORKS[name]
    network, x = make().eval(), torch.randn(5, *shape, dtype=F64)
    expected = diagonal_fisher(network, [(x, Y)], labels, batch, KEY)
    network.train()
    if name != "linear":
        network[1].eval()  # as a frozen batch norm would be
    modes = [m.training for m in network.modules()]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    first, *others = network.parameters()
    first.grad = torch.ones_like(first)
    assert_close(diagonal_fisher(network, [(x, Y)], labels, batch, KEY), expected)
    assert [m.training for m in network.modules()] == modes
    for k, v in network.state_dict().items():
        assert torch.equal(v, before[k])
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(p.grad is None for p in others)
    assert not any(f.requires_grad for f in expected.values())


CUTS = [
    ("exact", 1),
    ("predicted", 1),
    ("empirical", 1),
    ("sample", 1),
    ("empirical", 2),
    ("sample", 2),
]


@pytest.mark.parametrize(("labels", "batch"), CUTS)
@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_batches_and_chunks_do_not_matter(name, labels, batch, monkeypatch):
    """However the samples are cut, by the caller or to fit memory; masks keep to their samples."""
    make, shape = NETWORKS[name]
    network, x = make().eval(), torch.randn(5, *shape, dtype=F64)
    for mask in MASKS.values():
        whole = diagonal_fisher(network, [(x, Y, mask)], labels, batch, KEY)
        cut = [
            (x[i:j], Y[i:j], mask[i:j] if mask is not None and mask.dim() == 2 else mask)
            for i, j in itertools.pairwise([0, 1, 4, 5])
        ]
        assert_close(diagonal_fisher(network, cut, labels, batch, KEY), whole)
        with monkeypatch.context() as small:
            small.setattr(fisher, "PER_SAMPLE_NUMBERS", 150)
            assert_close(diagonal_fisher(network, [(x, Y, mask)], labels, batch, KEY), whole)


def test_contradictions_are_refused():
    """ValueError for an expectation over batches, chance without a key, no labels, no samples."""
    network, x = mlp().train(), torch.randn(5, 4, dtype=F64)
    for match, arguments in {
        "batch must be 1": {"batches": [(x, Y)], "labels": "exact", "batch": 2},
        "needs a key": {"batches": [(x, Y)], "labels": "sample"},
        "needs the labels": {"batches": [(x, None)], "labels": "empirical"},
        "no samples": {"batches": []},
    }.items():
        with pytest.raises(ValueError, match=match):
            diagonal_fisher(network, **arguments)
        assert network.training


def test_unknown_labels_are_refused():
    """A misspelt variant is not silently another one."""
    misspelt: Any = "emprical"
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="emprical"):
        diagonal_fisher(mlp(), [(torch.randn(2, 4, dtype=F64), None)], misspelt)
