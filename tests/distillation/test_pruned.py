"""Pruned students: which units go, what is left computes, and where it begins; by loops."""

import copy
import math
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from peers import peer
from small_lessons import BIG, CLASSES, NOISY, PLAIN, SHAPE, Lessons, same_bits
from torch import Tensor, nn

from tlresearch import cli
from tlresearch.backbones import build
from tlresearch.backbones.classifier import Backbone
from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.lenet import LeNet
from tlresearch.backbones.mlp import MLP
from tlresearch.configs import plain_config
from tlresearch.distillation import pruning
from tlresearch.distillation.frozen_teacher import FrozenTeacher
from tlresearch.distillation.kd import KD
from tlresearch.distillation.pruned import Pruned
from tlresearch.distillation.settings import TeacherSettings
from tlresearch.distillation.student import StudentAlone
from tlresearch.distillation.teacher import TeacherItself
from tlresearch.errors import UserError
from tlresearch.launch import outputs
from tlresearch.training import device
from tlresearch.training.settings import Train

peer("torch_pruning")

IMAGE = (1, 20, 20)
"""LeNet has 50 channels of 2 x 2 pixels in front of its linear layer."""


@pytest.fixture
def lessons(monkeypatch, tmp_path):
    return Lessons(monkeypatch, tmp_path)


def drawn(backbone: Any, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Any:
    """In float64 and evaluation mode; every tensor is random, running statistics too."""
    network = build(backbone, shape, CLASSES, 0).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.2 + torch.rand(tensor.shape, generator=generator, dtype=torch.float64))
            signs = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
            tensor *= signs if tensor.ndim > 1 else 1
    return network


def norm_of(weights: Tensor, power: int) -> float:
    return sum(abs(w) ** power for w in weights.flatten().tolist())


def lowest(scores: list[float], count: int) -> list[int]:
    """Places of the lowest."""
    return sorted(sorted(range(len(scores)), key=lambda j: scores[j])[:count])


@pytest.mark.parametrize(
    ("units", "ratio", "count"),
    [(10, 0.3, 3), (100, 0.29, 29), (50, 0.875, 43), (7, 0.0, 0), (1, 0.9, 0), (8, 0.99, 7)],
)
def test_how_many_go(units, ratio, count):
    """Rounded down, but not by the rounding of .29 · 100; one stays."""
    assert pruning.count_removed(units, ratio) == count


PERCEPTRONS = [
    MLP(hidden=(12, 7)),
    MLP(hidden=(12, 7), norm="batch", dropout=0.2),
    MLP(hidden=(9,), activation="sigmoid"),
]


@pytest.mark.parametrize("importance", ["l1", "l2"])
@pytest.mark.parametrize("backbone", PERCEPTRONS, ids=["plain", "batch norm", "sigmoid"])
def test_units_of_a_perceptron_by_hand(backbone, importance):
    """The smallest norms of rows, γ and columns; rows and columns deleted from all tensors."""
    network, power = drawn(backbone), {"l1": 1, "l2": 2}[importance]
    layers = [*(layer for layer in network.backbone.layers if isinstance(layer, nn.Linear))]
    layers.append(network.head)
    norms = [layer for layer in network.backbone.layers if isinstance(layer, nn.BatchNorm1d)]
    cut, gone = copy.deepcopy(network), []
    behind = [layer for layer in cut.backbone.layers if isinstance(layer, nn.Linear)][1:]
    for i, units in enumerate(backbone.hidden):
        scores = []
        for j in range(units):
            parts = [norm_of(layers[i].weight[j], power)]
            parts += [abs(norms[i].weight[j].item()) ** power] if norms else []
            parts += [norm_of(layers[i + 1].weight[:, j], power)]
            scores.append(sum(parts) / len(parts))
        gone.append(lowest(scores, math.floor(0.4 * units)))
        reader = [*behind, cut.head][i]
        reader.weight.data[:, gone[i]] = 0
    x = torch.randn(6, *SHAPE, dtype=torch.float64)
    expected, whole = cut(x), copy.deepcopy(network)
    removed = pruning.prune(network, SHAPE, 0.4, importance, 0)
    assert [*removed.values()][::-1] == gone or [*removed.values()] == gone
    assert network.training and network.backbone.width == backbone.hidden[-1] - len(gone[-1])
    torch.testing.assert_close(network.eval()(x), expected, atol=1e-10, rtol=0)
    assert not torch.allclose(whole(x), expected, atol=1e-3)
    kept = [[j for j in range(n) if j not in g] for n, g in zip(backbone.hidden, gone, strict=True)]
    before, after = whole.state_dict(), network.state_dict()
    rows = before["backbone.layers.0.weight"][kept[0]]
    assert torch.equal(after["backbone.layers.0.weight"], rows), "no input goes"
    assert torch.equal(after["head.weight"], before["head.weight"][:, kept[-1]])
    assert torch.equal(after["head.bias"], before["head.bias"]), "no class goes"
    if norms:
        for name in ("weight", "bias", "running_mean", "running_var"):
            name = f"backbone.layers.1.{name}"
            assert torch.equal(after[name], before[name][kept[0]])


