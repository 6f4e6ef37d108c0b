"""Streams of tasks: one data set cut, permuted or rotated into T tasks, in three scenarios.

van de Ven and Tolias, arXiv:1904.07734, section 2. The scenario only says what a head's unit
means and which units are active, so that shapes never change:

- `task`: the task is known at test time; only its own units are active.
- `domain`: all tasks share the units; the unit is the class's place within its task.
- `class`: all classes seen so far compete, and the task has to be inferred.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from tlresearch.data.catalogue import ImageData, Split
from tlresearch.errors import UserError
from tlresearch.functional import random
from tlresearch.settings import Bounds

Scenario = Literal["task", "domain", "class"]


@dataclass(frozen=True)
class StreamSettings:
    """A stream of tasks made from one data set."""

    dataset: str
    """Name of a data set; `tlresearch data` lists them."""
    stream: Literal["split", "permuted", "rotated"] = "split"
    """Split by classes; or all classes, the pixels permuted or the image rotated by task."""
    scenario: Scenario = "class"
    """Task-, domain- or class-incremental."""
    tasks: Annotated[int, Bounds(ge=1)] = 5
    """T, the number of tasks."""
    class_order: Literal["fixed", "random"] = "fixed"
    """Split: classes in the data set's order, or in an order drawn per seed."""
    validation: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Fraction of the training images that is held out from training, drawn per seed and class."""
    evaluate: Literal["test", "validation"] = "test"
    """What the accuracy matrix is measured on; hyperparameters are chosen on `validation`."""
    pad: Annotated[int, Bounds(ge=0)] = 0
    """Zero pixels added on each side of an image (2 makes MNIST 32x32)."""
    max_angle: Annotated[float, Bounds(ge=0, le=360)] = 180.0
    """Rotated: task t of T turns the image by t/T of this many degrees."""


@dataclass(frozen=True)
class Pool:
    """What one seed may draw from: images and the task that each belongs to."""

    images: Int64[Tensor, " samples"]
    """Indices into the stream's images."""
    tasks: Int64[Tensor, " samples"]
    """Task of each sample, from 0."""


@dataclass(frozen=True)
class TaskStream:
    """T tasks for S seeds. Images are held once; seeds and tasks are indices into them."""

    settings: StreamSettings
    seeds: list[int]
    train: Split
    evaluation: Split
    units: int
    """Units of the head."""
    unit_of: Int64[Tensor, "seeds tasks classes"]
    """Head unit of each class in each task; −1 where the task lacks the class."""
    train_pools: list[list[Pool]]
    """[seed][task]: what a task trains on."""
    held_out_pools: list[list[Pool]]
    """[seed][task]: what was held out of the training data; empty without `validation`."""
    evaluation_pools: list[list[Pool]]
    """[seed][task]: what the accuracy matrix is measured on."""
    permutations: Int64[Tensor, "seeds tasks pixels"] | None = None
    angles: Float[Tensor, " tasks"] | None = None
    """Degrees."""
    scale: Float[Tensor, ""] = field(default_factory=lambda: torch.tensor(1 / 255))
    """What a pixel is multiplied by; its dtype is that of the inputs."""
    streamed: bool = False
    """Whether the images stay on the host, and batches are fetched ahead of their use."""

    @property
    def tasks(self) -> int:
        """T."""
        return self.settings.tasks

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an input."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def active(self, stage: int) -> Bool[Tensor, "seeds tasks units"] | None:
        """Active units for a sample of each task after `stage` + 1 tasks; None: all.

        task: the units of the sample's own task. class: the units of the tasks so far, whatever
        the sample's task. domain: None.
        """
        scenario = self.settings.scenario
        if scenario == "domain":
            return None
        own = F.one_hot(self.unit_of.clamp_min(0), self.units).bool()
        own = (own & (self.unit_of >= 0).unsqueeze(-1)).any(2)
        if scenario == "task":
            return own
        return own[:, : stage + 1].any(1, keepdim=True).expand_as(own)

    def inputs(
        self,
        images: UInt8[Tensor, "seeds batch channels height width"],
        tasks: Tensor,
        seeds: Tensor,
    ) -> Float[Tensor, "seeds batch channels height width"]:
        """Pixels in [0, 1] as the tasks show them: permuted or rotated.

        Args:
            images: raw pixels.
            tasks: int64 (seeds, batch), the task of each image.
            seeds: int64 (seeds,), places in `self.seeds` (not the seeds themselves).
        """
        x = images * self.scale
        if self.permutations is not None:
            order = self.permutations[seeds.unsqueeze(1), tasks]
            return x.flatten(2).gather(2, order).view(x.shape)
        if self.angles is not None:
            return _rotate(x, self.angles.to(x)[tasks])
        return x


