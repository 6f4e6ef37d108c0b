"""`scripts/benchmark_adaptation.py`: its loops do the same work, and it prints its ratios."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"
CPU, TAKEN = torch.device("cpu"), 4


@pytest.fixture
def script(monkeypatch) -> ModuleType:
    """The script with little work, measured once, in a process that stays as it is."""
    monkeypatch.syspath_prepend(SCRIPTS)
    module = importlib.import_module("benchmark_adaptation")
    sizes = {"IMAGES": 30, "BATCH": 6, "STEPS": 8, "DRAWN": 5}
    for name, value in sizes.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "prepare_process", lambda threads: None)
    turns = module.alternate
    monkeypatch.setattr(
        module,
        "alternate",
        lambda loops, options: turns(loops, replace(options, seconds=0, rounds=1)),
    )
    return module


def weights(module: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


@pytest.mark.parametrize(
    "peer", ["hand", "hand, channels last", "png", "pytorch-adapt", "pytorch-adapt, channels last"]
)
def test_a_peer_ends_with_our_weights(script, peer: str, tmp_path):
    """The same images, losses, λ that rises from 0, and steps: SGD would show any difference."""
    single = script.ours(1, CPU)
    with torch.no_grad():  # else little of the features' gradient comes from the discriminator
        for p in single.training.one(0)[1].discriminator.parameters():
            p.mul_(4)
    given, networks = script.given_of(single), script.copies_of(single)()
    last = peer.endswith("channels last")
    if peer == "png":
        loop = script.peers.png_loop(networks, given, tmp_path)
    elif peer.startswith("hand"):
        loop = script.peers.hand_loop(networks, given, channels_last=last)
    else:
        pytest.importorskip("pytorch_adapt.hooks", exc_type=ImportError)
        package = script.imported("pytorch_adapt.hooks")
        loop = script.peers.pytorch_adapt_loop(package, networks, given, channels_last=last)
    before = weights(networks)
    loop(TAKEN - 1)
    loop(1)
    single.steps(TAKEN)
    ours = weights(single.training.one(0)[1])
    for mine, other, first in zip(ours, weights(networks), before, strict=True):
        assert 0 < (mine - first).norm() < torch.inf
        assert (other - mine).norm() < 0.003 * (mine - first).norm()


def test_lambda_is_no_constant(script):
    """From 0 on, as our method's; the last value stays."""
    given = script.given_of(script.ours(1, CPU))
    strengths = [given.strength(step).item() for step in (0, 1, 7, 100)]
    assert strengths[0] == 0 and 0.5 < strengths[1] < strengths[2] == strengths[3] < 1


def test_it_prints_a_table_and_last_one_object(script, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmark", "--quick", "--processor-time"])
    script.main()
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])
    expected = {"dann.over_hand", "dann.vs_png", "dann_stack5.over_one"}
    if "left out: pytorch_adapt" not in printed:
        expected |= {"dann.vs_pytorch_adapt", "dann.vs_pytorch_adapt_channels_last"}
    assert found.keys() == expected and all(value > 0 for value in found.values())
    assert "hand, PNG files" in printed


def test_without_the_peer_one_line_says_so(script, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "pytorch_adapt.hooks", None)
    single = script.ours(1, CPU)
    given, network = script.given_of(single), script.copies_of(single)
    loops = script.peer_loops(given, network, tmp_path, compiled=False)
    assert loops.keys() == {"hand", "hand, channels last", "hand, PNG files"}
    assert capsys.readouterr().out.count("left out: pytorch_adapt.hooks") == 1
