"""`scripts/benchmark_distillation.py`: its loops do the same work, and it prints its ratios."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from tlresearch.distillation.kd import KD
from tlresearch.training.settings import Train

SCRIPTS = Path(__file__).parents[2] / "scripts"
CPU, TAKEN = torch.device("cpu"), 7
TRAIN = Train(steps=100, batch_size=6, optimizer="sgd", lr=0.1, momentum=0.9)


@pytest.fixture
def script(monkeypatch) -> ModuleType:
    """The script with little work, measured once, in a process that stays as it is."""
    monkeypatch.syspath_prepend(SCRIPTS)
    module = importlib.import_module("benchmark_distillation")
    sizes = {"IMAGES": 30, "BATCH": 6, "SIDE": 4, "STUDENT": (8, 8), "TEACHER": (12, 12)}
    for name, value in (sizes | {"DRAWN": 9}).items():
        monkeypatch.setattr(module, name, value)
    # Both terms count, so that a wrong weight of either shows.
    monkeypatch.setattr(module, "METHOD", KD(alpha=0.3, temperature=2.0))
    monkeypatch.setattr(module, "prepare_process", lambda threads: None)
    turns = module.alternate
    monkeypatch.setattr(
        module,
        "alternate",
        lambda loops, options: turns(loops, replace(options, seconds=0, rounds=1)),
    )
    return module


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def assert_same_way(mine: Any, other: Any, first: Any) -> None:
    """Both moved, and to the same place."""
    for a, b, before in zip(mine, other, first, strict=True):
        assert 0 < (a - before).norm() < torch.inf
        assert (b - a).norm() < 1e-4 * (a - before).norm()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    "peer", ["hand, cached", "hand, live", "torchdistill", "torchdistill, helped"]
)
def test_a_peer_ends_with_our_weights(script, peer: str, optimizer: str, tmp_path):
    """The same images, order, answers, losses and steps."""
    images, teacher = script.images_on(CPU), script.teacher_on(CPU)
    train = TRAIN if optimizer == "sgd" else Train(steps=100, batch_size=6, lr=1e-3)
    single = script.ours(images, teacher, train, tmp_path)
    given, student = script.given_of(single, images), script.copies_of(single)()
    if peer.startswith("hand"):
        asked = teacher if peer == "hand, live" else None
        loop = script.peers.hand_loop(student, asked, given)
    else:
        package = script.torchdistill()
        if package is None:
            pytest.skip("torchdistill is not installed")
        loop = script.peers.torchdistill_loop(
            package, student, teacher, given, helped=peer.endswith("helped")
        )
    before = weights(student)
    loop(TAKEN - 1)
    loop(1)
    single.steps(TAKEN)
    assert_same_way(weights(single.training.one(0)[1]), weights(student), before)


def test_our_live_teacher_gives_the_same_student_to_the_bit(script, tmp_path):
    images, teacher = script.images_on(CPU), script.teacher_on(CPU)
    found = []
    for folder in (tmp_path, None):
        training = script.ours(images, teacher, TRAIN, folder)
        training.steps(TAKEN)
        found.append(weights(training.training.one(0)[1]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_teacher_is_not_uniform(script):
    """Else its answers would say nothing, and a wrong temperature would not show."""
    logits = script.teacher_on(CPU)(script.images_on(CPU).train)
    assert logits.std() > 1


def test_it_prints_a_table_and_last_one_object(script, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmark", "--quick", "--processor-time"])
    script.main()
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])
    expected = {"mlp.vs_bare_live", "mlp.over_hand", "mlp.live_over_cached"}
    if "left out: torchdistill" not in printed:
        expected |= {"mlp.vs_torchdistill", "mlp.vs_torchdistill_helped"}
    assert found.keys() == expected and all(value > 0 for value in found.values())
    assert all(f"  {name} " in printed for name in ("fit, cached", "fit, live", "hand, live"))


def test_without_the_peer_one_line_says_so(script, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "torchdistill.core.distillation", None)
    monkeypatch.setitem(sys.modules, "torchdistill", None)
    images, teacher = script.images_on(CPU), script.teacher_on(CPU)
    single = script.ours(images, teacher, TRAIN, tmp_path)
    given, student = script.given_of(single, images), script.copies_of(single)
    loops = script.peer_loops(given, student, teacher, quick=True, workers=True)
    assert loops.keys() == {"hand, cached", "hand, live"}
    assert capsys.readouterr().out.count("left out: torchdistill") == 1


def test_the_folder_of_answers_must_be_writable(script, tmp_path):
    """Else the live teacher would be measured under the name of the cache."""
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(SystemExit, match="no answers were kept"):
        script.ours(script.images_on(CPU), script.teacher_on(CPU), TRAIN, place)
