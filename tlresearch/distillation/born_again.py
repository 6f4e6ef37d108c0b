"""Born-again networks: a student is taught by one of its own size, generation after generation.

Furlanello et al., ICML 2018, arXiv:1805.04770. Generation 0 learns from labels; each of the next
has the one before as its teacher, another initialisation, and the classical loss.

Differs from the paper: no ensemble of generations is measured. The seed of a generation that
teaches is that of the one it teaches + 1,000,000, so that it begins elsewhere.
"""

from dataclasses import dataclass, replace
from typing import Annotated

from tlresearch.distillation.kd import KD, OfChain, Share
from tlresearch.distillation.settings import TeacherSettings
from tlresearch.training.settings import Count, Positive


@dataclass(frozen=True)
class BornAgain(KD):
    """A chain of networks of one size."""

    alpha: Annotated[Share, OfChain] = 0.9
    """α in [0, 1], the weight of the soft targets; the labels have 1 − α."""
    temperature: Annotated[Positive, OfChain] = 1.0
    """T > 0; the paper has none, that is 1."""
    generations: Count = 1
    """How often a network is taught by the one before; 1: the teacher learned from labels."""

    def problem(self) -> str | None:
        if self.teacher != replace(TeacherSettings(), seed=self.teacher.seed):
            return "teacher: every generation is like the student; remove the key"
        return None

    def taught_by(self) -> TeacherSettings:
        """The generation before, and by its method those before that."""
        teacher = self.teacher
        plain = {"name": "kd", "alpha": self.alpha, "temperature": self.temperature}
        plain |= {"standardise": self.standardise}
        for _ in range(self.generations - 1):
            settings = {"method": teacher.method} if teacher.method else {}
            teacher = replace(teacher, method=plain | {"teacher": settings})
        return teacher
