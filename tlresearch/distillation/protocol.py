"""The order of distillation: teachers first, then their students, then both are measured."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from tlresearch import own
from tlresearch.data import catalogue
from tlresearch.distillation import METHODS, outcomes, report
from tlresearch.distillation.batches import TaughtBatches
from tlresearch.distillation.checks import check
from tlresearch.distillation.course import Course, Watch, begin, one_by_one
from tlresearch.distillation.fitting import check_taps
from tlresearch.distillation.frozen_teacher import FrozenTeacher
from tlresearch.distillation.images import load_images
from tlresearch.distillation.method import DistillationMethod
from tlresearch.distillation.settings import DistillationSettings
from tlresearch.distillation.teacher import TeacherItself
from tlresearch.distillation.teachers import above, resolve
from tlresearch.distillation.teaching import (
    School,
    TeacherFailed,
    published_file,
    steps_of_teachers,
)
from tlresearch.distillation.trying import trial
from tlresearch.errors import UserError
from tlresearch.training.device import dtype_of, tf32
from tlresearch.training.distributed import ALONE, Processes
from tlresearch.training.observer import CHECKPOINT_SECONDS, RunFiles
from tlresearch.training.runs import Outcome, StackRun

__all__ = ["METHODS", "Outcome", "StackRun", "check", "trial"]

Benchmark = DistillationSettings
Method = DistillationMethod
METRICS = report.METRICS
ONE_PROCESS = True
DEFAULT_METRICS = ("acc", "errors", "agreement", "nll", "ece")


def datasets(benchmark: DistillationSettings) -> tuple[str, ...]:
    """The catalogue's names of the data."""
    return (benchmark.dataset,)


def fingerprint(benchmark: DistillationSettings) -> str:
    """That of the data set."""
    return catalogue.entry(benchmark.dataset).fingerprint


def load_data(benchmark: DistillationSettings, root: Any = None) -> None:
    """Refuses data that are missing, damaged, or too few for what is asked of them."""
    images = load_images(benchmark, torch.device("cpu"), torch.float32, root)
    images.pool(benchmark, 0)


def sizes(benchmark: DistillationSettings) -> tuple[tuple[int, int, int], int]:
    """Shape of an image, and units of the head."""
    entry = catalogue.entry(benchmark.dataset)
    return entry.shape, entry.classes


def parts(config: Any) -> list[Any]:
    """Backbones and methods of all who teach a run, and each other."""
    return above(config.method, config.backbone, config.train)


def check_networks(config: Any, label: str) -> None:
    """Refuses taps that name no feature, features that cannot be compared, networks that misfit."""
    if own.sources(config.method):
        return  # such a method is tried on noise, where its mistakes are told as its own
    shape, classes = sizes(config.benchmark)
    place = f"methods.{label}"
    check_taps(config.method, config.backbone, config.train, shape, classes, place)
    problem = config.method.misfit(config.backbone, shape, classes)
    if problem:
        raise UserError(f"{place}.{problem}")


def check_files(config: Any, label: str, root: Any = None) -> None:
    """Refuses a published teacher whose weights are not there, wherever it is in a chain."""
    method, backbone, train, place = (
        config.method,
        config.backbone,
        config.train,
        f"methods.{label}",
    )
    while method.taught:
        settings, place = method.taught_by(), f"{place}.teacher"
        if settings.checkpoint is not None:
            published_file(settings.checkpoint, root, place)
            return
        training = resolve(settings, backbone, train, place)
        method, backbone, train = training.method, training.backbone, training.train
        place += ".method"


def total_steps(config: Any) -> int:
    """Optimiser steps of a run, those of its teachers too."""
    method, alone = config.method, config.train.steps
    if not method.taught:
        return alone
    below = steps_of_teachers(method.taught_by(), config.backbone, config.train)
    return below + (0 if isinstance(method, TeacherItself) else alone)


def measured_checkpoint(config: Any) -> str:
    """The last weights, beside which `…_selected` are of the others; of teachers as they teach."""
    if not isinstance(config.method, TeacherItself) or config.method.teacher.checkpoint:
        return "last"
    settings, place = config.method.taught_by(), "teacher"
    return resolve(settings, config.backbone, config.train, place).train.checkpoint


def possible_metrics(config: Any) -> set[str]:
    """Those that a run of a configuration can have."""
    benchmark, found = config.benchmark, {*report.FITS, *report.SIZES}
    itself = isinstance(config.method, TeacherItself)
    published = itself and config.method.teacher.checkpoint
    if not published:
        found |= set(report.COSTS)
    if config.method.begins_trained:
        found |= set(report.BEFORE)
    if config.method.taught and not itself:
        found |= set(report.BESIDE)
    # What was trained on, or is measured on, cannot calibrate or select.
    held_out = benchmark.validation and benchmark.evaluate == "test"
    if held_out and not published:
        found |= set(report.CALIBRATED)
    if benchmark.transfer_classes and not itself:
        found |= set(report.ABSENT)
    if config.train.checkpoint == "selected" and held_out and not itself:
        found |= set(report.SELECTED)
    return found


