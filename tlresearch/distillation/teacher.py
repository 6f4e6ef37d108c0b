"""The teacher as a row of its own: it is measured as students are, and nothing else is trained."""

from dataclasses import dataclass

from tlresearch.distillation.method import TaughtMethod


@dataclass(frozen=True)
class TeacherItself(TaughtMethod):
    """What teaches the other rows, several copies by the mean of their probabilities."""
