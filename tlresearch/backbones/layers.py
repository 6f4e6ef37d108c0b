"""Batch norm and dropout that are exact under `vmap` and `grad`.

Both map over a seed stack with `randomness="error"`: batch norm keeps its running statistics in
stacked buffers, dropout draws its mask from a key that is a stacked buffer too.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tlresearch.functional.random import Key, bits

Normaliser = Callable[[nn.modules.batchnorm._BatchNorm, Tensor], Tensor]
"""(layer, x) to x without mean and at unit variance; see `normalising`."""

_LANES = 4
"""16-bit numbers in one 64-bit word."""

_LEVELS = 1 << 15
"""Values of a lane without its sign bit."""


def normalise_then_scale(layer: nn.modules.batchnorm._BatchNorm, x: Tensor) -> Tensor:
    """γ · (x − μ) / √(σ² + ε) + β, with γ and β outside `F.batch_norm`.

    Affine `F.batch_norm` inside `grad` inside `vmap` gives wrong second-order gradients without
    a warning (seen with torch 2.14); without affine parameters they are right. Where nobody
    differentiates twice (`fuse_norms`), the affine one is used, which is faster.
    """
    layer._check_input_dim(x)
    normaliser = getattr(layer, "normaliser", None)
    if normaliser is not None:
        return _scaled(layer, normaliser(layer, x))
    fused = getattr(layer, "fused", False)
    if layer.training and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
    assert layer.momentum is not None
    # On the CPU torch (2.14) does not normalise float16 with statistics in float32.
    wide = x.dtype == torch.float16 and x.device.type == "cpu"
    normalised = F.batch_norm(
        x.float() if wide else x,
        layer.running_mean,
        layer.running_var,
        layer.weight if fused else None,
        layer.bias if fused else None,
        training=layer.training or layer.running_mean is None,
        momentum=layer.momentum,
        eps=layer.eps,
    ).to(x.dtype)
    return normalised if fused else _scaled(layer, normalised)


def _scaled(layer: nn.modules.batchnorm._BatchNorm, normalised: Tensor) -> Tensor:
    """γ and β of each channel."""
    channels = (-1,) + (1,) * (normalised.ndim - 2)
    # Under autocast the activations are in half precision, and stay in it.
    scale = layer.weight.view(channels).to(normalised.dtype)
    shift = layer.bias.view(channels).to(normalised.dtype)
    return normalised * scale + shift


@contextmanager
def normalising(module: nn.Module, normaliser: Normaliser) -> Iterator[None]:
    """Within: all batch norms of a module take (x − μ) / √(σ² + ε) from `normaliser`.

    γ and β are applied after it; no running statistics are read or moved.

    Args:
        module: left as it was found.
        normaliser: a function of (layer, x).
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [getattr(layer, "normaliser", None) for layer in norms]
    try:
        for layer in norms:
            layer.normaliser = normaliser  # type: ignore[assignment]
        yield
    finally:
        for layer, found in zip(norms, before, strict=True):
            layer.normaliser = found  # type: ignore[assignment]


def fuse_norms(module: nn.Module, fused: bool) -> None:
    """Lets the batch norms of a module apply γ and β within `F.batch_norm`, or keep them outside.

    Args:
        module: changed in place; its parameters and buffers stay as they are.
        fused: True only where no gradient is differentiated.
    """
    for layer in module.modules():
        if isinstance(layer, BatchNorm1d | BatchNorm2d | BatchNorm3d):
            layer.fused = fused