def run_stack(
    run: StackRun,
    device: torch.device,
    files: RunFiles,
    root: Any = None,
    progress: Callable[[int], None] = lambda steps: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    track: Callable[[dict[str, Any]], None] = lambda entry: None,
    processes: Processes = ALONE,
    streamed: bool | None = None,
) -> list[Outcome]:
    """Trains the teachers and students of a stack's seeds, or takes teachers that there are.

    Args:
        run: what to run.
        device: where.
        files: its checkpoint (removed by the caller when the records are written), its log, and
            the folder of shared trainings.
        root: data root; None: where the environment says.
        progress: told of the steps done.
        checkpoint_seconds: time between checkpoints.
        track: told of each line of the log.
        processes: one only.
        streamed: has no effect: images are held on the device.

    Raises:
        UserError: several processes, or data that are missing or damaged.
    """
    if processes.size > 1:
        raise UserError("distillation runs in one process; start it without torchrun")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    images = load_images(run.benchmark, device, dtype_of(run.train.precision), root)
    watch = Watch(progress, checkpoint_seconds, track)
    # One seed after another, where the students' steps are those of all seeds at once.
    its = replace(watch, progress=one_by_one(progress, len(run.seeds)))
    school = School(images, files, its, root, run.benchmark.cache)
    with tf32(run.train.tf32):
        frozen, failures = _teachers(run, school)
        taught, teachers = _only(run, list(frozen)), list(frozen.values())
        found: list[Outcome] = []
        if frozen and isinstance(run.method, TeacherItself):
            found = outcomes.of_teachers(taught, school, teachers)
        elif frozen:
            found = _students(taught, school, teachers, watch)
    rows = dict(zip(frozen, found, strict=True)) | failures
    return [rows[place] for place in range(len(run.seeds))]


def _teachers(
    run: StackRun, school: School
) -> tuple[dict[int, list[FrozenTeacher]], dict[int, Outcome]]:
    """By place in the stack the teachers, or what became of a run whose teacher diverged."""
    frozen: dict[int, list[FrozenTeacher]] = {}
    failures: dict[int, Outcome] = {}
    for place, seed in enumerate(run.seeds):
        try:
            of_seed = []
            if run.method.taught:
                of_seed = school.of(run.method.taught_by(), run.backbone, run.train, seed)
            frozen[place] = of_seed
        except TeacherFailed as failure:
            details = outcomes.details_of(run, school, 0, school.seconds)
            failures[place] = Outcome({}, {}, "failed", str(failure), details)
    return frozen, failures


def _only(run: StackRun, places: list[int]) -> StackRun:
    """The run of some of its stack; a seed may be there with several values of a field."""
    fields = {name: [values[i] for i in places] for name, values in run.fields.items()}
    return replace(run, seeds=[run.seeds[i] for i in places], fields=fields)


def _students(
    run: StackRun, school: School, frozen: list[list[FrozenTeacher]], watch: Watch
) -> list[Outcome]:
    """Trains and measures them."""
    course = _course(run, school, frozen, watch)
    before = outcomes.before_training(run, school, course)
    course.travel()
    for teachers in frozen:
        for teacher in teachers:
            teacher.unchanged()
    rows = outcomes.of_students(run, school, course, frozen)
    for row, found in zip(rows, before, strict=True):
        if row.status == "finished":
            row.metrics.update(found)
    return rows


def _course(
    run: StackRun, school: School, frozen: list[list[FrozenTeacher]], watch: Watch
) -> Course:
    """The students' way, at its beginning."""
    images, benchmark, method = school.images, run.benchmark, run.method
    networks = [[teacher.network for teacher in of_seed] for of_seed in frozen]
    pools = [images.pool(benchmark, seed) for seed in run.seeds]  # all of one size
    training = begin(
        run.backbone, method, run.fields, run.train, run.seeds, images, networks, len(pools[0])
    )
    seen = partial(images.views, benchmark.shift, benchmark.flip)
    views = [seen(seed, max(benchmark.views, 1)) for seed in run.seeds]
    answering: list[Any] = [[] for _ in run.seeds]
    if method.taught:
        answering = [
            school.answering(
                method.taught_by(), teachers, of_seed, method.teacher_taps,
                run.train.batch_size, not benchmark.fresh,
            )
            for teachers, of_seed in zip(frozen, views, strict=True)
        ]  # fmt: skip
    batches = TaughtBatches(
        images, pools, views, answering, run.train, run.seeds, "batches of distillation",
        benchmark.fresh, method.teacher_taps,
    )  # fmt: skip
    return Course(training, batches, images, school.files, watch)
