"""Hints: the student's feature regresses the teacher's.

Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, arXiv:1412.6550, eq. (3).

Differs from the paper: the regressor is linear (a 1x1 convolution on maps) and not followed by the
teacher's nonlinearity, its kernel never shrinks a map: the larger of two maps is average-pooled to
the size of the smaller one. Student and regressor are trained with the other terms of the loss and
not in a stage before them, unless the protocol has such a stage.
"""

from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.errors import UserError
from tlresearch.functional.features import (
    Form,
    common_size,
    full_precision,
    pooled_alike,
    prepared,
)


def hint_loss(
    regressed: Float[Tensor, "batch width *size"],
    teacher: Float[Tensor, "batch width *teacher_size"],
    form: Form = "code",
) -> Float[Tensor, ""]:
    """(1/BD) Σ (r − t)², or with `form="paper"` (1/B) Σ ½ ‖r − t‖², which is D/2 times as much.

    Eq. (3) is ½ ‖r − t‖² of one sample, D numbers. The mean over all numbers is what benchmarks
    minimise (RepDistiller, with weight 100), and its weight does not depend on the size of a map.

    Args:
        regressed: r, the student's feature behind its `regressor`.
        teacher: t, the teacher's, of as many channels; no gradient flows to it. Of two maps the
            larger is average-pooled.
        form: which factor.

    Raises:
        ValueError: the features have different channels, or one is a map and one a vector.
    """
    with full_precision(regressed):
        r, t = prepared(regressed, teacher)
        if r.ndim == t.ndim == 4:
            r, t = pooled_alike(r, t)
        if r.shape != t.shape:  # else one would be broadcast
            raise ValueError(f"features {tuple(r.shape)} and {tuple(t.shape)} do not match")
        squares = (r - t).square().flatten(1)
        return squares.mean() if form == "code" else 0.5 * squares.sum(1).mean()


def regressor(student: tuple[int, ...], teacher: tuple[int, ...], at: str = "hint") -> nn.Module:
    """From the student's feature to one that `hint_loss` compares with the teacher's.

    A linear layer between vectors; a 1x1 convolution between maps, behind average-pooling where
    the student's map is the larger. Initialised by torch's default.

    Args:
        student: shape of one sample's feature, (dim,) or (channels, rows, columns).
        teacher: likewise.
        at: what the message of an error begins with, e.g. the two taps.

    Raises:
        UserError: one is a map and the other a vector, or one of them is neither.
    """
    for whose, shape in (("student", student), ("teacher", teacher)):
        if len(shape) not in (1, 3):
            raise UserError(
                f"{at}: the {whose}'s feature has shape {shape} (student {student}, teacher "
                f"{teacher}); expected a vector (dim) or a map (channels, rows, columns)"
            )
    if len(student) != len(teacher):
        kinds = {1: "a vector", 3: "a map"}
        raise UserError(
            f"{at}: the student's feature {student} is {kinds[len(student)]} and the teacher's "
            f"{teacher} {kinds[len(teacher)]}; tap two maps or two vectors"
        )
    if len(student) == 1:
        return nn.Linear(student[0], teacher[0])
    convolution = nn.Conv2d(student[0], teacher[0], 1)
    size = common_size(student[1:], teacher[1:])
    if size == student[1:]:
        return convolution
    return nn.Sequential(nn.AdaptiveAvgPool2d(size), convolution)
