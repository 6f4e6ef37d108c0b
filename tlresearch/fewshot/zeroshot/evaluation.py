"""One estimator on one seed's features: fitted on seen classes, measured on both kinds."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tlresearch.data.zero_shot import ZeroShotSplit, classes_in
from tlresearch.fewshot.zeroshot.method import ZeroShotMethod
from tlresearch.functional import zero_shot

METRICS = ("acc", "acc_seen", "acc_unseen", "acc_harmonic", "ausuc", "acc_ceiling", "acc_samples")
"""acc: among the unseen classes only; acc_seen, acc_unseen, acc_harmonic: among all classes, with
the method's calibration; ausuc: the area over all calibrations; acc_ceiling: the highest `acc` that
the attributes allow; acc_samples: `acc` as a mean over samples; the others are over classes."""


@dataclass(frozen=True)
class Task:
    """What there is to learn from and to measure on; classes are rows of `attributes`."""

    features: Float[Tensor, "n dim"]
    labels: Int64[Tensor, " n"]
    attributes: Float[Tensor, "classes attributes"]
    split: ZeroShotSplit

    @property
    def seen(self) -> Int64[Tensor, " seen"]:
        """The classes with training images."""
        return classes_in(self.labels, self.split.train)

    @property
    def unseen(self) -> Int64[Tensor, " unseen"]:
        """The classes to be recognised without one."""
        return classes_in(self.labels, self.split.test_unseen)


def fit(method: ZeroShotMethod, task: Task, seed: int) -> Any:
    """What the method learns, from nothing but seen classes: their images and their attributes."""
    train, seen = task.split.train, task.seen
    labels = torch.searchsorted(seen, task.labels[train])
    return method.fit(task.features[train], labels, task.attributes[seen], seed)


def evaluate(method: ZeroShotMethod, task: Task, seed: int) -> dict[str, Any]:
    """Fits and measures.

    Returns:
        `METRICS` by name, and `by_class`: for `test_seen` and `test_unseen` the accuracies of their
        classes in the generalised setting, by class.

    Raises:
        FloatingPointError: a score is not finite.
        torch.linalg.LinAlgError: the method's closed form does not exist.
    """
    fitted = fit(method, task, seed)
    found = _conventional(method, fitted, task)
    return found | _generalised(method, fitted, task)


def _conventional(method: ZeroShotMethod, fitted: Any, task: Task) -> dict[str, Any]:
    """Images of unseen classes, with the unseen classes to choose from."""
    images, unseen = task.split.test_unseen, task.unseen
    scores = _scores(method, fitted, task, images, unseen)
    labels, predicted = task.labels[images], unseen[scores.argmax(1)]
    return {
        "acc": zero_shot.per_class_accuracy(predicted, labels).item(),
        "acc_samples": (predicted == labels).double().mean().item(),
        "acc_ceiling": zero_shot.distinguishable(task.attributes[unseen]).item(),
    }


def _generalised(method: ZeroShotMethod, fitted: Any, task: Task) -> dict[str, Any]:
    """Images of seen and unseen classes, with both kinds to choose from."""
    classes = torch.cat([task.seen, task.unseen])
    is_seen = torch.arange(len(classes), device=classes.device) < len(task.seen)
    place_of = torch.empty(len(task.attributes), dtype=torch.int64, device=classes.device)
    place_of[classes] = torch.arange(len(classes), device=classes.device)
    images = torch.cat([task.split.test_seen, task.split.test_unseen])
    scores = _scores(method, fitted, task, images, classes)
    labels = place_of[task.labels[images]]
    area = zero_shot.area_under_curve(*zero_shot.seen_unseen_curve(scores, labels, is_seen))
    predicted = zero_shot.calibrated(scores, is_seen, method.calibration).argmax(1)
    by_class = zero_shot.accuracy_by_class(predicted, labels, len(classes))
    seen, unseen = by_class[is_seen], by_class[~is_seen]
    both = seen.nanmean(), unseen.nanmean()
    names = ("acc_seen", "acc_unseen", "acc_harmonic")
    values = (*both, zero_shot.harmonic_mean(*both))
    found = {name: value.item() for name, value in zip(names, values, strict=True)}
    accuracies = {"test_seen": seen.tolist(), "test_unseen": unseen.tolist()}
    return found | {"ausuc": area.item(), "by_class": accuracies}


def _scores(
    method: ZeroShotMethod, fitted: Any, task: Task, images: Tensor, classes: Tensor
) -> Float[Tensor, "n classes"]:
    scores = method.scores(fitted, task.features[images], task.attributes[classes])
    if not scores.isfinite().all():
        raise FloatingPointError("a score was not finite")
    return scores
