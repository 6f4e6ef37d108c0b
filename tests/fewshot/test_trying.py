"""Foreign backbones and own methods in few-shot experiments: tried on noise, then run."""

from pathlib import Path

import pytest
import torch
from small_fewshot import use

from tlresearch import cli, experiment
from tlresearch.errors import UserError
from tlresearch.fewshot import METHODS
from tlresearch.launch import outputs
from tlresearch.launch import plan as plans
from tlresearch.results.store import Store
from tlresearch.training import device

CPU = torch.device("cpu")
FILE = """
family: fewshot
benchmark: {dataset: glyphs, ways: 4, queries: 3, episodes: 10}
backbone: {name: "./own.py:make", width: 6}
methods: {m: {name: METHOD}}
train: {steps: 2, batch_size: 8}
seeds: [0, 1]
"""
OWN = """
from dataclasses import dataclass
import torch
from torch import nn
from tlresearch.fewshot.protonet import PrototypicalNetwork

def make(input_shape, width: int = 8):
    size = input_shape[0] * input_shape[1] * input_shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.BatchNorm1d(width), nn.ReLU())

def blind(input_shape):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(5), Noisy())

class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)

@dataclass(frozen=True)
class Mine(PrototypicalNetwork):
    def loss(self, networks, state, batch):
        value = super().loss(networks, state, batch)
        LOSS
        return value

    def predict_episode(self, networks, state, episode):
        scores = super().predict_episode(networks, state, episode)
        PREDICT
        return scores
"""
ON_IMAGES = [name for name, kind in METHODS.items() if kind.classifies and name != "relation"]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The plan of `FILE` with a method, with lines in the own one."""
    use(monkeypatch)
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    monkeypatch.setattr(outputs, "_write_figures", lambda *args: [])

    def make(method: str, *words: str, loss: str = "pass", predict: str = "pass") -> plans.Plan:
        file = tmp_path / "exp.yaml"
        file.write_text(FILE.replace("METHOD", method))
        (tmp_path / "own.py").write_text(OWN.replace("LOSS", loss).replace("PREDICT", predict))
        made = experiment.load(file, list(words))
        return plans.make_plan(made, Store(tmp_path / "results", "exp"), CPU, probing=True)

    return make


@pytest.mark.parametrize("method", ON_IMAGES)
def test_an_own_backbone_in_every_method(plan, method):
    """It maps, so the seeds are one program; nothing is said."""
    made = plan(method)
    assert [len(stack.keys) for stack in made.stacks] == [2] and made.notes == ()


@pytest.mark.parametrize("method", ["maml", "oracle", "pretrained"])
def test_an_own_backbone_of_sinusoids(plan, method):
    made = plan(method, "benchmark={dataset: sinusoid, shots: 5, queries: 5}")
    assert [len(stack.keys) for stack in made.stacks] == [2] and made.notes == ()


@pytest.mark.parametrize("method", ["nearest_centroid", "protonet", "simpleshot"])
def test_an_own_backbone_runs(plan, method, tmp_path, capsys):
    """From the command to a table with numbers."""
    plan(method)
    words = ["run", str(tmp_path / "exp.yaml"), "--results", str(tmp_path / "results")]
    assert cli.main(words) == 0
    records = Store(tmp_path / "results", "exp").read()
    assert {record["status"] for record in records} == {"finished"} and len(records) == 2
    assert all(0 < record["metrics"]["acc"] <= 1 for record in records)


def test_a_model_of_timm(plan):
    words = "backbone={name: 'timm:resnet10t', stem_width: 4}", "seeds=[0]"
    for method in ("nearest_centroid", "protonet"):
        assert plan(method, *words).notes == ()


@pytest.mark.parametrize("method", ["nearest_centroid", "protonet"])
def test_a_backbone_with_hidden_draws_is_refused(plan, method):
    with pytest.raises(UserError, match=r"(its loss|its predict_episode) draws hidden random"):
        plan(method, "backbone={name: './own.py:blind'}")


def test_an_own_loss_that_refuses_vmap_runs_one_seed_at_a_time(plan):
    made = plan("./own.py:Mine", loss="value.total.item()")
    assert [len(stack.keys) for stack in made.stacks] == [1, 1]
    (note,) = made.notes
    assert "runs one seed at a time, as its loss refuses vmap" in note


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ({"loss": "value = value.total"}, "loss must return tlresearch.training.method.Loss"),
        ({"loss": "batch.x"}, "its loss fails on 1 episodes of noise"),
        (
            {"predict": "scores = scores[0]"},
            r"predict_episode must return scores of shape \(rows, queries, outputs\), not \(6, 3\)",
        ),
        ({"predict": "scores = scores[:, 1:]"}, r"not \(1, 5, 3\)"),
        ({"predict": "scores = None"}, "not NoneType"),
        ({"predict": "torch.rand(1)"}, "its predict_episode draws hidden random numbers"),
        ({"predict": "episode.x"}, "its predict_episode fails on 1 episodes of noise"),
    ],
)
def test_an_own_method_that_breaks_the_contract(plan, lines, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        plan("./own.py:Mine", **lines)
    assert "\n" not in str(caught.value)
