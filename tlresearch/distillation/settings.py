"""The `benchmark:` section of an experiment of distillation, and what a teacher is."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from tlresearch.settings import Bounds
from tlresearch.training.settings import Count, Fraction

Pixels = Annotated[int, Bounds(ge=0)]
Checkpoint = Literal["cifar10_resnet20", "cifar10_resnet56"]


@dataclass(frozen=True)
class DistillationSettings:
    """Which images, what of them students are taught with, and what is measured."""

    dataset: str
    """Name in the catalogue, with the same classes in training and test."""
    normalise: Literal["unit", "standard", "imagenet"] = "unit"
    """Pixels in [0, 1]; those less the mean and divided by the deviation of each channel over the
    training images; or by the numbers of ImageNet, as published checkpoints have it."""
    samples: Count | None = None
    """Training images that there are, for teachers too: drawn once, in equal parts of each class;
    null: all."""
    validation: Fraction = 0.1
    """Fraction of these that is held out of all training, drawn once in equal parts of each class:
    for the weights that are selected, temperature scaling, and shifts without labels."""
    transfer_samples: Count | None = None
    """Images that students are taught with, drawn per seed in equal parts of each class; null: all
    that are not held out."""
    transfer_classes: tuple[Annotated[int, Bounds(ge=0)], ...] = ()
    """Classes of the images that students are taught with; none: all. Teachers see all classes, and
    the logits of classes that a student never saw are shifted, see the metrics `…_shifted`."""
    shift: Pixels = 0
    """Students see images moved by up to so many pixels in each direction."""
    flip: bool = False
    """Students see half of the images mirrored."""
    views: Annotated[int, Bounds(ge=0)] = 0
    """Of images that are moved or mirrored: 0 is a new view at each step, answered by the live
    teacher; K is K fixed views of each image, whose answers are kept."""
    cache: bool = True
    """Whether a teacher's answers to fixed images are kept in memory-mapped files; if not, the live
    teacher is asked at each step, with the same numbers on a CPU."""
    evaluate: Literal["test", "validation"] = "test"
    """What is measured on."""

    @property
    def augmented(self) -> bool:
        """Whether students see more than the images themselves."""
        return self.shift > 0 or self.flip

    @property
    def fresh(self) -> bool:
        """Whether each step has views of its own."""
        return self.augmented and self.views == 0


@dataclass(frozen=True)
class TeacherSettings:
    """How a teacher comes about; it is trained once for all rows that ask for the same."""

    backbone: dict[str, Any] = field(default_factory=dict)
    """`name` and settings of its backbone; empty: the student's own."""
    train: dict[str, Any] = field(default_factory=dict)
    """Settings of its training, over those of the row."""
    method: dict[str, Any] = field(default_factory=dict)
    """How it is taught itself: `name` and settings of a method with a teacher of its own, so that
    teachers form a chain; empty: by labels."""
    checkpoint: Checkpoint | None = None
    """Published weights in place of a training: ROOT/weights/cifar10_resnet; with it nothing else
    but `copies: 1`."""
    shift: Pixels = 0
    """It is trained on images moved by up to so many pixels."""
    flip: bool = False
    """It is trained on images of which half are mirrored."""
    copies: Count = 1
    """M networks that differ in their seed and answer together: the m-th has the seed
    s + 1000 (m − 1), m from 1."""
    seed: Annotated[int, Bounds(ge=0)] | None = None
    """s; null: that of the run + 1,000,000, and as much more for each teacher that taught it, so
    that each seed has teachers of its own, which begin elsewhere even where they are like their
    student."""
