"""Models of timm (Wightman, github.com/huggingface/pytorch-image-models) as backbones.

`timm:NAME` is `timm.create_model(NAME)` without its classifier, its first layer made for the
data's channels, freshly initialised. timm is imported when an experiment names one of its models.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tlresearch.errors import UserError

PREFIX = "timm:"

_OURS = ("model_name", "num_classes", "in_chans", "scriptable", "exportable", "no_jit")
_WEIGHTS = ("pretrained", "checkpoint", "cache_dir")
_SHAPE = ("features_only", "out_indices", "global_pool")


@dataclass(frozen=True)
class Timm:
    """A model of timm without its classifier."""

    model: str
    """Its name there."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What its constructor is given beside timm's own choice, e.g. `img_size`."""

    @property
    def versions(self) -> dict[str, str]:
        """For the record."""
        return {"timm": _timm(f"{PREFIX}{self.model}").__version__}

    def build(self, input_shape: tuple[int, int, int]) -> nn.Module:
        """The model for images of shape (channels, rows, columns), from torch's generator."""
        return _timm(f"{PREFIX}{self.model}").create_model(
            self.model, pretrained=False, num_classes=0, in_chans=input_shape[0], **self.arguments
        )


def is_timm(name: Any) -> bool:
    """Whether a name has the form `timm:NAME`."""
    return isinstance(name, str) and name.startswith(PREFIX)


def settings(name: str, given: Mapping[str, Any], at: str) -> Timm:
    """The settings of `timm:NAME`.

    Args:
        name: with its prefix.
        given: numbers, texts, true or false, or lists of them, for the model's constructor.
        at: file and key, the opening of an error.

    Raises:
        UserError: timm is not installed or has no such model; a setting is not for the user.
    """
    model = name.removeprefix(PREFIX)
    known = _timm(f"{at}: {name}").list_models()
    if model not in known:
        near = difflib.get_close_matches(model.lower(), known)
        hint = "did you mean " + " or ".join(f"'{PREFIX}{n}'" for n in near) + "? " if near else ""
        raise UserError(
            f"{at}: timm has no model '{model}'; {hint}timm.list_models() names all of them"
        )
    for key, value in ((str(k), v) for k, v in given.items()):
        if key.startswith(_WEIGHTS):
            raise UserError(
                f"{at}: {name} is freshly initialised and takes no '{key}'; leave it out"
            )
        if key in (*_OURS, *_SHAPE):
            raise UserError(f"{at}: '{key}' of {name} is not for an experiment file; leave it out")
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, bool | int | float | str) for item in items):
            raise UserError(f"{at}: '{key}' must be a number, a text, true or false, or a list")
    return Timm(model, dict(given))


def summary(name: str) -> str:
    """A paragraph about `timm:NAME`, from an instance of it.

    Raises:
        UserError: as `settings`.
    """
    chosen = settings(name, {}, "describe")
    timm = _timm(name)
    net: Any = chosen.build((3, 224, 224))
    count = sum(p.numel() for p in net.parameters())
    _, rows, columns = net.pretrained_cfg.get("input_size", (3, 224, 224))
    return (
        f"{name} (backbone): the model {chosen.model} of timm {timm.__version__}, freshly "
        f"initialised, without its classifier: {count:,} parameters and features of width "
        f"{net.num_features} with 3 channels; timm's own training images were {rows} x {columns}. "
        f"Further keys go to its constructor, such as img_size where the model has it."
    )


def _timm(at: str) -> Any:
    try:
        import timm
    except ImportError:
        raise UserError(
            f"{at}: models of timm need the package timm; pip install tlresearch[timm]"
        ) from None
    return timm