@pytest.mark.parametrize("importance", ["l1", "l2"])
def test_channels_of_lenet_by_hand(importance):
    """A channel is read by the next filters, or by four columns of the linear layer."""
    network, power = drawn(LeNet(), IMAGE), {"l1": 1, "l2": 2}[importance]
    body, head = network.backbone, network.head
    scores = {
        "backbone.conv1": [norm_of(body.conv1.weight[j], power)
                           + norm_of(body.conv2.weight[:, j], power) for j in range(20)],
        "backbone.conv2": [norm_of(body.conv2.weight[j], power)
                           + norm_of(body.fc.weight[:, 4 * j : 4 * j + 4], power)
                           for j in range(50)],
        "backbone.fc": [norm_of(body.fc.weight[j], power) + norm_of(head.weight[:, j], power)
                        for j in range(500)],
    }  # fmt: skip
    gone = {name: lowest(its, math.floor(0.55 * len(its))) for name, its in scores.items()}
    cut = copy.deepcopy(network)
    cut.backbone.conv2.weight.data[:, gone["backbone.conv1"]] = 0
    columns = [4 * j + pixel for j in gone["backbone.conv2"] for pixel in range(4)]
    cut.backbone.fc.weight.data[:, columns] = 0
    cut.head.weight.data[:, gone["backbone.fc"]] = 0
    x = torch.randn(3, *IMAGE, dtype=torch.float64)
    expected = cut(x)
    assert pruning.prune(network, IMAGE, 0.55, importance, 0) == gone
    close = {"atol": 1e-9 * expected.abs().max().item(), "rtol": 0}
    torch.testing.assert_close(network.eval()(x), expected, **close)
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim > 1]
    assert shapes == [(9, 1, 5, 5), (23, 9, 5, 5), (225, 92), (CLASSES, 225)]


def test_random_units_are_those_of_the_seed():
    """And as many as those with small weights."""
    found = [pruning.prune(drawn(PLAIN), SHAPE, 0.5, "random", seed) for seed in (0, 0, 1)]
    small = pruning.prune(drawn(PLAIN), SHAPE, 0.5, "l1", 0)
    assert found[0] == found[1] != found[2]
    assert {k: len(v) for k, v in found[0].items()} == {k: len(v) for k, v in small.items()}


BACKBONES = [(PLAIN, SHAPE), (NOISY, SHAPE), (LeNet(), IMAGE), (Conv4(channels=4, pools=1), SHAPE)]


@pytest.mark.parametrize(("backbone", "shape"), BACKBONES)
def test_what_fits_is_not_refused_and_stays(backbone, shape):
    """The check of a backbone looks at a copy."""
    network = drawn(backbone, shape)
    before = copy.deepcopy(network.state_dict())
    assert pruning.misfit(network, shape, 0.5, "l2") is None
    assert same_bits(before, network.state_dict())


