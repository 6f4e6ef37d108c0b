"""Whose mean and variance batch norm uses in an inner loop.

Support passes always use the statistics of the support set. A query pass uses, for each channel,

- `transductive`: those of the task's queries, all of them at once. Every published number of
  MAML on Omniglot and mini-ImageNet is of this kind (Nichol et al., arXiv:1803.02999, section
  6.2, who measure up to 3 points for it). A prediction then depends on the other queries.
- `support`: those of the support set under the same weights; a query is predicted on its own.
- `running`: in training those of the queries; in evaluation their running average over
  meta-training, taken at the last inner step (Ioffe and Szegedy, arXiv:1502.03167).
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlresearch.backbones.layers import normalising
from tlresearch.errors import UserError

Statistics = Literal["transductive", "support", "running"]

Seen = dict[str, tuple[Tensor, Tensor]]
"""Mean and unbiased variance that each batch norm saw, by the layer's name: (channels,) each."""

Call = Callable[[Tensor], Tensor]


def prepare_norms(networks: nn.Module, statistics: Statistics) -> None:
    """Takes running statistics from the batch norms that shall not have them, in place.

    Raises:
        UserError: `running` is asked of norms that keep none, or anything but `transductive` of
            a norm without scale and shift, which is not ours.
    """
    for name, layer in _norms(networks).items():
        if statistics != "transductive" and layer.weight is None:
            raise UserError(
                f"statistics: {statistics!r} needs batch norms with scale and shift, but {name} "
                "has none; set statistics: transductive or build it with affine=True"
            )
        if statistics == "running":
            if layer.running_mean is None:
                raise UserError(
                    f"statistics: 'running' needs batch norms that keep running averages, but "
                    f"{name} keeps none; set backbone.statistics: running, or statistics to "
                    "transductive or support"
                )
        else:
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
            layer.track_running_stats = False


def support_pass(
    networks: nn.Module, statistics: Statistics, call: Call, support: Tensor
) -> Tensor:
    """Outputs for the support set, normalised by itself; no buffer is moved.

    Args:
        networks: prepared by `prepare_norms`.
        statistics: as there.
        call: one forward pass through `networks`.
        support: (samples, *shape).
    """
    if statistics != "running":
        return call(support)
    with normalising(networks, _by_itself):
        return call(support)


def query_pass(
    networks: nn.Module,
    statistics: Statistics,
    call: Call,
    support: Tensor,
    query: Tensor,
    seen: Seen,
) -> Tensor:
    """Outputs for the queries; see the head of this file.

    Args:
        networks: prepared by `prepare_norms`; its mode decides what `running` means.
        statistics: as there.
        call: one forward pass through `networks`.
        support: (samples, *shape), looked at by `support` only.
        query: (queries, *shape).
        seen: filled by `running` in training.
    """
    if statistics == "transductive" or not _norms(networks):
        return call(query)
    if statistics == "support":
        with normalising(networks, _by_first(len(support))):
            return call(torch.cat([support, query]))[len(support) :]
    names = {layer: name for name, layer in _norms(networks).items()}

    def remembered(layer: _BatchNorm, x: Tensor) -> Tensor:
        mean, variance = _moments(layer, x)
        samples = x.numel() // x.shape[1]
        unbiased = variance * (samples / max(samples - 1, 1))
        seen[names[layer]] = (mean.detach(), unbiased.detach())
        return _normalised(layer, x, mean, variance)

    with normalising(networks, remembered if networks.training else _by_average):
        return call(query)


def update_running(networks: nn.Module, seen: Seen) -> None:
    """r ← (1 − m) r + m s, in place, for the mean and variance s of each batch norm."""
    for name, (mean, variance) in seen.items():
        layer = networks.get_submodule(name)
        assert isinstance(layer, _BatchNorm) and layer.momentum is not None
        assert layer.running_mean is not None and layer.running_var is not None
        for buffer, new in ((layer.running_mean, mean), (layer.running_var, variance)):
            buffer.mul_(1 - layer.momentum).add_(layer.momentum * new.to(buffer.dtype))
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)


def _norms(networks: nn.Module) -> dict[str, _BatchNorm]:
    return {k: m for k, m in networks.named_modules() if isinstance(m, _BatchNorm)}


def _wide(x: Tensor) -> Tensor:
    """Statistics of half precision are computed in float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _moments(layer: _BatchNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel: (channels,)."""
    dims = [0, *range(2, x.ndim)]
    variance, mean = torch.var_mean(_wide(x), dims, correction=0)
    return mean, variance


def _normalised(layer: _BatchNorm, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    channels = (-1,) + (1,) * (x.ndim - 2)
    scale = (variance + layer.eps).rsqrt()
    return ((_wide(x) - mean.view(channels)) * scale.view(channels)).to(x.dtype)


def _by_itself(layer: _BatchNorm, x: Tensor) -> Tensor:
    return _normalised(layer, x, *_moments(layer, x))


def _by_first(rows: int) -> Callable[[_BatchNorm, Tensor], Tensor]:
    return lambda layer, x: _normalised(layer, x, *_moments(layer, x[:rows]))


def _by_average(layer: _BatchNorm, x: Tensor) -> Tensor:
    assert layer.running_mean is not None and layer.running_var is not None
    return _normalised(layer, x, layer.running_mean, layer.running_var)
