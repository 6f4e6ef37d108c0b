"""Pruned students: the teacher without some of its units, trained again.

The student is what is left of the teacher of its seed when `ratio` of the channels or units of each
layer are removed (see `distillation.pruning`), and recovers by (1 − α) · cross-entropy + α T² · KL
of the whole teacher's probabilities at T to its own (Hinton et al., arXiv:1503.02531).

`weights: fresh` is the control of Liu et al., "Rethinking the value of network pruning", ICLR 2019,
arXiv:1810.05270: the same architecture, its weights drawn anew under the run's seed. Theirs gets
as many steps as training, pruning and recovery together, or as many operations; here it gets the
steps of the recovery unless `train` of its row says otherwise.

Differs from Li et al., "Pruning filters for efficient ConvNets", ICLR 2017, arXiv:1608.08710: the
weights that read a unit count in its norm beside those that make it, as in DepGraph (Fang et al.,
CVPR 2023); all layers lose the same fraction, at once. Li et al. recover by labels: α = 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import nn

from tlresearch.configs import plain_config
from tlresearch.distillation import pruning
from tlresearch.distillation.kd import KD
from tlresearch.distillation.networks import Student
from tlresearch.distillation.teachers import resolve_backbone
from tlresearch.errors import UserError
from tlresearch.settings import Bounds

Ratio = Annotated[float, Bounds(ge=0, lt=1), "decides the shapes"]
"""Marks a number that cannot differ within a stack of seeds."""


@dataclass(frozen=True)
class Pruned(KD):
    """What is left of the teacher without some of its units, recovered by labels and teacher."""

    ratio: Ratio = 0.5
    """Fraction of the channels or units of each layer but the head that are removed, in [0, 1);
    at least one stays."""
    importance: pruning.Importance = "l1"
    """What stays: the units with the largest Σ |w| or Σ w² of the weights that make and read them,
    or a choice by the run's seed."""
    weights: Literal["pruned", "fresh"] = "pruned"
    """The teacher's, or drawn anew: the control that shares no more than the architecture."""

    @property
    def begins_trained(self) -> bool:
        return self.weights == "pruned"

    @property
    def versions(self) -> dict[str, str]:
        """For the record."""
        return {"torch-pruning": pruning.library().__version__}

    def problem(self) -> str | None:
        if self.teacher.copies != 1:
            return (
                f"teacher.copies: a student is what is left of one teacher, not of "
                f"{self.teacher.copies}; remove the key"
            )
        return super().problem()

    def misfit(self, backbone: Any, shape: tuple[int, int, int], classes: int) -> str | None:
        its = resolve_backbone(self.teacher, "teacher")
        if its is not None and plain_config(its) != plain_config(backbone):
            key = "checkpoint" if self.teacher.checkpoint else "backbone"
            return (
                f"teacher.{key}: a pruned student is what is left of its teacher, whose backbone "
                "is not the row's; remove the key, or give both the same backbone"
            )
        try:
            whole = super().networks(backbone, shape, classes, 0)
            problem = pruning.misfit(whole, shape, self.ratio, self.importance)
        except UserError as error:
            return f"name: {error}"
        return problem and (
            f"name: this backbone cannot be pruned: {problem}; choose another, e.g. mlp, lenet, "
            "conv4"
        )

    def networks(
        self, backbone: Any, shape: tuple[int, int, int], classes: int, seed: int
    ) -> Student:
        """The pruned architecture with parameters drawn under `seed`."""
        student = super().networks(backbone, shape, classes, seed)
        pruning.prune(student, shape, self.ratio, self.importance, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pruning.redraw(student)
        return student

    def networks_from(
        self,
        teachers: Sequence[nn.Module],
        backbone: Any,
        shape: tuple[int, int, int],
        classes: int,
        seed: int,
    ) -> Student:
        """What is left of a copy of the teacher; with `weights: fresh` its architecture."""
        if self.weights == "fresh":
            return self.networks(backbone, shape, classes, seed)
        (teacher,) = teachers
        student = super().networks(backbone, shape, classes, seed)
        # First its type: numbers of float64 would be rounded on their way.
        student = student.to(next(teacher.parameters()).dtype)
        student.load_state_dict(teacher.state_dict())
        pruning.prune(student, shape, self.ratio, self.importance, seed)
        return student
