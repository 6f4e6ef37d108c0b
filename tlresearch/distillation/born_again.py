"""Born-again networks: a student is taught by one of its own size, generation after generation.

Furlanello et al., ICML 2018, arXiv:1805.04770. Generation 0 learns from labels; each of the next
has the one before as its teacher, another initialisation, and the classical loss.

Differs from the paper: the seed of generation g is that of the run + 1,000,000 g where it teaches;
no ensemble of generations is measured.
"""

from dataclasses import dataclass, replace

from tlresearch.distillation.kd import KD
from tlresearch.distillation.settings import TeacherSettings
from tlresearch.training.settings import Count, Positive


@dataclass(frozen=True)
class BornAgain(KD):
    """A chain of networks of one size."""

    temperature: Positive = 1.0
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
