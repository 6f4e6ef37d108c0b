"""Small domains with known contents, for tests of pairs."""

from typing import Any

import torch
from torch import Tensor

from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.data.domains import Domain, Labelled, Pair, Sealed
from tlresearch.data.pairs import make_pair

CPU, F64 = torch.device("cpu"), torch.float64
NAMES = ("a", "b", "c")
SETTINGS = AdaptationSettings("left", "right")


def part(counts: tuple[int, ...], first: int = 0, shape: tuple[int, ...] = (1, 2, 2)) -> Labelled:
    """`counts[c]` images of class c, the classes in turn; the pixels of image i are `first` + i."""
    rank = torch.cat([torch.arange(n) for n in counts])
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
    labels = labels[rank.argsort(stable=True)]
    pixels = (first + torch.arange(len(labels))).to(torch.uint8)
    return Labelled(pixels.view(-1, 1, 1, 1).expand(-1, *shape).contiguous(), labels)


def domain(
    name: str = "left",
    train: Labelled | None = None,
    test: Labelled | None = None,
    names: tuple[str, ...] = NAMES,
) -> Domain:
    """With 8, 6 and 4 training images and 3, 2 and 2 for the test, where nothing else is said."""
    train = part((8, 6, 4)) if train is None else train
    return Domain(name, train, part((3, 2, 2), 100) if test is None else test, names, name)


def floats(values: Any, labels: Any) -> Labelled:
    """Features (n, dim, 1, 1)."""
    rows = torch.as_tensor(values, dtype=torch.float32)
    return Labelled(rows.view(*rows.shape, 1, 1), torch.as_tensor(labels))


def pair_of(
    source: Domain | None = None,
    target: Domain | None = None,
    seeds: tuple[int, ...] = (0, 1),
    settings: AdaptationSettings = SETTINGS,
) -> tuple[Pair, Sealed]:
    """On the CPU, in float64."""
    target = domain("right", part((5, 9, 7), 40)) if target is None else target
    return make_pair(settings, source or domain(), target, list(seeds), CPU, F64)


def sets(pools: list[Tensor]) -> list[set[int]]:
    """Each pool as a set; none has a place twice."""
    found = [set(pool.tolist()) for pool in pools]
    assert [len(one) for one in found] == [len(pool) for pool in pools]
    return found