@pytest.mark.parametrize(("backbone", "shape"), BACKBONES)
def test_fresh_weights_are_those_of_a_student_of_that_size(backbone, shape):
    """With nothing removed they are the student's; else drawn for as many inputs as are left."""
    fresh, alone = Pruned(weights="fresh", ratio=0.0), StudentAlone()
    pair = [m.networks(backbone, shape, CLASSES, 3).state_dict() for m in (fresh, alone)]
    assert same_bits(*pair)
    smaller = replace(fresh, ratio=0.75).networks(backbone, shape, CLASSES, 3)
    inputs = smaller.head.in_features
    largest = smaller.head.weight.abs().max() * math.sqrt(inputs)
    assert 0.5 * pair[0]["head.weight"].shape[1] > inputs and 0.7 < largest <= 1


class Normed(Backbone):
    """A norm over the units, which feels each that goes."""

    width = 6

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(16, 6), nn.LayerNorm(6)

    def features(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x.flatten(1)))


class Padded(Backbone):
    """A shortcut that puts the inputs beside zeros."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 4), nn.Linear(4, 8)

    def features(self, x: Tensor) -> Tensor:
        z = self.first(x.flatten(1))
        return self.second(z) + nn.functional.pad(z, (2, 2))


@pytest.mark.parametrize("kind", [Normed, Padded])
def test_what_is_no_sum_over_units_is_refused(kind):
    class Settings:
        def build(self, input_shape: tuple[int, int, int]) -> Backbone:
            return kind()

    network = build(Settings(), SHAPE, CLASSES, 0)
    assert pruning.misfit(network, SHAPE, 0.5, "l1") is not None


def test_a_linear_classifier_has_nothing_to_remove():
    with pytest.raises(UserError, match="no layer in front of its head"):
        pruning.prune(drawn(MLP(hidden=())), SHAPE, 0.5, "l1", 0)


@pytest.mark.parametrize("importance", ["l1", "random"])
def test_the_teacher_stays(importance):
    """Its bytes, its mode, its gradients; the student is a copy in its type that is trained."""
    teacher = FrozenTeacher(drawn(NOISY))
    digest, text = teacher.digest(), repr(teacher.network)
    method = Pruned(importance=importance)
    student = method.networks_from([teacher.network], NOISY, SHAPE, CLASSES, 0)
    for parameter in student.parameters():
        parameter.data.zero_()
    assert teacher.digest() == digest and repr(teacher.network) == text
    teacher.unchanged()
    assert not any(m.training for m in teacher.network.modules())
    assert all(m.training for m in student.modules())
    assert all(p.requires_grad and p.dtype is torch.float64 for p in student.parameters())
    sizes = [layer.out_features for layer in student.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [6, 4, CLASSES]


def test_nothing_removed_is_the_teacher_itself(lessons):
    """Measured before a step; and on it goes from there."""
    teacher = lessons.run(TeacherItself(), [0, 1], steps=9)
    method = Pruned(ratio=0.0, teacher=TeacherSettings(train={"steps": 9, "lr": 0.05}))
    runs = lessons.run(method, [0, 1], steps=30, lr=0.3)
    for its, ours in zip(teacher, runs, strict=True):
        assert ours.metrics["acc_before"] == its.metrics["acc"]
        assert ours.metrics["errors_before"] == its.metrics["errors"]
        assert ours.metrics["parameters"] == its.metrics["parameters"]
        assert not same_bits(ours.weights, its.weights)
    assert [r.metrics["errors_before"] for r in runs] != [r.metrics["errors"] for r in runs]


def test_rows_differ_in_what_they_should(lessons):
    """Weights, labels and teacher, what is removed; `fresh` begins with nothing to measure."""
    base = Pruned(alpha=0.5)
    variants = [
        base,
        replace(base, weights="fresh"),
        replace(base, alpha=0.0),
        replace(base, alpha=1.0),
        replace(base, importance="random"),
        replace(base, ratio=0.25),
    ]
    runs = [lessons.run(method, [0], PLAIN)[0] for method in variants]
    for i, one in enumerate(runs):
        assert not any(same_bits(one.weights, other.weights) for other in runs[:i])
    sizes = [int(run.metrics["parameters"]) for run in runs]
    assert sizes == [17 * 4 + 5 * CLASSES] * 5 + [17 * 6 + 7 * CLASSES]
    assert ["acc_before" in run.metrics for run in runs] == [True, False, True, True, True, True]
    assert Pruned.terms is KD.terms


FILE = """
family: distillation
benchmark: {dataset: optdigits}
backbone: {name: mlp, hidden: [8]}
methods:
  pruned: {name: pruned, ratio: 0.5}
  fresh: {name: pruned, weights: fresh}
  kd: {name: kd}
