"""How near a student is to its teacher, and to the labels: measures, all in float64.

Fidelity beside accuracy: Stanton et al., "Does knowledge distillation really work?", NeurIPS 2021,
arXiv:2106.05945, section 3 (top-1 agreement and predictive KL). For calibration see
`tlresearch.functional.calibration`.
"""

from jaxtyping import Float, Int64
from torch import Tensor

from tlresearch.functional.losses import cross_entropy
from tlresearch.functional.soft_targets import kl_divergences

Logits = Float[Tensor, "samples classes"]


def top1_agreement(student: Logits, teacher: Logits) -> Float[Tensor, ""]:
    """(1/N) Σₙ 1[argmaxₖ zₙₖ = argmaxₖ vₙₖ], in [0, 1].

    Args:
        student: z.
        teacher: v, same shape.

    Raises:
        ValueError: there is no sample.
    """
    _some(student)
    return (student.argmax(-1) == teacher.argmax(-1)).double().mean()


def kl_to_teacher(student: Logits, teacher: Logits) -> Float[Tensor, ""]:
    """(1/N) Σₙ KL(softmax(vₙ) ‖ softmax(zₙ)), in nats, at T = 1: 0 where both say the same.

    Args:
        student: z.
        teacher: v, same shape.

    Raises:
        ValueError: there is no sample.
    """
    _some(student)
    return kl_divergences(student.double(), teacher.double()).mean()


def negative_log_likelihood(logits: Logits, y: Int64[Tensor, " samples"]) -> Float[Tensor, ""]:
    """−(1/N) Σₙ log softmax(zₙ)[yₙ], in nats: `cross_entropy` in float64.

    Args:
        logits: z.
        y: labels.

    Raises:
        ValueError: there is no sample.
    """
    _some(logits)
    return cross_entropy(logits.double(), y)


def _some(logits: Logits) -> None:
    """A mean of nothing would be NaN and look like a measure."""
    if not len(logits):
        raise ValueError("a measure of predictions needs samples, but got none")
