"""What a student's training trains: the student, and what a method needs beside it."""

from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.backbones.classifier import Backbone, Classifier

EXTRAS = "extras."
"""What the names of everything but the student begin with."""


class Student(Classifier):
    """A classifier, and under `extras` regressors, projections or peers of its method."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__(backbone, classes)
        self.extras = nn.ModuleDict()

    def forward(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch classes"]:
        return super().forward(x)


def of_student(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The student's own tensors: those of a `Classifier`."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith(EXTRAS)}
