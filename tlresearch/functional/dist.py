"""Relations between predictions in place of the predictions themselves (DIST).

Huang, You, Wang, Qian and Xu, "Knowledge distillation from a stronger teacher", NeurIPS 2022,
arXiv:2205.10536. The student's probabilities shall correlate with the teacher's: over the classes
of each sample (inter-class), and over the samples of each class (intra-class).

T²: the authors' first code has no temperature; their later code (as others' repositories have it)
has one, and multiplies both parts by T², as here. Other than KL, a correlation does not shrink by
1/T² (for T → ∞ the inter-class one is that of the logits), so T² here is a weight that grows.

Differs from the code: a row or column that is constant up to rounding, whose correlation is not
defined, counts as correlation 0 with a finite gradient; theirs adds 1e-8 to the denominator, which
also lowers correlations of columns of very small probabilities.
"""

from jaxtyping import Float
from torch import Tensor

from tlresearch.functional.precision import at_least_float32
from tlresearch.functional.soft_targets import standardised

Logits = Float[Tensor, "batch classes"]


def dist_loss(
    student: Logits,
    teacher: Logits,
    inter_weight: Tensor | float,
    intra_weight: Tensor | float,
    temperature: Tensor | float,
) -> Float[Tensor, ""]:
    """T² (β L_inter + γ L_intra): see `inter_class_loss` and `intra_class_loss`.

    Args:
        student: z.
        teacher: v, same shape; no gradient flows to it.
        inter_weight: β ≥ 0; 1 in the authors' code.
        intra_weight: γ ≥ 0; 1 in the authors' code.
        temperature: T > 0; 1 in the authors' code where none is named.

    Returns:
        In [0, 2 T² (β + γ)], without a unit, in float32 at least.
    """
    inter = inter_weight * inter_class_loss(student, teacher, temperature)
    return temperature**2 * (inter + intra_weight * intra_class_loss(student, teacher, temperature))


def inter_class_loss(
    student: Logits, teacher: Logits, temperature: Tensor | float
) -> Float[Tensor, ""]:
    """L_inter = 1 − (1/N) Σₙ ρ(qₙ, pₙ), q and p softmax of z / T and v / T, ρ Pearson's.

    For T → ∞ it is 1 − (1/N) Σₙ ρ(zₙ, vₙ).
    """
    q, p = _probabilities(student, temperature), _probabilities(teacher.detach(), temperature)
    return 1 - correlations(q, p).mean()


def intra_class_loss(
    student: Logits, teacher: Logits, temperature: Tensor | float
) -> Float[Tensor, ""]:
    """L_intra = 1 − (1/K) Σₖ ρ(q·ₖ, p·ₖ): as `inter_class_loss`, over samples for each class."""
    q, p = _probabilities(student, temperature), _probabilities(teacher.detach(), temperature)
    return 1 - correlations(q.mT, p.mT).mean()


def correlations(
    a: Float[Tensor, "*rows n"], b: Float[Tensor, "*rows n"]
) -> Float[Tensor, "*rows"]:
    """ρ(a, b) = Σᵢ (aᵢ − ā)(bᵢ − b̄) / √(Σᵢ (aᵢ − ā)² Σᵢ (bᵢ − b̄)²) of each row.

    0 where a or b is constant up to rounding.
    """
    return (standardised(a) * standardised(b)).mean(-1)


def _probabilities(logits: Logits, temperature: Tensor | float) -> Logits:
    return (at_least_float32(logits) / temperature).softmax(-1)