def _rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Rotates counter-clockwise about the centre, bilinear, zeros outside."""
    angle = torch.deg2rad(degrees).flatten()
    zero = torch.zeros_like(angle)
    rows = [torch.stack([angle.cos(), -angle.sin(), zero], -1)]
    rows.append(torch.stack([angle.sin(), angle.cos(), zero], -1))
    flat = x.flatten(0, 1)
    grid = F.affine_grid(torch.stack(rows, 1), list(flat.shape), align_corners=False)
    return F.grid_sample(flat, grid, align_corners=False).view(x.shape)


def make_stream(
    settings: StreamSettings,
    data: ImageData,
    seeds: list[int],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    streamed: bool = False,
) -> TaskStream:
    """The stream of each seed, on `device`, its inputs in `dtype`; streamed images on the host.

    Raises:
        UserError: the settings ask for what the data set does not have.
    """
    classes = len(data.class_names)
    check_stream(settings, classes)
    per_task = classes // settings.tasks if settings.stream == "split" else classes
    orders = [_class_order(settings, seed, classes) for seed in seeds]
    unit_of = torch.stack([_units(settings, order, per_task) for order in orders])
    place = "cpu" if streamed else device
    train, test = _prepare(data.train, settings.pad, place, device), None
    kept, held = _hold_out(data.train.labels, settings.validation, seeds)
    if settings.evaluate == "test":
        test = _prepare(data.test, settings.pad, place, device)
        whole = [torch.arange(len(data.test.labels))] * len(seeds)
        evaluation = _pools(data.test.labels, whole, unit_of, device)
    else:
        evaluation = _pools(data.train.labels, held, unit_of, device)
    train_pools = _pools(data.train.labels, kept, unit_of, device)
    held_out_pools = _pools(data.train.labels, held, unit_of, device)
    needed = [train_pools, evaluation] + ([held_out_pools] if settings.validation else [])
    _refuse_empty(settings, needed)
    pixels = train.images[0].numel()
    return TaskStream(
        settings=settings,
        seeds=list(seeds),
        train=train,
        evaluation=train if test is None else test,
        units=int(unit_of.max()) + 1,
        unit_of=unit_of.to(device),
        train_pools=train_pools,
        held_out_pools=held_out_pools,
        evaluation_pools=evaluation,
        permutations=_permutations(settings, seeds, pixels, device),
        angles=_angles(settings, device),
        scale=torch.tensor(1 / 255, dtype=dtype, device=device),
        streamed=streamed,
    )


def check_stream(settings: StreamSettings, classes: int) -> None:
    """Refuses a stream that a data set of `classes` classes cannot give.

    Raises:
        UserError: more tasks than classes, unequal tasks, or nothing to validate on.
    """
    if settings.stream == "split" and settings.tasks > classes:
        raise UserError(
            f"benchmark.tasks: {settings.tasks} tasks, but {settings.dataset} has {classes} "
            f"classes; a split needs at least one class a task, so ask for at most {classes} tasks"
        )
    if settings.stream == "split" and classes % settings.tasks:
        equal = [t for t in range(1, classes + 1) if classes % t == 0]
        raise UserError(
            f"benchmark.tasks: {classes} classes of {settings.dataset} do not divide into "
            f"{settings.tasks} equal tasks; possible are {', '.join(map(str, equal))}"
        )
    if settings.class_order == "random" and settings.stream != "split":
        raise UserError(
            f"benchmark.class_order: stream '{settings.stream}' has all classes in every task, in "
            "no order; remove class_order or set benchmark.stream: split"
        )
    if settings.max_angle != StreamSettings("").max_angle and settings.stream != "rotated":
        raise UserError(
            f"benchmark.max_angle: stream '{settings.stream}' does not rotate; remove max_angle or "
            "set benchmark.stream: rotated"
        )
    if settings.evaluate == "validation" and settings.validation == 0:
        raise UserError(
            "benchmark.evaluate: 'validation' needs a held-out part of the training data; set "
            "benchmark.validation to a fraction above 0, e.g. 0.1"
        )


def _refuse_empty(settings: StreamSettings, needed: list[list[list[Pool]]]) -> None:
    if min(len(pool.images) for pools in needed for row in pools for pool in row) == 0:
        raise UserError(
            f"benchmark.validation: {settings.validation:g} of {settings.dataset} leaves some task "
            "without an image to train on or to be measured on; choose another fraction, e.g. 0.1"
        )


def _class_order(settings: StreamSettings, seed: int, classes: int) -> Tensor:
    if settings.class_order == "fixed":
        return torch.arange(classes)
    return random.permutation(random.make_key(seed, "class order"), classes)


def _units(settings: StreamSettings, order: Tensor, per_task: int) -> Tensor:
    """Head unit by (task, class), −1 where the task lacks the class."""
    classes = len(order)
    units = torch.full((settings.tasks, classes), -1, dtype=torch.int64)
    for task in range(settings.tasks):
        if settings.stream == "split":
            members = order[task * per_task : (task + 1) * per_task]
            units[task, members] = task * per_task + torch.arange(per_task)
        else:
            units[task] = task * classes + torch.arange(classes)
        if settings.scenario == "domain":
            units[task] = torch.where(units[task] < 0, -1, units[task] % per_task)
    return units


def _prepare(
    split: Split, pad: int, place: torch.device | str, device: torch.device | str
) -> Split:
    """Padded images at their place, and labels on the device."""
    images = F.pad(split.images, (pad, pad, pad, pad)) if pad else split.images
    return Split(images.contiguous().to(place), split.labels.to(device))


def _hold_out(
    labels: Tensor, fraction: float, seeds: list[int]
) -> tuple[list[Tensor], list[Tensor]]:
    """Indices kept for training and held out, per seed: round(fraction · n) of each class."""
    kept, held = [], []
    for seed in seeds:
        is_held = torch.zeros(len(labels), dtype=torch.bool)
        for label in labels.unique().tolist() if fraction else []:
            members = (labels == label).nonzero().flatten()
            order = random.permutation(random.make_key(seed, "validation", label), len(members))
            is_held[members[order[: round(fraction * len(members))]]] = True
        kept.append((~is_held).nonzero().flatten())
        held.append(is_held.nonzero().flatten())
    return kept, held


def _pools(
    labels: Tensor, indices: list[Tensor], unit_of: Tensor, device: torch.device | str
) -> list[list[Pool]]:
    """[seed][task]: the samples among `indices` whose class the task has."""
    pools = []
    for seed_indices, units in zip(indices, unit_of, strict=True):
        row = []
        for task, task_units in enumerate(units):
            members = seed_indices[task_units[labels[seed_indices]] >= 0].to(device)
            row.append(Pool(members, torch.full_like(members, task)))
        pools.append(row)
    return pools


def _permutations(
    settings: StreamSettings, seeds: list[int], pixels: int, device: torch.device | str
) -> Tensor | None:
    """Pixel orders by (seed, task); all tasks are permuted, as in van de Ven and Tolias."""
    if settings.stream != "permuted":
        return None
    tasks = torch.arange(settings.tasks)
    keys = random.make_key(torch.tensor(seeds).unsqueeze(1), "pixel order", tasks)
    return random.permutation(keys, pixels).to(device)


def _angles(settings: StreamSettings, device: torch.device | str) -> Tensor | None:
    if settings.stream != "rotated":
        return None
    return torch.arange(settings.tasks, device=device) * (settings.max_angle / settings.tasks)
