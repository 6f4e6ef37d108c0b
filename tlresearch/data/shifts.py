"""Domains made of a domain: the controls of domain adaptation whose shift is known.

`rotated` changes the inputs, `label_shifted` the frequencies of the classes, each in the training
and in the test part; `halves` makes source and target of one domain.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from tlresearch.data.domains import Domain, Labelled
from tlresearch.errors import UserError
from tlresearch.functional import random

_CHUNK = 4096


def halves(domain: Domain) -> tuple[Domain, Domain]:
    """Two domains with no training sample in common; both have the whole test part.

    Of each class every second sample, in an order drawn by the keys of (0, "halves"); the first
    has the odd one. Other samples, not the same ones twice, are what a target has.
    """
    labels = domain.train.labels
    order = random.permutation(random.make_key(0, "halves"), len(labels))
    rank = rank_in_class(labels, order)
    parts = [(rank % 2 == half).nonzero().squeeze(1) for half in (0, 1)]
    one, other = (dataclasses.replace(domain, train=_chosen(domain.train, part)) for part in parts)
    return one, other


def rank_in_class(labels: Int64[Tensor, " n"], order: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """How many samples of its class come before each sample in an order.

    Args:
        labels: classes.
        order: a permutation of the samples.
    """
    rank = torch.empty_like(order)
    for label in labels.unique().tolist():
        members = order[labels[order] == label]
        rank[members] = torch.arange(len(members))
    return rank


def rotated(domain: Domain, degrees: float) -> Domain:
    """Every input turned counter-clockwise about its centre.

    Args:
        domain: of images, or of points in the plane, whose centre is (0, 0).
        degrees: 0 changes nothing.

    Raises:
        UserError: its inputs are features, which have no direction.
    """
    if degrees == 0:
        return domain
    turn = _turn_of(domain)
    return _mapped(domain, lambda part: Labelled(turn(part.images, degrees), part.labels))


def _turn_of(domain: Domain) -> Callable[[Tensor, float], Tensor]:
    images = domain.train.images
    if not images.is_floating_point():
        return rotated_images
    if tuple(images.shape[1:]) == (1, 1, 2):
        return rotated_points
    raise UserError(
        f"benchmark.rotation: {domain.name} is features, which cannot be turned; remove "
        "benchmark.rotation, or choose images or moons"
    )


def rotated_points(points: Float[Tensor, "n 1 1 2"], degrees: float) -> Float[Tensor, "n 1 1 2"]:
    """(x cos a − y sin a, x sin a + y cos a), a in degrees."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = points.unbind(-1)
    return torch.stack([x * cosine - y * sine, x * sine + y * cosine], -1)


def rotated_images(
    images: UInt8[Tensor, "n channels rows columns"], degrees: float
) -> UInt8[Tensor, "n channels rows columns"]:
    """Counter-clockwise about the middle, bilinear, rounded; black (0) comes in at the corners.

    Args:
        images: of any shape, which they keep.
        degrees: 90 equals `torch.rot90` where rows = columns.
    """
    rows, columns = images.shape[2:]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # From a place in the turned image to the one it comes from; rows count downwards, and both
    # sides are of length 2, so that those that are not square are stretched and shrunk again.
    back = torch.tensor(
        [[cosine, -sine * rows / columns, 0], [sine * columns / rows, cosine, 0]],
        dtype=torch.float64,
    )
    grid = F.affine_grid(back[None], [1, 1, rows, columns], align_corners=False).float()
    turned = torch.empty_like(images)
    for start in range(0, len(images), _CHUNK):
        part = images[start : start + _CHUNK].float()
        # All images and channels as the channels of one: the grid is the same.
        found = F.grid_sample(part.view(1, -1, rows, columns), grid, align_corners=False)
        turned[start : start + _CHUNK] = found.view_as(part).round_().clamp_(0, 255).byte()
    return turned


def label_shifted(domain: Domain, ratio: float) -> Domain:
    """Of class c of C a number ∝ ratio^(−c / (C − 1)): the first `ratio` times as many as the last.

    As long-tailed CIFAR (Cui et al., CVPR 2019; Cao et al., arXiv:1906.07413), in the order of the
    classes: as many samples as the numbers allow, drawn by the keys of (0, "label shift", part).

    Args:
        domain: to take samples from.
        ratio: of the most to the least frequent class, at least 1; 1 changes nothing.

    Raises:
        UserError: some class would be left with no sample.
    """
    if ratio == 1:
        return domain
    classes = len(domain.class_names)
    weight = torch.tensor([ratio ** (-c / max(classes - 1, 1)) for c in range(classes)])

    def shifted(part: Labelled, number: int) -> Labelled:
        count = part.labels.bincount(minlength=classes)
        # The rounding of the limiting class's own count must not cost it a sample.
        keep = ((count / weight).min() * weight + 1e-3).floor()
        if not bool((keep > 0).all()):
            name = domain.class_names[int((keep == 0).nonzero()[0])]
            raise UserError(
                f"benchmark.label_shift: {ratio:g} leaves no sample of class {name} in the "
                f"{('training', 'test')[number]} part of "
                f"{domain.name}; choose a ratio nearer to 1"
            )
        order = random.permutation(random.make_key(0, "label shift", number), len(part.labels))
        kept = rank_in_class(part.labels, order) < keep[part.labels]
        return _chosen(part, kept.nonzero().squeeze(1))

    train = shifted(domain.train, 0)
    test = None if domain.test is None else shifted(domain.test, 1)
    return dataclasses.replace(domain, train=train, test=test)


def _chosen(part: Labelled, places: Tensor) -> Labelled:
    return Labelled(part.images[places], part.labels[places])


def _mapped(domain: Domain, change: Callable[[Labelled], Labelled]) -> Domain:
    test = None if domain.test is None else change(domain.test)
    return dataclasses.replace(domain, train=change(domain.train), test=test)
