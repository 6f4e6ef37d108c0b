"""Small few-shot tasks and meta-gradients in float64, for several test files."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.mlp import MLP
from tlresearch.data.episodes import Episodes
from tlresearch.data.sinusoids import sinusoid_episodes
from tlresearch.functional.random import make_key
from tlresearch.training.loop import Training, fit, start
from tlresearch.training.settings import Train
from tlresearch.training.stack import stack_networks
from tlresearch.training.tree import stack

F64 = torch.float64
BACKBONES: dict[str, Any] = {"mlp": MLP(hidden=(6,)), "conv4": Conv4(channels=4)}
SHAPE = (1, 16, 16)
WAYS = 3


def images(seed: int = 1, tasks: int = 3, shots: int = 2, queries: int = 3) -> Episodes:
    """Noise in [0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(tasks, WAYS, shots + queries, *SHAPE, generator=generator, dtype=F64)
    return Episodes(x[:, :, :shots], x[:, :, shots:])


def sinusoids(seed: int = 1, tasks: int = 3, shots: int = 4, queries: int = 5) -> Episodes:
    """Regressions."""
    keys = make_key(seed, "test", torch.arange(tasks))
    return sinusoid_episodes(keys, shots, queries, F64)[0]


def one(batch: Episodes, place: int) -> Episodes:
    """A single episode, without the first dimension."""
    targets = (None if t is None else t[place] for t in batch[2:])
    return Episodes(batch.support_x[place], batch.query_x[place], *targets)


def build(method: Any, backbone: str, seed: int = 0) -> nn.Module:
    """The networks of a seed; scale and shift of norms are no ones and zeros."""
    networks = method.networks(BACKBONES[backbone], SHAPE, WAYS, seed).to(F64)
    generator = torch.Generator().manual_seed(seed)
    for name, p in networks.named_parameters():
        if p.ndim == 1 and not name.startswith("rates"):
            p.data += 0.3 * torch.randn(p.shape, generator=generator, dtype=F64)
    return networks


def value_of(method: Any, networks: nn.Module, batch: Episodes) -> Tensor:
    """The loss; buffers are left as they were."""
    before = [b.clone() for b in networks.buffers()]
    total = method.loss(networks, {}, batch).total
    for buffer, value in zip(networks.buffers(), before, strict=True):
        buffer.copy_(value)
    return total


def meta_gradient(method: Any, networks: nn.Module, batch: Episodes) -> dict[str, Tensor]:
    """∂ loss / ∂ parameter, by name; zeros where it does not reach."""
    named = dict(networks.named_parameters())
    total = value_of(method, networks, batch)
    slopes = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    filled = [
        torch.zeros_like(p) if g is None else g for g, p in zip(slopes, named.values(), strict=True)
    ]
    return dict(zip(named, filled, strict=True))


def central_differences(value: Callable[[], Tensor], at: Tensor, direction: Tensor) -> list[float]:
    """(f(x + hd) − f(x − hd)) / 2h for h = 1e-5, 1e-6, 1e-7; `at` is moved and put back.

    A large h crosses kinks of ReLU and max pooling where there are many, a small one rounds.
    """
    start, found = at.detach().clone(), []
    for h in (1e-5, 1e-6, 1e-7):
        values = []
        for sign in (1, -1):
            at.data.copy_(start + sign * h * direction)
            with torch.no_grad():
                values.append(value().item())
        found.append((values[0] - values[1]) / (2 * h))
    at.data.copy_(start)
    return found


def relative_errors(
    method: Any, networks: nn.Module, batch: Episodes, skip: Callable[[str], bool]
) -> dict[str, float]:
    """|⟨g, d⟩ − finite difference| / |⟨g, d⟩| for one random direction d in each parameter.

    Of the best h; the name of each parameter that `skip` does not name.
    """
    slopes = meta_gradient(method, networks, batch)
    generator = torch.Generator().manual_seed(5)
    errors = {}
    for name, p in networks.named_parameters():
        if skip(name):
            continue
        d = torch.randn(p.shape, generator=generator, dtype=F64)
        slope = (slopes[name] * d).sum().item()
        found = central_differences(lambda: value_of(method, networks, batch), p, d)
        errors[name] = min(abs(slope - one) for one in found) / abs(slope)
    return errors


def before_norm(networks: nn.Module) -> set[str]:
    """Names of the convolutions' biases, each in front of batch norm."""
    convolutions = [k for k, m in networks.named_modules() if isinstance(m, nn.Conv2d)]
    return {f"{name}.bias" for name in convolutions}


def train(
    method: Any,
    backbone: str,
    seeds: list[int],
    batch_of: Callable[[int], Episodes],
    steps: int = 3,
    fields: dict[str, list[float]] | None = None,
) -> Training:
    """Some steps of the common loop; a seed has its own episodes, `batch_of(100 · seed + step)`."""
    networks = [build(method, backbone, seed) for seed in seeds]
    state = stack([method.init(network) for network in networks])
    tensors = {name: torch.tensor(values, dtype=F64) for name, values in (fields or {}).items()}
    # Not Adam: it makes whole steps of the rounding noise in the biases in front of batch norm.
    settings = Train(steps=steps, optimizer="sgd", momentum=0.9, lr=0.05, precision="fp64")
    training = start(seeds, stack_networks(networks), method, tensors, settings, state)

    def batch(step: int) -> tuple[Tensor | None, ...]:
        columns = zip(*(batch_of(100 * seed + step) for seed in seeds), strict=True)
        return tuple(
            None if column[0] is None else torch.stack(column)  # type: ignore[arg-type]
            for column in columns
        )

    fit(training, batch, steps)
    return training


def assert_stack_is_separate_runs(method: Any, backbone: str, batch_of: Any) -> None:
    """Three seeds stacked end with the weights and buffers of three runs, to 1e-9."""
    seeds = [3, 7, 11]
    stacked = train(method, backbone, seeds, batch_of).stack
    for place, seed in enumerate(seeds):
        alone = train(method, backbone, [seed], batch_of).stack
        for ours, theirs in ((stacked.params, alone.params), (stacked.buffers, alone.buffers)):
            for name, value in theirs.items():
                torch.testing.assert_close(ours[name][place], value[0], atol=1e-9, rtol=0)
    first, second = (stacked.params["head.weight"][place] for place in (0, 1))
    assert not torch.allclose(first, second)
