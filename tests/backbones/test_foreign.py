"""Own backbones and models of timm: settings from a signature, features, what is refused."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tlresearch.backbones import build, conversion, foreign
from tlresearch.configs import plain_config
from tlresearch.errors import UserError

NET = '''
from dataclasses import dataclass
from typing import Annotated, Literal
from torch import nn
from tlresearch.backbones.mlp import MLP

def make(input_shape, width: int = 8, act: Literal["relu", "tanh"] = "relu", p=0.5, sizes=[2]):
    """A small net."""
    inputs = input_shape[0] * input_shape[1] * input_shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.BatchNorm1d(width),
                         nn.ReLU() if act == "relu" else nn.Tanh(), nn.Dropout(p))

def lazy(input_shape): return nn.Sequential(nn.Flatten(), nn.LazyLinear(5))
def required(input_shape, width): return nn.Flatten()
def strange(input_shape, layer: type): return nn.Flatten()
def optional(input_shape, layer: type = nn.ReLU): return nn.Flatten()
def image(input_shape): return nn.Conv2d(input_shape[0], 4, 3)
def text(input_shape): return "net"
def fails(input_shape): raise ValueError("no such luck\\nsecond line")
def nothing(): return nn.Flatten()
def only_keywords(*, input_shape): return nn.Flatten()

@dataclass(frozen=True)
class Net:
    """Settings as a class."""
    width: int = 6
    """Units."""
    def build(self, input_shape):
        return MLP(hidden=(self.width,)).build(input_shape)

@dataclass
class Soft:
    def build(self, input_shape): return nn.Flatten()

class Module(nn.Module): pass
'''
SHAPE = (1, 4, 4)


@pytest.fixture
def named(tmp_path: Path):
    """The backbone of an experiment file beside `net.py`."""
    (tmp_path / "net.py").write_text(NET)

    def named_(name: str, **settings) -> foreign.Foreign:
        raw = {"name": name if ":" in name else f"./net.py:{name}"} | settings
        found = foreign.backbone(raw, "backbone", str(tmp_path / "exp.yaml"))
        assert found is not None
        return found

    return named_


@pytest.fixture
def refusal(named):
    def refusal_(name: str, **settings) -> str:
        with pytest.raises(UserError) as caught:
            named(name, **settings).build(SHAPE)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refusal_


def test_a_function_and_its_settings(named):
    """Keyword settings arrive; width is that of the features; norm and dropout are converted."""
    backbone = named("make", width=3, act="tanh").build(SHAPE)
    assert backbone.width == 3 and backbone(torch.randn(5, *SHAPE)).shape == (5, 3)
    kinds = [type(layer) for layer in backbone.net]
    assert nn.Tanh in kinds and conversion.CountedDropout in kinds
    assert not conversion.unsplit(backbone)
    assert backbone.training
    named("make", width=3).build(SHAPE).net.load_state_dict(backbone.net.state_dict())


def test_a_class_with_build_and_one_of_our_backbones_in_it(named):
    net = build(named("Net", width=7), SHAPE, 4, seed=0)
    assert net.backbone.width == 7 and net(torch.randn(2, *SHAPE)).shape == (2, 4)


def test_lazy_layers_are_filled_in(named):
    """So that weights exist, and are drawn under the seed."""
    name = "backbone.net.1.weight"
    first, same, other = (
        build(named("lazy"), SHAPE, 2, seed).state_dict()[name] for seed in (0, 0, 1)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_building_leaves_statistics_and_generator_alone(named):
    """The dry pass does not move running statistics."""
    state = torch.random.get_rng_state()
    net = build(named("make"), SHAPE, 2, seed=0)
    assert torch.equal(state, torch.random.get_rng_state())
    assert net.state_dict()["backbone.net.2.num_batches_tracked"] == 0


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("make", {"widht": 3}, "unknown key 'backbone.widht'; did you mean 'width'?"),
        ("make", {"width": 2.5}, "'backbone.width' must be a whole number, not 2.5"),
        ("make", {"act": "rleu"}, "did you mean 'relu'"),
        ("make", {"p": "half"}, "'backbone.p' must be a number, not 'half'"),
        ("required", {}, "key 'backbone.width' is missing; it has no default"),
        ("strange", {}, "needs 'layer', which YAML cannot give"),
        ("optional", {"layer": 3}, "unknown key 'backbone.layer'"),
        ("image", {}, "two images gave shape (2, 4, 2, 2); expected features of shape (2, width)"),
        ("text", {}, "expected a torch.nn.Module, not str"),
        ("fails", {}, "(1, 4, 4): ValueError: no such luck (net.py, line 19)"),
        ("nothing", {}, "takes no input_shape; expected nothing(input_shape, **settings)"),
        ("only_keywords", {}, "takes no input_shape"),
        ("Soft", {}, "is no frozen dataclass; write @dataclass(frozen=True) above it"),
        ("Module", {}, "is a class without build(input_shape)"),
        ("MLP", {}, "defines no class or function 'MLP' (it only imports or assigns it)"),
        ("mkae", {}, "did you mean 'make'"),
    ],
)
def test_what_is_refused(refusal, name: str, settings: dict, sentence: str):
    assert sentence in refusal(name, **settings)


def test_the_configuration_names_the_file_and_leaves_defaults_out(named):
    """As written, not where it lies; a default that is given in full is the same run."""
    plain = plain_config(named("make", width=8, sizes=[2]), defaults=False)
    settings = {"kind": "./net.py:make"}
    assert plain == {"kind": "Foreign", "name": "./net.py:make", "settings": settings}
    full = plain_config(named("make"))["settings"]
    assert full == settings | {"width": 8, "act": "relu", "p": 0.5, "sizes": [2]}


def test_a_model_of_timm(named):
    """Without classifier, for the data's channels, the same weights for the same seed."""
    pytest.importorskip("timm")
    settings = named("timm:resnet10t", stem_width=8)
    first, same = (build(settings, (1, 16, 16), 3, seed=4) for _ in range(2))
    for name, value in first.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name
    assert first.backbone.width == 512 and first(torch.randn(2, 1, 16, 16)).shape == (2, 3)
    assert not conversion.unsplit(first)
    assert set(settings.settings.versions) == {"timm"}


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("timm:resnet10", {}, "timm has no model 'resnet10'; did you mean 'timm:resnet10t'"),
        ("timm:hf-hub:somebody/model", {}, "timm has no model 'hf-hub:somebody/model'"),
        ("timm:resnet10t", {"pretrained": True}, "is freshly initialised and takes no"),
        ("timm:resnet10t", {"checkpoint_path": "x.pt"}, "is freshly initialised and takes no"),
        ("timm:resnet10t", {"num_classes": 4}, "is not for an experiment file"),
        ("timm:resnet10t", {"act": {"a": 1}}, "'act' must be a number, a text"),
        ("timm:resnet10t", {"depht": 4}, "TypeError: ResNet.__init__() got an unexpected keyword"),
    ],
)
def test_what_timm_is_not_asked_for(refusal, name: str, settings: dict, sentence: str):
    """Nothing that would download or load weights, or change the features' shape."""
    pytest.importorskip("timm")
    assert sentence in refusal(name, **settings)


def test_without_timm_one_sentence_names_the_extra(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install tlresearch[timm]" in refusal("timm:resnet10t")
