"""Layers of foreign modules, made exact under `vmap`: split norms, dropout with a key.

Affine batch norm, layer norm and instance norm, as torch has them, give wrong second-order
gradients inside `grad` inside `vmap`, without a warning (seen with torch 2.14; group norm is
right). Without affine parameters they are right, so scale and shift are applied outside. A
converted layer is the same object with another class: its names, parameters, buffers, hooks and
whoever holds it stay as they were.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from tlresearch.backbones import layers
from tlresearch.functional.random import fold

_NORMS = (_BatchNorm, _InstanceNorm, nn.LayerNorm)
"""The kinds whose affine form is wrong in second order under `vmap`."""


class CountedDropout(layers.Dropout):
    """Our `Dropout` in the place of torch's: a mask of its own at each call of a forward pass.

    A foreign module may call one layer at several places. `calls` goes back to 0 when the pass
    begins (`restart`), so that a step depends on its key alone.
    """

    calls: int = 0
    part: int = 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        key = fold(self.key, self.calls)
        self.calls += 1
        return layers.drop(x, self.p, key, self.part)


def convert(module: nn.Module) -> None:
    """Changes norms and dropout inside a module, and itself, into exact ones, in place.

    `state_dict` stays as it is. What cannot be converted exactly stays: a norm that has no bias,
    or a cumulative average, or a forward pass of its own (see `unsplit`); dropout that drops all.
    """
    for layer in module.modules():
        if type(layer) is nn.Dropout and layer.p < 1:
            _become(layer, CountedDropout)
            layer.register_buffer("key", torch.zeros((), dtype=torch.int64), persistent=False)
        elif isinstance(layer, _NORMS) and _can_split(layer):
            _become(layer, _split(type(layer)) or type(layer))


def _become(layer: Any, kind: type[nn.Module]) -> None:
    """The same object with another class, as torch's lazy modules do."""
    layer.__class__ = kind


def restart(module: nn.Module) -> None:
    """To be called before each forward pass of a converted module."""
    for layer in module.modules():
        if isinstance(layer, CountedDropout):
            layer.calls = 0


def unsplit(module: nn.Module) -> list[str]:
    """Names and kinds of the affine norms that are wrong in second order under `vmap`."""
    return [
        f"{name or 'itself'} ({type(layer).__name__})"
        for name, layer in module.named_modules()
        if isinstance(layer, _NORMS)
        and getattr(layer, "weight", None) is not None
        and not _is_split(type(layer))
    ]


def _can_split(layer: Any) -> bool:
    if layer.weight is None or layer.bias is None or _is_split(type(layer)):
        return False
    if isinstance(layer, nn.LayerNorm):
        return True
    tracked = layer.track_running_stats == (layer.running_mean is not None)
    return layer.momentum is not None and tracked


def _is_split(kind: type) -> bool:
    ours = (layers.BatchNorm1d, layers.BatchNorm2d, layers.BatchNorm3d)
    return issubclass(kind, ours) or "_split" in vars(kind)


@cache
def _split(kind: type[nn.Module]) -> type[nn.Module] | None:
    """The class of a norm with scale and shift outside; None if its forward pass is unknown."""
    ours: dict[type, type[nn.Module]] = {
        nn.BatchNorm1d: layers.BatchNorm1d,
        nn.BatchNorm2d: layers.BatchNorm2d,
        nn.BatchNorm3d: layers.BatchNorm3d,
    }
    if kind in ours:
        return ours[kind]
    changed: dict[str, Callable[[Any, Tensor], Tensor]] = {}
    if f"{kind.__module__}.{kind.__name__}" == "timm.layers.norm_act.BatchNormAct2d":
        changed["forward"] = _norm_and_activation
    elif kind.forward is _BatchNorm.forward:
        changed["forward"] = layers.normalise_then_scale
    elif kind.forward is nn.LayerNorm.forward:
        changed["forward"] = _layer_norm
    elif kind.forward is _InstanceNorm.forward:
        changed["_apply_instance_norm"] = _instance_norm
    return type(f"Split{kind.__name__}", (kind,), changed | {"_split": True}) if changed else None


def _norm_and_activation(layer: Any, x: Tensor) -> Tensor:
    return layer.act(layer.drop(layers.normalise_then_scale(layer, x)))


def _layer_norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    normalised = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    return normalised * layer.weight.to(normalised.dtype) + layer.bias.to(normalised.dtype)


def _instance_norm(layer: Any, x: Tensor) -> Tensor:
    normalised = F.instance_norm(
        x,
        layer.running_mean,
        layer.running_var,
        use_input_stats=layer.training or not layer.track_running_stats,
        momentum=layer.momentum,
        eps=layer.eps,
    )
    channels = (-1,) + (1,) * (x.ndim - 2)
    scale = layer.weight.view(channels).to(normalised.dtype)
    return normalised * scale + layer.bias.view(channels).to(normalised.dtype)
