"""Teacher assistants: networks of sizes between, each taught by the larger one before it.

Mirzadeh et al., "Improved knowledge distillation via teacher assistant", AAAI 2020,
arXiv:1902.03393.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from tlresearch.distillation.kd import KD, OfChain, Share
from tlresearch.distillation.settings import TeacherSettings
from tlresearch.training.settings import Positive


@dataclass(frozen=True)
class TeacherAssistant(KD):
    """Soft targets from the last of a chain of assistants."""

    alpha: Annotated[Share, OfChain] = 0.9
    """α in [0, 1], the weight of the soft targets, for assistants too; the labels have 1 − α."""
    temperature: Annotated[Positive, OfChain] = 4.0
    """T > 0, for assistants too."""
    assistants: tuple[dict[str, Any], ...] = ()
    """Backbones of the assistants, `name` and settings, from the teacher's side to the student's;
    none is the classical distillation."""

    def taught_by(self) -> TeacherSettings:
        """The last assistant, and by its method all before it."""
        teacher = self.teacher
        plain = {"name": "kd", "alpha": self.alpha, "temperature": self.temperature}
        plain |= {"standardise": self.standardise}
        for backbone in self.assistants:
            method = plain | {"teacher": _plain(teacher)}
            teacher = replace(TeacherSettings(), backbone=backbone, method=method)
        return teacher


def _plain(teacher: TeacherSettings) -> dict[str, Any]:
    """The settings that are not at their defaults, as an experiment file has them."""
    default = TeacherSettings()
    return {
        name: getattr(teacher, name)
        for name in ("backbone", "train", "method", "checkpoint", "shift", "flip", "copies", "seed")
        if getattr(teacher, name) != getattr(default, name)
    }
