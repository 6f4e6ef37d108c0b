"""What the runs of a stack came to: students and teachers measured, and what that cost."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tlresearch.distillation import report
from tlresearch.distillation.course import Course
from tlresearch.distillation.frozen_teacher import FrozenTeacher
from tlresearch.distillation.images import Images
from tlresearch.distillation.networks import Student, of_student
from tlresearch.distillation.teaching import School, steps_of_teachers
from tlresearch.training.device import peak_memory
from tlresearch.training.runs import Outcome, StackRun
from tlresearch.training.weights import weights_of


def before_training(run: StackRun, school: School, course: Course) -> list[dict[str, float]]:
    """What students are worth that begin with trained weights; of others nothing."""
    rows: list[dict[str, float]] = [{} for _ in run.seeds]
    if run.method.begins_trained:
        for place, row in enumerate(rows):
            seen = report.measured(course.network(place), school.images, run.benchmark.evaluate)
            found = report.quality(seen)
            row.update({name: found[name.removesuffix("_before")] for name in report.BEFORE})
    return rows


def of_students(
    run: StackRun, school: School, course: Course, frozen: list[list[FrozenTeacher]]
) -> list[Outcome]:
    """What each seed came to."""
    rows, training = [], course.training
    chosen = _chosen_metrics(run, school, course)
    for place, failure in enumerate(training.failures):
        details = details_of(run, school, training.steps[place], course.elapsed)
        if failure:
            rows.append(Outcome({}, {}, "failed", failure, details, source=school.other_code))
            continue
        student = course.network(place)
        assert isinstance(student, Student)
        weights = of_student(weights_of(student))
        found = _measure(run, school.images, student, frozen[place]) | chosen[place]
        found |= report.costs(course.training.steps[place] * len(run.seeds), course.elapsed)
        rows.append(
            Outcome(found, {}, "finished", None, details, weights, source=school.other_code)
        )
    return rows


def _chosen_metrics(run: StackRun, school: School, course: Course) -> list[dict[str, float]]:
    """With `checkpoint: selected`: what the selected weights are worth; leaves the last ones."""
    last = course.learning.last
    rows: list[dict[str, float]] = [{} for _ in run.seeds]
    if last is None:
        return rows
    if run.benchmark.evaluate == "test":
        for place, row in enumerate(rows):
            seen = report.measured(course.network(place), school.images, "test")
            row.update({f"{name}_selected": v for name, v in report.quality(seen).items()})
    last.restore(course.training.stack)
    return rows


def _measure(
    run: StackRun, images: Images, network: nn.Module, teachers: Sequence[FrozenTeacher]
) -> dict[str, float]:
    """All metrics of one seed."""
    benchmark = run.benchmark
    seen = report.measured(network, images, benchmark.evaluate)
    copies = report.copies_of(teachers, images, benchmark.evaluate)
    found = report.quality(seen) | report.calibrated(seen) | report.beside(seen, copies)
    if benchmark.transfer_classes:
        found |= report.absent(seen, benchmark.transfer_classes, images)
    plain = nn.Sequential(network.backbone, network.head)  # type: ignore[arg-type]
    return found | report.sizes(plain, images.shape)


def of_teachers(run: StackRun, school: School, frozen: list[list[FrozenTeacher]]) -> list[Outcome]:
    """The row of the teachers themselves."""
    rows, settings = [], run.method.taught_by()
    for seed, teachers in zip(run.seeds, frozen, strict=True):
        steps = steps_of_teachers(settings, run.backbone, run.train)
        details = details_of(run, school, steps, school.seconds)
        network: nn.Module = teachers[0].network
        weights = weights_of(network)
        if len(teachers) > 1:
            network, weights = _Together(teachers), {}
        seen = report.measured(network, school.images, run.benchmark.evaluate)
        found = report.quality(seen)
        if settings.checkpoint is None:
            found |= report.calibrated(seen)
        each = report.sizes(teachers[0].network, school.images.shape)
        found |= {name: value * len(teachers) for name, value in each.items()}
        if settings.checkpoint is None:
            found |= report.costs(*school.cost(settings, run.backbone, run.train, seed))
        rows.append(
            Outcome(found, {}, "finished", None, details, weights, source=school.other_code)
        )
    return rows


class _Together(nn.Module):
    """Several teachers as one network: the logarithm of their mean probabilities."""

    def __init__(self, teachers: Sequence[FrozenTeacher]) -> None:
        super().__init__()
        self.members = nn.ModuleList(teacher.network for teacher in teachers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from tlresearch.functional.soft_targets import ensemble_logits

        return ensemble_logits(torch.stack([member(x) for member in self.members]))


def details_of(run: StackRun, school: School, steps: int, seconds: float) -> dict[str, Any]:
    """What a record says beside its metrics."""
    return {
        "steps": steps,
        "stack_seconds": seconds,
        "steps_per_second": steps * len(run.seeds) / max(seconds, 1e-9),
        "samples_per_step": run.train.batch_size * run.train.accumulate,
        "peak_memory_bytes": peak_memory(school.images.train.device),
    }