train: {steps: 2}
seeds: [0, 1]
"""
CASES: dict[str, tuple[list[str], str]] = {
    "all units": (["methods.pruned.ratio=1"], "methods.pruned.ratio"),
    "less than none": (["methods.pruned.ratio=-0.1"], "methods.pruned.ratio"),
    "an unknown importance": (["methods.pruned.importance=l3"], "methods.pruned.importance"),
    "alpha above 1": (["methods.pruned.alpha=2"], "methods.pruned.alpha"),
    "what is left of several": (
        ["methods.pruned.teacher={copies: 2}"],
        "methods.pruned.teacher.copies: a student is what is left of one teacher, not of 2",
    ),
    "another backbone": (
        [f"methods.pruned.teacher={{backbone: {BIG}}}".replace("True", "true")],
        "methods.pruned.teacher.backbone: a pruned student is what is left of its teacher",
    ),
    "a published one": (
        ["benchmark={dataset: cifar10, normalise: imagenet}", "backbone={name: resnet20}",
         "methods={pruned: {name: pruned, teacher: {checkpoint: cifar10_resnet56}}}"],
        "methods.pruned.teacher.checkpoint: a pruned student is what is left of its teacher",
    ),
    "shortcuts that pad": (
        ["backbone={name: resnet20}"],
        "methods.pruned.name: this backbone cannot be pruned: removing channels changes more than",
    ),
    "nothing in front of the head": (
        ["backbone={name: mlp, hidden: []}"],
        "methods.pruned.name: it has no layer in front of its head",
    ),
    "a teacher of others": (
        ["methods.kd.teacher={method: {name: pruned}}"],
        "methods.kd.teacher.method.name: a student of 'pruned' is made of its own teacher's",
    ),
    "a metric that nobody has": (
        ["methods={kd: {name: kd}}", "metrics=[acc, acc_before]"],
        "'metrics' names 'acc_before', which no run of this table has",
    ),
}  # fmt: skip


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """What the command says of the file with some changes: one sentence, before any work."""
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    monkeypatch.setattr(outputs, "_write_figures", lambda *args: [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, results = tmp_path / "exp.yaml", tmp_path / "results"
    path.write_text(FILE)

    def run(*words: str) -> str:
        code = cli.main(["run", str(path), *words, "--results", str(results)])
        out, err = capsys.readouterr()
        assert code == 2 and not results.exists(), out + err
        assert err.startswith("tlresearch: ") and err.count("\n") == 1
        return err

    return run


@pytest.mark.parametrize(("words", "expected"), CASES.values(), ids=CASES)
def test_bad_input_is_one_sentence(told, words, expected):
    assert expected in told(*words)


def test_without_the_library_one_sentence_names_the_extra(told, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    err = told()
    assert "methods.pruned.name: channels are removed by torch-pruning, which is not" in err
    assert "pip install tlresearch[prune]" in err


def test_records_say_which_library(monkeypatch):
    from tlresearch.experiment import Config
    from tlresearch.launch.plan import versions

    config = Config("distillation", None, PLAIN, Pruned(), Train())
    assert versions(config)["torch-pruning"] == peer("torch_pruning").__version__
    assert plain_config(Pruned(), defaults=False) == {"kind": "Pruned"}
