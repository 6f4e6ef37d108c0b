"""From two names to what training may see, and what is sealed."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlresearch.data import domain_tables, shifts
from tlresearch.data.domains import Domain, Labelled, Opened, Pair, Sealed, Unlabelled
from tlresearch.errors import UserError
from tlresearch.functional import random

_CHUNK = 4096


def load_pair(
    settings: Any,
    seeds: list[int],
    device: torch.device,
    dtype: torch.dtype,
    root: Path | None = None,
    oracle: bool = False,
) -> tuple[Pair, Sealed]:
    """The pair of domains that an `AdaptationSettings` names, and the target's labels under seal.

    Args:
        settings: an `AdaptationSettings`.
        seeds: of the stack.
        device: where the data are held.
        dtype: of the networks.
        root: data root; None: where the environment says.
        oracle: whether the target, with its labels, takes the source's place.

    Raises:
        UserError: a domain is unknown, missing, damaged, empty or lacks a class; or the two have
            other classes or shapes.
    """
    source, target = domains(settings, root)
    if oracle:
        source = target
    return make_pair(settings, source, target, seeds, device, dtype, oracle)


def domains(settings: Any, root: Path | None = None) -> tuple[Domain, Domain]:
    """Source and target as the settings make them: resized, cut in halves, turned, subsampled.

    Raises:
        UserError: as `load_pair`.
    """
    source, target = (
        domain_tables.prepared(name, settings.size, settings.channels, settings.counts, root)
        for name in (settings.source, settings.target)
    )
    if settings.source == settings.target:
        source, target = shifts.halves(source)
    target = shifts.rotated(target, float(settings.rotation))
    return source, shifts.label_shifted(target, float(settings.label_shift))


def make_pair(
    settings: Any,
    source: Domain,
    target: Domain,
    seeds: list[int],
    device: torch.device,
    dtype: torch.dtype,
    oracle: bool = False,
) -> tuple[Pair, Sealed]:
    """As `load_pair`, of domains that were read; with `oracle` the source is the target itself."""
    _check(source, target)
    wanted = _target_pool if oracle else _source_samples
    pools = [
        _source_pools(settings, source, seed, wanted(settings, source, seed)) for seed in seeds
    ]
    target_pools = [_target_pool(settings, target, seed) for seed in seeds]
    scale, shift = _normalisation(settings.normalise, source, target, dtype)
    pair = Pair(
        seeds=list(seeds),
        source=source.train.to(device),
        target=Unlabelled(target.train.images.to(device)),
        source_pools=[kept.to(device) for kept, _ in pools],
        held_out_pools=[held.to(device) for _, held in pools],
        target_pools=[pool.to(device) for pool in target_pools],
        classes=len(source.class_names),
        scale=scale.to(device),
        shift=shift.to(device),
    )
    labels = [target.train.labels[pool].to(device) for pool in target_pools]
    measured = target.train if settings.evaluate == "training" or not target.test else target.test
    source_test = source.test and source.test.to(device)
    return pair, Sealed.of(Opened(measured.to(device), labels, source_test))


def _check(source: Domain, target: Domain) -> None:
    for key, domain in (("source", source), ("target", target)):
        for part, what in ((domain.train, ""), (domain.test, "the test part of ")):
            if part is not None:
                _check_part(part, f"benchmark.{key}: {what}{domain.name}", len(domain.class_names))
    if source.class_names != target.class_names:
        raise UserError(
            f"benchmark.target: {target.name} has the classes {_told(target.class_names)}, and "
            f"{source.name} has {_told(source.class_names)}; both must have the same ones"
        )
    shapes = [tuple(domain.train.images.shape[1:]) for domain in (source, target)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"benchmark.target: an input of {target.name} is {_size(shapes[1])} (channels x rows x "
            f"columns), and one of {source.name} {_size(shapes[0])}; set benchmark.size and "
            "benchmark.channels, which make images alike"
        )
    if source.train.images.is_floating_point() != target.train.images.is_floating_point():
        features, pixels = (
            (source, target) if source.train.images.is_floating_point() else (target, source)
        )
        raise UserError(
            f"benchmark.target: {features.name} is features and {pixels.name} pixels; both must be "
            "of one kind"
        )
    for key, domain in (("source", source), ("target", target)):
        parts = [domain.train, *([domain.test] if domain.test else [])]
        first, last = (_size(tuple(part.images.shape[1:])) for part in (parts[0], parts[-1]))
        if first != last:
            raise UserError(
                f"benchmark.{key}: the test part of {domain.name} has inputs of {last}, and its "
                f"training part of {first}; both must be alike"
            )
    missing = sorted(set(range(len(source.class_names))) - set(source.train.labels.tolist()))
    if missing:
        names = ", ".join(source.class_names[c] for c in missing)
        raise UserError(
            f"benchmark.source: {source.name} has no sample of {names}; every class of the target "
            "needs labelled samples"
        )


def _check_part(part: Labelled, name: str, classes: int) -> None:
    images = part.images
    if not len(images):
        raise UserError(f"{name} is empty; it needs samples")
    if len(part.labels) != len(images):
        raise UserError(
            f"{name} has {len(images)} inputs and {len(part.labels)} labels; it needs one for each"
        )
    low, high = (int(bound) for bound in part.labels.aminmax())
    if low < 0 or high >= classes:
        raise UserError(
            f"{name} has labels from {low} to {high}; {classes} classes are 0 to {classes - 1}"
        )
    if images.is_floating_point() and not bool(images.isfinite().all()):
        row = int((~images.isfinite().flatten(1).all(1)).nonzero()[0])
        raise UserError(
            f"{name} has a feature that is not finite, first in sample {row}; mend or remove that "
            "sample"
        )


def _told(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:10])}{', …' if len(names) > 10 else ''} ({len(names)})"


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _source_samples(settings: Any, source: Domain, seed: int) -> Tensor:
    """Places of the samples that are used at all."""
    labels = source.train.labels
    if settings.source_samples is None:
        return torch.arange(len(labels))
    return _balanced(labels, settings.source_samples, seed)


def _source_pools(
    settings: Any, source: Domain, seed: int, chosen: Tensor
) -> tuple[Tensor, Tensor]:
    """Of the chosen places those that are trained on and those that are held out, rising."""
    labels, chosen = source.train.labels, chosen.sort().values
    is_held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist() if settings.validation else []:
        members = chosen[labels[chosen] == label]
        order = random.permutation(random.make_key(seed, "validation", label), len(members))
        is_held[members[order[: round(settings.validation * len(members))]]] = True
    kept, held = chosen[~is_held[chosen]], chosen[is_held[chosen]]
    if not len(kept) or (settings.validation and not len(held)):
        raise UserError(
            f"benchmark.validation: {settings.validation:g} of {len(chosen)} samples of "
            f"{source.name} leaves none to train on or to be held out; choose another fraction"
        )
    lost = set(range(len(source.class_names))) - set(labels[kept].tolist())
    if lost:
        raise UserError(
            f"benchmark.source_samples, benchmark.validation: of {source.name}'s class "
            f"{source.class_names[min(lost)]} no sample is left to train on; take more samples or "
            "hold out fewer"
        )
    return kept, held


def _balanced(labels: Tensor, samples: int, seed: int) -> Tensor:
    """`samples` places, as equally many of each class as possible, in rising order."""
    if samples > len(labels):
        raise UserError(
            f"benchmark.source_samples: {samples} were asked for and there are {len(labels)}"
        )
    order = random.permutation(random.make_key(seed, "source samples"), len(labels))
    rank = shifts.rank_in_class(labels, order)
    first = order[rank[order].argsort(stable=True)]
    return first[:samples].sort().values


def _target_pool(settings: Any, target: Domain, seed: int) -> Tensor:
    """Places in an order of the seed's: that of the files may be by class, and so tell labels."""
    total = len(target.train.images)
    wanted = settings.target_samples or total
    if wanted > total:
        raise UserError(
            f"benchmark.target_samples: {wanted} were asked for and {target.name} has {total}"
        )
    return random.permutation(random.make_key(seed, "target samples"), total)[:wanted]


def _normalisation(
    kind: str, source: Domain, target: Domain, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Factor and shift of an input, the same for both domains."""
    one, none = torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype)
    floating = source.train.images.is_floating_point()
    if kind == "none" or (floating and kind != "mean"):
        return one, none
    if kind == "half":
        return one * (2 / 255), one
    scale = one if floating else one / 255
    if kind == "unit":
        return scale, none
    means = [_mean(domain.train.images) for domain in (source, target)]
    return scale, (sum(means, torch.zeros(())) / 2).to(dtype) * scale


def _mean(images: Tensor) -> Tensor:
    """Of each place of an input, in float64."""
    total = sum((part.double().sum(0) for part in images.split(_CHUNK)), torch.zeros(()))
    return total / len(images)
