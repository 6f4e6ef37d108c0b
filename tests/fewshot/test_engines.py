"""The three engines have one meta-gradient; higher and learn2learn come by `make test`'s setup."""

import sys

import pytest
import torch
from peers import peer
from small_tasks import build, images, meta_gradient, train

from tlresearch.errors import UserError
from tlresearch.fewshot.anil import ANIL
from tlresearch.fewshot.fomaml import FOMAML
from tlresearch.fewshot.maml import MAML

PEERS = ["higher", "learn2learn"]
CASES = [(backbone, steps) for backbone in ("mlp", "conv4") for steps in (1, 5)]


@pytest.mark.parametrize("engine", PEERS)
@pytest.mark.parametrize(("backbone", "steps"), CASES)
@pytest.mark.parametrize("kind", [MAML, FOMAML, ANIL])
def test_meta_gradients_are_equal(kind, backbone, steps, engine):
    """Of loss and every parameter, to 1e-10 in float64."""
    peer(engine)
    batch, results = images(), {}
    for name in ("func", engine):
        method = kind(inner_steps=steps, inner_lr=0.1, engine=name)
        networks = build(method, backbone)
        loss = method.loss(networks, {}, batch).total
        results[name] = {"loss": loss} | meta_gradient(method, networks, batch)
    largest = 0.0
    for key, ours in results["func"].items():
        torch.testing.assert_close(results[engine][key], ours, atol=1e-10, rtol=0)
        largest = max(largest, (results[engine][key] - ours).abs().max().item())
    print(f"\n{kind.__name__}, {backbone}, {steps} inner steps: {engine} differs by {largest:.1e}")
    assert max(g.abs().max() for k, g in results["func"].items() if k != "loss") > 1e-2


@pytest.mark.parametrize("engine", PEERS)
def test_they_train_alike(engine):
    """Three meta-steps of the common loop, with the multi-step loss."""
    peer(engine)
    options = {"inner_steps": 2, "inner_lr": 0.1, "multi_step_loss": 5}
    ours, theirs = (
        train(MAML(**options, engine=name), "mlp", [3], images).stack for name in ("func", engine)
    )
    for name, value in ours.params.items():
        torch.testing.assert_close(theirs.params[name], value, atol=1e-10, rtol=0)


@pytest.mark.parametrize("engine", PEERS)
def test_they_refuse_a_stack(engine):
    peer(engine)
    with pytest.raises(UserError, match=r"one seed at a time .* train.stack: 1"):
        train(MAML(engine=engine), "mlp", [0, 1], images)


@pytest.mark.parametrize(
    ("engine", "command"),
    [
        ("higher", r"pip install 'tlresearch\[compare\]'"),
        ("learn2learn", "pip install --no-deps -r requirements-learn2learn.txt"),
    ],
)
def test_one_that_is_not_installed_says_how(engine, command, monkeypatch):
    monkeypatch.setitem(sys.modules, engine, None)
    problem = MAML(engine=engine).problem()
    assert problem is not None and problem.startswith(f"engine: {engine} cannot be imported")
    with pytest.raises(UserError, match=command):
        MAML(engine=engine).loss(build(MAML(), "mlp"), {}, images())


@pytest.mark.parametrize("engine", PEERS)
@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"statistics": "support"}, "statistics"),
        ({"learn_rates": "per_step"}, "learn_rates"),
        ({"task_chunk": 2}, "task_chunk"),
    ],
)
def test_what_they_cannot_do_is_refused(engine, options, key):
    problem = MAML(engine=engine, **options).problem()
    assert problem is not None and problem.startswith(f"{key}: {engine}")
    assert MAML(**options).problem() is None
