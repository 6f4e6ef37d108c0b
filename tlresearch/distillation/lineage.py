"""Which seed a teacher has, so that it begins elsewhere than its student and all who taught it.

The first of a chain, who learned from labels, has the seed of the run + 1,000,000, whoever it
teaches: rows that name the same teacher have the same one, with or without assistants between. Each
that was taught has 1,000,000 more than the one before.
"""

from typing import NamedTuple

from tlresearch.distillation.settings import TeacherSettings
from tlresearch.distillation.teachers import Training, resolve

SPACING = 1000
"""Between the seeds of the copies of a teacher."""
APART = 1_000_000
"""From the seed of a run to that of its first teacher, and from teacher to teacher."""


class Lineage(NamedTuple):
    """One teacher's place in its chain."""

    seed: int
    """Its own."""
    base: int
    """From which those of its own teachers are counted; of the run, but for copies and chosen
    seeds."""


def lineage(settings: TeacherSettings, training: Training, base: int, copy: int) -> Lineage:
    """The seed of a teacher's copy.

    Args:
        settings: of the teacher; a `seed` of its own stands for all runs.
        training: what they resolve to.
        base: the seed of the run, or what the one that it teaches was counted from.
        copy: from 0.
    """
    if settings.seed is not None:
        own = settings.seed + SPACING * copy
        return Lineage(own, own)
    base += SPACING * copy
    return Lineage(base + APART * (1 + _taught(training)), base)


def _taught(training: Training) -> int:
    """How many trained teachers stand above one in its chain."""
    if not training.method.taught:
        return 0
    settings = training.method.taught_by()
    if settings.checkpoint is not None:
        return 0
    return 1 + _taught(resolve(settings, training.backbone, training.train, "teacher"))
