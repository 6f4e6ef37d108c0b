"""What an experiment of distillation must not ask for, refused before any work."""

from tlresearch.data import catalogue
from tlresearch.distillation import teachers
from tlresearch.distillation.method import DistillationMethod
from tlresearch.distillation.settings import DistillationSettings, TeacherSettings
from tlresearch.errors import UserError
from tlresearch.training.settings import Train


def check(
    benchmark: DistillationSettings, method: DistillationMethod, label: str, train: Train
) -> None:
    """Refuses combinations that make no sense.

    Raises:
        UserError: naming the key, what was expected and what to do.
    """
    entry = _entry(benchmark.dataset)
    _check_classes(benchmark, entry.classes)
    _check_views(benchmark)
    problem = method.problem()
    if problem:
        raise UserError(f"methods.{label}.{problem}")
    if train.batch_size < method.least_batch:
        raise UserError(
            f"train.batch_size: {label} compares the samples of a batch with each other and needs "
            f"at least {method.least_batch}, not {train.batch_size}"
        )
    few = benchmark.transfer_samples
    if few is not None and few < method.least_images:
        raise UserError(
            f"benchmark.transfer_samples: {label} tells an image from others and needs at least "
            f"{method.least_images}, not {few}"
        )
    if benchmark.validation == 0:
        if train.checkpoint == "selected":
            raise UserError(
                "train.checkpoint: 'selected' needs a held-out part; set benchmark.validation to a "
                "fraction above 0, e.g. 0.1"
            )
        if benchmark.evaluate == "validation":
            raise UserError(
                "benchmark.evaluate: 'validation' needs a held-out part; set benchmark.validation "
                "to a fraction above 0, e.g. 0.1"
            )
    if method.taught:
        _check_teacher(benchmark, method.taught_by(), label, train)


def _entry(name: str) -> catalogue.Dataset:
    try:
        entry = catalogue.entry(name)
    except UserError as error:
        raise UserError(f"benchmark.dataset: {error}") from None
    if entry.test_classes:
        raise UserError(
            f"benchmark.dataset: {name} has other classes in its test part; use mnist, mnist5k, "
            "cifar10 or another set with the same classes in both"
        )
    return entry


def _check_classes(benchmark: DistillationSettings, classes: int) -> None:
    chosen = benchmark.transfer_classes
    if not chosen:
        return
    if max(chosen) >= classes or len(set(chosen)) < len(chosen) or len(chosen) == classes:
        raise UserError(
            f"benchmark.transfer_classes: expected some, but not all, of the {classes} classes 0 "
            f"to {classes - 1}, each once, not {list(chosen)}"
        )


def _check_views(benchmark: DistillationSettings) -> None:
    if benchmark.views and not benchmark.augmented:
        raise UserError(
            f"benchmark.views: {benchmark.views} views of images that are neither moved nor "
            "mirrored would be equal; set benchmark.shift or benchmark.flip, or remove views"
        )
    if benchmark.fresh and not benchmark.cache:
        raise UserError(
            "benchmark.cache: nothing is kept where each step has views of its own; remove it, or "
            "set benchmark.views to a number of fixed views"
        )


def _check_teacher(
    benchmark: DistillationSettings, settings: TeacherSettings, label: str, train: Train
) -> None:
    """The teacher and all who taught it."""
    problem = teachers.problem(settings)
    if problem:
        raise UserError(f"methods.{label}.{problem}")
    place = f"methods.{label}.teacher"
    if settings.checkpoint is not None:
        if benchmark.dataset != "cifar10":
            raise UserError(
                f"{place}.checkpoint: {settings.checkpoint} knows the 10 classes of cifar10, and "
                f"the student learns those of {benchmark.dataset}; train a teacher instead"
            )
        if benchmark.normalise != "imagenet":
            raise UserError(
                f"{place}.checkpoint: {settings.checkpoint} was trained on images normalised by "
                "ImageNet's numbers; set benchmark.normalise: imagenet"
            )
        return
    training = teachers.resolve(settings, None, train, place)
    if training.train.batch_size < training.method.least_batch:
        raise UserError(
            f"{place}.train.batch_size: its method compares the samples of a batch with each other "
            f"and needs at least {training.method.least_batch}, not {training.train.batch_size}"
        )
    if training.train.checkpoint == "selected" and benchmark.validation == 0:
        raise UserError(
            f"{place}.train.checkpoint: 'selected' needs a held-out part; set benchmark.validation "
            "to a fraction above 0, e.g. 0.1"
        )
    if training.method.taught:
        label = f"{label}.teacher.method"
        _check_teacher(benchmark, training.method.taught_by(), label, training.train)
