"""Small random episodes, and what every method that compares is held to."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from tlresearch.data.episodes import Episodes
from tlresearch.fewshot.method import MetricMethod
from tlresearch.training.stack import stack_networks

F64 = torch.float64


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(
    ways: int = 3, shots: int = 2, queries: int = 4, dim: int = 5, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Support (ways, shots, dim) and query (queries, dim)."""
    rng = generator(seed)
    support = torch.randn(ways, shots, dim, dtype=F64, generator=rng)
    return support, torch.randn(queries, dim, dtype=F64, generator=rng)


def episodes(
    seed: int = 0,
    count: int = 2,
    ways: int = 3,
    shots: int = 2,
    queries: int = 2,
    shape: tuple[int, ...] = (1, 4, 4),
) -> Episodes:
    """Images of pure noise."""
    rng = generator(seed)
    support, query = (
        torch.rand(count, ways, n, *shape, dtype=F64, generator=rng) for n in (shots, queries)
    )
    return Episodes(support, query)


def close(ours: Tensor, other: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(ours, other, atol=atol, rtol=0)


def assert_symmetric(
    compare: Callable[[Tensor, Tensor], Tensor], support: Tensor, query: Tensor
) -> None:
    """Another order of classes, shots or queries is another order of scores, and no more."""
    scores = compare(support, query)
    assert scores.shape == (len(query), len(support))
    classes = torch.arange(len(support)).roll(1)
    close(compare(support[classes], query), scores[:, classes])
    close(compare(support.flip(1), query), scores)
    close(compare(support, query.flip(0)), scores.flip(0))


def assert_maps(
    method: MetricMethod, networks: nn.Module, state: Any, dim: int = 5, shots: int = 2
) -> None:
    """`compare` under `vmap` over episodes, and over seeds above them, is a loop over them."""
    several = [features(dim=dim, shots=shots, seed=seed) for seed in range(4)]
    support, query = (torch.stack(column) for column in zip(*several, strict=True))
    alone = torch.stack([method.compare(networks, state, *pair) for pair in several])

    def compare(s: Tensor, q: Tensor) -> Tensor:
        return method.compare(networks, state, s, q)

    close(vmap(compare)(support, query), alone)
    close(method.compare_all(networks, state, support, query), alone)
    pairs = (t.unflatten(0, (2, 2)) for t in (support, query))
    close(vmap(vmap(compare))(*pairs).flatten(0, 1), alone)


def assert_stack_equals_runs(
    method: MetricMethod,
    backbone: Any,
    batch: Callable[[int], Any],
    shape: tuple[int, int, int] = (1, 4, 4),
) -> None:
    """Loss, gradients and running statistics of three seeds in one program are those of each.

    Args:
        method: whose loss.
        backbone: settings.
        batch: of a seed.
        shape: of an image.
    """
    networks = [method.networks(backbone, shape, 3, seed).double().train() for seed in range(3)]
    batches = [batch(seed) for seed in range(3)]
    stack = stack_networks(copy.deepcopy(networks))
    stack.train()

    def loss(nets: nn.Module, *tensors: Tensor | None) -> tuple[Tensor]:
        return (method.loss(nets, {}, type(batches[0])(*tensors)).total,)

    columns = zip(*batches, strict=True)
    tensors = (None if c[0] is None else torch.stack(c) for c in columns)
    (totals,) = stack.bind(loss, [])(*tensors)
    totals.sum().backward()
    for place, (net, own) in enumerate(zip(networks, batches, strict=True)):
        alone = method.loss(net, {}, own).total
        alone.backward()
        close(totals[place], alone)
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None
            found = stack.leaves[name].grad
            assert found is not None
            turned = found[place].shape != parameter.shape
            close(found[place].T if turned else found[place], parameter.grad)
        for name, buffer in net.named_buffers():
            close(stack.buffers[name][place], buffer)
    assert len({round(total.item(), 6) for total in totals}) == 3
