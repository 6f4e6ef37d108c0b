"""What a few-shot run trains on and is measured on: images by class, or sinusoids."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from tlresearch.data import catalogue, lake
from tlresearch.data.class_sets import ClassSet, ClassSplits, class_splits
from tlresearch.data.class_tables import facts
from tlresearch.data.episodes import Pool, evaluation_keys
from tlresearch.fewshot.batches import Batch, episode_sizes, training_batches
from tlresearch.fewshot.evaluation import CHUNK, EvaluationSet, ImageEpisodes
from tlresearch.fewshot.method import FewShotMethod
from tlresearch.fewshot.settings import SINUSOID, FewShotSettings
from tlresearch.fewshot.sinusoid_tasks import SinusoidTasks
from tlresearch.functional import random
from tlresearch.training.settings import Train
from tlresearch.training.tree import Tree


@dataclass
class ImageTasks:
    """Classes of images on a device."""

    benchmark: FewShotSettings
    splits: ClassSplits
    target: ClassSplits
    """Where the evaluation's classes are from; the same as `splits` but across domains."""
    device: torch.device
    scale: Tensor
    """What a pixel is multiplied by; its dtype is that of the inputs."""
    root: Path | None = None
    """Data root; None: where the environment says."""
    regression = False

    @staticmethod
    def load(
        benchmark: FewShotSettings, device: torch.device, dtype: torch.dtype, root: Path | None
    ) -> "ImageTasks":
        """The classes of a benchmark."""
        splits, target = load_splits(benchmark, root)
        scale = torch.tensor(1 / 255, dtype=dtype, device=device)
        return ImageTasks(benchmark, splits, target, device, scale, root)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of an image."""
        channels, rows, columns = self.splits.train.images.shape[1:]
        return channels, rows, columns

    def units(self, method: FewShotMethod) -> int:
        """Units of a head: the ways of a training episode, or all training classes."""
        if method.trains_on == "classes":
            return len(self.splits.train.first)
        return episode_sizes(self.benchmark, method)[0]

    def shape_for(self, method: FewShotMethod) -> tuple[int, int, int]:
        """Shape of what a method's networks are given."""
        return self.shape

    def training(self, method: FewShotMethod, train: Train, seeds: list[int]) -> Batch:
        """The training batches by step."""
        pool = Pool.of(self.splits.train, self.device)
        return training_batches(pool, self.benchmark, method, train, seeds, self.scale)

    def batches(
        self, samples: int | None = None, multiple: int = 1
    ) -> Iterator[tuple[Tensor, Tensor, None]]:
        """All images of the training classes, and their classes, for `after_task`."""
        pool = Pool.of(self.splits.train, self.device)
        y = class_of(self.splits.train).to(self.device)
        for some in torch.arange(len(y), device=self.device).split(CHUNK):
            yield pool.gather(some, self.scale), y[some], None

    def places(self, samples: int | None = None, multiple: int = 1) -> range:
        """All, as few-shot runs have one process."""
        return range(len(self.splits.train.images))

    def average(self, tree: Tree, weight: float, /) -> Tree:
        """The tree itself, of one process."""
        return tree

    def key(self, purpose: str) -> Tensor:
        """The same for all seeds: what is done after training draws nothing by seed."""
        return random.make_key(0, purpose)

    def episodes(self, method: FewShotMethod, which: str | None = None) -> EvaluationSet:
        """The episodes that methods are measured on.

        Args:
            method: who is measured.
            which: `validation` or `test`; None: as the benchmark says, with its own way to draw.
        """
        classes, indices = self.draw(which)
        pool = Pool.of(classes, self.device)
        return ImageEpisodes(pool, indices.to(self.device), self.benchmark.shots, self.scale)

    def draw(
        self, which: str | None = None
    ) -> tuple[ClassSet, Int64[Tensor, "episodes ways samples"]]:
        """The classes of the episodes, and their images, drawn on the CPU; see `episodes`.

        Raises:
            UserError: the classes cannot give them.
        """
        settings = self.benchmark
        classes = getattr(self.target if which is None else self.splits, which or settings.evaluate)
        draw = settings.draw if which is None else "classes"
        return classes, self._indices(classes, draw, f"{which or settings.evaluate} {draw}")

    def _indices(
        self, classes: ClassSet, draw: str, purpose: str
    ) -> Int64[Tensor, "episodes ways samples"]:
        settings = self.benchmark
        if draw == "lake":
            return lake.published_runs(classes, self.root)
        keys = evaluation_keys(purpose, settings.episodes)
        samples = settings.shots + settings.queries
        if draw == "group":
            return lake.within_groups(classes, keys, settings.ways, samples)
        return Pool.of(classes).draw(keys, settings.ways, samples)


def load_splits(
    benchmark: FewShotSettings, root: Path | None = None
) -> tuple[ClassSplits, ClassSplits]:
    """Classes to train on, and those that episodes are drawn from.

    Raises:
        UserError: data that are missing or damaged.
    """
    splits = class_splits(
        benchmark.dataset, benchmark.split, benchmark.size, benchmark.rotations, root
    )
    if benchmark.target is None:
        if not benchmark.rotations or benchmark.draw == "classes":
            return splits, splits
        # A turned character is of no alphabet, so within groups nothing is turned.
        upright = class_splits(benchmark.dataset, benchmark.split, benchmark.size, False, root)
        return splits, upright
    channels, rows, _ = splits.train.images.shape[1:]
    target = class_splits(benchmark.target, None, rows, False, root, channels=channels)
    return splits, target


def class_of(classes: ClassSet) -> Tensor:
    """The class of each image, int64."""
    return torch.repeat_interleave(torch.arange(len(classes.first)), classes.count)


Tasks = ImageTasks | SinusoidTasks


def load_tasks(
    benchmark: FewShotSettings, device: torch.device, dtype: torch.dtype, root: Path | None
) -> Tasks:
    """What a benchmark trains on and is measured on.

    Raises:
        UserError: data that are missing or damaged.
    """
    if benchmark.dataset == SINUSOID:
        return SinusoidTasks(benchmark, device, dtype)
    return ImageTasks.load(benchmark, device, dtype, root)


def datasets(benchmark: FewShotSettings) -> tuple[str, ...]:
    """The catalogue's names of the data."""
    names = (benchmark.dataset, benchmark.target)
    return tuple(name for name in names if name in catalogue.DATASETS)


def fingerprint(benchmark: FewShotSettings) -> str:
    """That of all data, those of another domain included."""
    prints = [catalogue.entry(name).fingerprint for name in datasets(benchmark)]
    return "+".join(prints) or SINUSOID


def load_data(benchmark: FewShotSettings, root: Path | None = None) -> None:
    """Refuses data that are missing or damaged, or that cannot give the episodes.

    What groups have, and Lake's runs, are known only when they are drawn: here, not after training.
    """
    if benchmark.dataset == SINUSOID:
        return
    tasks = ImageTasks.load(benchmark, torch.device("cpu"), torch.float32, root)
    if benchmark.draw != "classes":
        tasks.draw()


def sizes(benchmark: FewShotSettings) -> tuple[tuple[int, int, int], int]:
    """Shape of an input, and the most units of a head."""
    if benchmark.dataset == SINUSOID:
        return (1, 1, 1), 1
    known = facts(benchmark.dataset, benchmark.split, benchmark.size, benchmark.rotations)
    return known.shape, max(known.train, benchmark.ways)


def held_out(benchmark: FewShotSettings, fraction: float) -> FewShotSettings:
    """Measured on the validation classes, which no training sees; the split says how many."""
    return dataclasses.replace(benchmark, evaluate="validation", draw="classes", target=None)
