"""Backbones that are not ours: own code (`./net.py:make`) and models of timm (`timm:NAME`).

Both become settings like those of our own backbones, and a module that maps images to features:
its norms and its dropout are made exact under `vmap` (`backbones.conversion`), its width is found
by a pass of two empty images.
"""

import copy
import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tlresearch import own, schema
from tlresearch.backbones import conversion, timm_models
from tlresearch.backbones.classifier import Backbone
from tlresearch.errors import UserError


@dataclass(frozen=True)
class Foreign:
    """A backbone of somebody else's making."""

    name: str
    """As in the experiment file, e.g. `./net.py:make` or `timm:resnet18`."""
    settings: Any
    """A frozen dataclass whose `build(input_shape)` returns a module from images to features."""

    def build(self, input_shape: tuple[int, int, int]) -> "Fitted":
        """The backbone for images of shape (channels, rows, columns), from torch's generator.

        Raises:
            UserError: it cannot be built, or does not return (batch, width).
        """
        at = f"backbone {self.name}, for images of shape {input_shape}"
        with own.blamed(at):
            net = self.settings.build(input_shape)
            if not isinstance(net, nn.Module):
                raise UserError(f"{at}: expected a torch.nn.Module, not {type(net).__name__}")
            features = _dry_features(net, input_shape)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 2:
            found = getattr(features, "shape", None)
            shown = type(features).__name__ if found is None else f"shape {tuple(found)}"
            raise UserError(
                f"{at}: two images gave {shown}; expected features of shape (2, width), so let it "
                "end in pooling or nn.Flatten and leave out the classifier"
            )
        conversion.convert(net)
        return Fitted(net, features.shape[1])


class Fitted(Backbone):
    """The foreign module as a backbone; its parameters are named `net.…`.

    Args:
        net: maps images to features.
        width: numbers in a feature vector.
    """

    def __init__(self, net: nn.Module, width: int) -> None:
        super().__init__()
        self.net = net
        self.width = width

    def features(self, x: Tensor) -> Tensor:
        """The feature vector of each image of the batch."""
        conversion.restart(self.net)
        return self.net(x)

    def initialise_linear(self, linear: nn.Linear) -> None:
        """As the module wishes, if it is one of our backbones; else torch's default."""
        if isinstance(self.net, Backbone):
            self.net.initialise_linear(linear)


def _dry_features(net: nn.Module, input_shape: tuple[int, int, int]) -> Any:
    """What two empty images give in evaluation mode; also fills in torch's lazy layers."""
    net.eval()
    with torch.no_grad():
        features = net(torch.zeros(2, *input_shape))
    net.train()
    return features


def backbone(raw: Mapping[str, Any], place: str, where: str) -> Foreign | None:
    """The foreign backbone that `raw["name"]` stands for, with its settings; None for another name.

    Args:
        raw: `name` and settings, as the experiment file gives them.
        place: dotted key of `raw`.
        where: the experiment file.

    Raises:
        UserError: it cannot be had, or refuses its settings.
    """
    name = raw.get("name")
    given = {key: value for key, value in raw.items() if key != "name"}
    at = f"{where}: '{place}'"
    if timm_models.is_timm(name):
        return Foreign(str(name), timm_models.settings(str(name), given, at))
    if not own.is_own(name):
        return None
    kind = settings_class(str(name), Path(where).parent, at)
    with own.blamed(f"{at}: {name} refuses its settings"):
        return Foreign(str(name), schema.structure(given, kind, place, where))


def settings_class(name: str, folder: Path, at: str) -> type:
    """The settings that `FILE.py:NAME` takes: the class itself, or a function's as a dataclass.

    Args:
        name: a function `make(input_shape, **settings)` that returns the module, or a frozen
            dataclass with `build(input_shape)`.
        folder: what the file's path is relative to.
        at: file and key, the opening of an error.

    Raises:
        UserError: it is neither.
    """
    found = own.named(name, folder, at)
    if isinstance(found, type):
        if not callable(getattr(found, "build", None)):
            raise UserError(
                f"{at}: {name} is a class without build(input_shape); name a function "
                "make(input_shape, **settings) that returns the module, or give the class one"
            )
        own.check_settings(found, f"{at}: {name}")
        return found
    return _from_signature(found, name.rpartition(":")[2], f"{at}: {name}")


def _from_signature(function: Callable[..., Any], name: str, at: str) -> type:
    """A frozen dataclass with the keyword settings of a function, whose `build` calls it."""
    parameters = list(inspect.signature(function).parameters.values())
    by_keyword = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    if not parameters or parameters[0].kind in by_keyword:
        raise UserError(f"{at} takes no input_shape; expected {name}(input_shape, **settings)")
    with own.blamed(f"{at} has an annotation that cannot be read"):
        hints = typing.get_type_hints(function, include_extras=True)
    fields: list[tuple[str, Any, Any]] = []
    for p in parameters[1:]:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        hint = hints.get(p.name, _type_of(p.default))
        if own.readable(hint) and p.kind is not p.POSITIONAL_ONLY:
            fields.append((p.name, hint, _field(p.default)))
        elif p.default is p.empty:
            raise UserError(
                f"{at} needs '{p.name}', which YAML cannot give ({hint}); give it a default"
            )

    def build(self: Any, input_shape: tuple[int, int, int]) -> Any:
        return function(input_shape, **{key: getattr(self, key) for key, *_ in fields})

    body = {"build": build, "__doc__": inspect.getdoc(function) or f"`{name}`."}
    kind = dataclasses.make_dataclass(name, fields, frozen=True, kw_only=True, namespace=body)
    kind.__module__ = function.__module__
    return kind


def _type_of(default: Any) -> Any:
    """The type that a parameter without annotation has by its default."""
    return type(default) if isinstance(default, bool | int | float | str) else Any


def _field(default: Any) -> Any:
    if default is inspect.Parameter.empty:
        return dataclasses.field()
    if isinstance(default, list | dict | set):
        return dataclasses.field(default_factory=lambda: copy.copy(default))
    return dataclasses.field(default=default)