class BatchNorm1d(nn.BatchNorm1d):
    """γ · (x − μ) / √(σ² + ε) + β, per column (Ioffe and Szegedy, arXiv:1502.03167, alg. 1).

    Parameters, buffers and values are those of `torch.nn.BatchNorm1d`; running statistics are
    updated in place, also in a stack under `vmap`.

    Args:
        num_features: columns of x.
        eps: ε.
        momentum: weight of the new batch in the running statistics, in [0, 1].
        track_running_stats: False keeps none, so that evaluation uses the batch's statistics
            and the layer can stand in an inner loop (`grad` inside `vmap`).
    """

    fused: bool = False
    """See `fuse_norms`."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, True, track_running_stats)

    def forward(
        self, input: Float[Tensor, "batch channels *length"]
    ) -> Float[Tensor, "batch channels *length"]:
        return normalise_then_scale(self, input)


class BatchNorm2d(nn.BatchNorm2d):
    """γ · (x − μ) / √(σ² + ε) + β, per channel of an image; else as `BatchNorm1d`."""

    fused: bool = False
    """See `fuse_norms`."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, True, track_running_stats)

    def forward(
        self, input: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        return normalise_then_scale(self, input)


class BatchNorm3d(nn.BatchNorm3d):
    """γ · (x − μ) / √(σ² + ε) + β, per channel of a volume; else as `BatchNorm1d`."""

    fused: bool = False
    """See `fuse_norms`."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, True, track_running_stats)

    def forward(
        self, input: Float[Tensor, "batch channels depth rows columns"]
    ) -> Float[Tensor, "batch channels depth rows columns"]:
        return normalise_then_scale(self, input)


def dropout_mask(
    key: Key, levels: int, shape: tuple[int, ...], first: int = 0
) -> Bool[Tensor, "..."]:
    """True with probability `levels` / 2¹⁵, bool of shape `shape`.

    As `random.bernoulli`, but one hashed word serves four elements: the hash is what a mask costs.

    Args:
        key: one key, shape `()`.
        levels: 0 … 2¹⁵ − 1.
        shape: of the mask.
        first: place of its first element in a larger mask, of which it is a part.
    """
    size, skipped = math.prod(shape), first % _LANES
    words = bits(key, (-(-(skipped + size) // _LANES),), first // _LANES)
    lanes = words.view(torch.int16) & (_LEVELS - 1)
    return (lanes < levels)[skipped : skipped + size].view(shape)


def drop(x: Float[Tensor, "..."], p: float, key: Key, part: int = 0) -> Float[Tensor, "..."]:
    """x ⊙ m / q with m ~ Bernoulli(q), q = 1 − p rounded to a multiple of 2⁻¹⁵ within (0, 1).

    Args:
        x: of any shape.
        p: probability to drop an element, in (0, 1).
        key: one key, shape `()`.
        part: which of the equal parts of a batch x is, from 0.
    """
    levels = min(max(1, round((1 - p) * _LEVELS)), _LEVELS - 1)
    mask = dropout_mask(key, levels, tuple(x.shape), part * x.numel())
    return x * (mask.to(x.dtype) * (_LEVELS / levels))


class Dropout(nn.Module):
    """x ⊙ m / q with m ~ Bernoulli(q), q = 1 − p, in training; x in evaluation or if p = 0.

    Srivastava et al., JMLR 15 (2014), scaled in training as is usual. q is rounded to a multiple
    of 2⁻¹⁵ and the scale uses the rounded q, so the expectation is x exactly.

    The mask is a pure function of the buffer `key`, which the training loop sets before each
    step (see `dropout_keys`); it is not part of a checkpoint. In a stack it has shape (seeds,).
    Where x is one of several equal parts of a batch, `part` says which (see `set_dropout_part`),
    so that the parts together have the mask of the whole.

    Args:
        p: probability to drop an element, in [0, 1).

    Raises:
        ValueError: p lies outside [0, 1).
    """

    key: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"the dropout probability is at least 0 and below 1, not {p}")
        self.p = p
        self.part = 0
        self.register_buffer("key", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        if not self.training or self.p == 0:
            return x
        return drop(x, self.p, self.key, self.part)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def set_dropout_part(module: nn.Module, part: int) -> None:
    """Tells every `Dropout` layer which of the equal parts of a batch, from 0, it will see."""
    for layer in module.modules():
        if isinstance(layer, Dropout):
            layer.part = part


def dropout_keys(module: nn.Module) -> list[str]:
    """Names of the `key` buffers of all `Dropout` layers, in the order of `named_modules`.

    The loop gives layer i the key `fold(make_key(seed, "dropout", step), i)`.
    """
    layers = module.named_modules()
    return [f"{name}.key".lstrip(".") for name, layer in layers if isinstance(layer, Dropout)]
