"""Random batches of two domains, and what every deep method of adaptation is held to."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tlresearch.adaptation.method import AdaptationMethod, DomainBatch
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.backbones.mlp import MLP
from tlresearch.training import tree
from tlresearch.training.loop import Training, fit, start
from tlresearch.training.settings import Train
from tlresearch.training.stack import stack_networks

F64 = torch.float64
SHAPE, CLASSES = (1, 4, 4), 3
TRAIN = Train(steps=5, batch_size=8, precision="fp64", optimizer="sgd", lr=0.1, momentum=0.9)
NOISY = MLP(hidden=(12, 8), norm="batch", dropout=0.3)
"""What makes a stack hard: running statistics and masks."""
PLAIN = MLP(hidden=(12, 8))
"""Neither: source and target meet nowhere but in the method's loss."""

OfSeed = Callable[[int, int], DomainBatch]
"""(seed, step) to the batch of one seed."""


def domain_batch(
    seed: int = 0,
    step: int = 0,
    source: int = 8,
    target: int = 6,
    shape: tuple[int, int, int] = SHAPE,
    classes: int = CLASSES,
    labels: str | None = None,
    shift: float = 0.7,
    steps: int = TRAIN.steps,
) -> DomainBatch:
    """Classes around centres that are the same for all seeds, the target moved by `shift`.

    Args:
        seed: of the batch.
        step: of `steps`; another one is another batch and another progress.
        source: samples; 0: the batch has none (None).
        target: likewise.
        shape: of an input.
        classes: of both domains.
        labels: of the target: `hard`, `soft` (probabilities), or None.
        shift: added to each number of a target input.
        steps: what progress is a part of.
    """
    rng = torch.Generator().manual_seed(1000 * seed + step)
    centres = torch.randn(classes, *shape, dtype=F64, generator=torch.Generator().manual_seed(7))

    def inputs(count: int) -> tuple[Tensor | None, Tensor | None]:
        y = torch.randint(classes, (count,), generator=rng)
        x = centres[y] + 0.5 * torch.randn(count, *shape, dtype=F64, generator=rng)
        return (x, y) if count else (None, None)

    of_source, of_target = inputs(source), inputs(target)
    target_x = None if of_target[0] is None else of_target[0] + shift
    pseudo: Tensor | None = None
    if labels == "hard":
        pseudo = of_target[1]
    elif labels == "soft":
        pseudo = torch.rand(target, classes, dtype=F64, generator=rng).softmax(1)
    progress = torch.tensor(step / steps, dtype=F64)
    fields: list[Any] = [*of_source, target_x, pseudo, progress]
    return DomainBatch(*fields)


def stacked(seeds: list[int], of_seed: OfSeed) -> Callable[[int], tuple[Any, ...]]:
    """What `fit` takes: the batches of all seeds by step."""

    def batch(step: int) -> tuple[Any, ...]:
        columns = zip(*(of_seed(seed, step) for seed in seeds), strict=True)
        return tuple(None if column[0] is None else torch.stack(column) for column in columns)

    return batch


def prepare(
    method: AdaptationMethod,
    backbone: Any = NOISY,
    seeds: list[int] | None = None,
    train: Train = TRAIN,
    fields: dict[str, list[float]] | None = None,
    state: Callable[[int], Any] | None = None,
    shape: tuple[int, int, int] = SHAPE,
    classes: int = CLASSES,
) -> Training:
    """A training at step 0.

    Args:
        method: what is trained.
        backbone: settings.
        seeds: of the stack; None: [0, 1, 2].
        train: settings.
        fields: of the method, a number for each seed.
        state: of a seed, in place of what `init` says.
        shape: of an input.
        classes: units of the head.
    """
    seeds = [0, 1, 2] if seeds is None else seeds
    dtype = F64 if train.precision == "fp64" else torch.float32
    networks = [method.networks(backbone, shape, classes, seed).to(dtype) for seed in seeds]
    states = [
        method.init(network) if state is None else state(seed)
        for seed, network in zip(seeds, networks, strict=True)
    ]
    own = {name: torch.tensor(values, dtype=dtype) for name, values in (fields or {}).items()}
    return start(seeds, stack_networks(networks), method, own, train, tree.stack(states))


def trained(
    method: AdaptationMethod,
    backbone: Any = NOISY,
    seeds: list[int] | None = None,
    train: Train = TRAIN,
    of_seed: OfSeed = domain_batch,
    **more: Any,
) -> Training:
    """The same at its last step, by the real loop; `more` as for `prepare`."""
    training = prepare(method, backbone, seeds, train, **more)
    fit(training, stacked(training.seeds, of_seed), train.steps)
    assert training.failures == [None] * len(training.seeds)
    return training


def networks_of(training: Training, place: int = 0) -> Any:
    """The networks of one seed."""
    return training.stack.one(place)


def weights(training: Training, place: int = 0) -> dict[str, Tensor]:
    """Weights and running statistics of one seed, by name."""
    named = training.stack.params | {k: training.stack.buffers[k] for k in training.statistics}
    return {name: tensor[place].detach().clone() for name, tensor in named.items()}


def assert_stack_equals_runs(
    method: AdaptationMethod,
    backbone: Any = NOISY,
    of_seed: OfSeed = domain_batch,
    train: Train = TRAIN,
    fields: dict[str, list[float]] | None = None,
    state: Callable[[int], Any] | None = None,
    **more: Any,
) -> None:
    """Several steps of three seeds in one program give the weights of three separate runs.

    Args:
        method: what is trained.
        backbone: settings; should have batch norm and dropout.
        of_seed: batches.
        train: settings, in float64.
        fields: numbers of the method that differ within the stack: three by name.
        state: of a seed; None: as `init` says.
        more: as for `prepare`.
    """
    seeds = [0, 1, 2]
    more |= {"state": state}
    together = trained(method, backbone, seeds, train, of_seed, fields=fields, **more)
    ends = []
    for place, seed in enumerate(seeds):
        own = {name: values[place] for name, values in (fields or {}).items()}
        alone = trained(replace(method, **own), backbone, [seed], train, of_seed, **more)
        ends.append(weights(alone))
        for name, value in weights(together, place).items():
            torch.testing.assert_close(value, ends[-1][name], atol=1e-12, rtol=1e-12, msg=name)
    first = next(iter(ends[0]))
    assert not torch.equal(ends[0][first], ends[1][first])


def assert_differs_from_source_only(
    method: AdaptationMethod,
    backbone: Any = PLAIN,
    of_seed: OfSeed = domain_batch,
    train: Train = TRAIN,
    least: float = 1e-4,
    **more: Any,
) -> None:
    """The same start, and other weights of the backbone at the end: the method is no no-op.

    Args:
        method: what is trained.
        backbone: settings; without batch norm and dropout, which would differ by themselves.
        of_seed: batches, with samples of the source.
        train: settings.
        least: norm of the difference.
        more: as for `prepare`.
    """
    plain = SourceOnly(head=method.head)
    starts = [weights(prepare(m, backbone, [0], train, **more)) for m in (method, plain)]
    shared = [name for name in starts[1] if name.startswith("backbone.")]
    assert shared and all(torch.equal(*(at[name] for at in starts)) for name in shared)
    ends = [weights(trained(m, backbone, [0], train, of_seed, **more)) for m in (method, plain)]
    gaps = [(ends[0][name] - ends[1][name]).norm() for name in shared]
    assert torch.stack(gaps).norm() > least, "the method trains the backbone as source-only does"
