"""Soft targets: a student learns the probabilities of one teacher or of several.

Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, arXiv:1503.02531,
section 2, with its two means of an ensemble. Z-scores of logits (`standardised`): Sun et al.,
"Logit standardization in knowledge distillation", CVPR 2024, arXiv:2403.01427.

Mutual learning (Zhang et al., "Deep mutual learning", CVPR 2018, arXiv:1706.00384, eqs. (5) to (8))
needs nothing else: KL(p₂ ‖ p₁), from which network 1 learns, is `soft_target_loss` with the peer as
the teacher and T = 1; of several peers the mean of it is taken.

Differs from Hinton's paper: KL in place of cross-entropy. They differ by the entropy of the
teacher, which has no gradient, and so KL is 0 where the student equals the teacher. From Sun's: see
`standardised`.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.functional.precision import at_least_float32

Logits = Float[Tensor, "batch classes"]

_ROUNDING = 8
"""Multiples of the type's spacing: how far equal numbers may be from their mean."""


def soft_target_loss(
    student: Logits, teacher: Logits, temperature: Tensor | float
) -> Float[Tensor, ""]:
    """T² (1/N) Σₙ KL(softmax(vₙ / T) ‖ softmax(zₙ / T)): a sum over classes, a mean over samples.

    Hinton et al., section 2. Gradients of the KL shrink by 1/T²; with the factor T² the weight of
    this loss beside that of labels may stay when T changes, and T² ∂/∂z → (z − v) / (N K) for
    T → ∞ and logits of mean 0 (their eq. (4)).

    Args:
        student: z.
        teacher: v, same shape; a constant, no gradient flows to it.
        temperature: T > 0.

    Returns:
        Nats, in float32 at least; at least 0 up to rounding, which T² magnifies too.
    """
    z, v = at_least_float32(student) / temperature, at_least_float32(teacher) / temperature
    return temperature**2 * kl_divergences(z, v).mean()


def kl_divergences(
    student: Float[Tensor, "*batch classes"], teacher: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch"]:
    """KL(p ‖ q) = Σₖ pₖ (log pₖ − log qₖ) of each row, p = softmax(v), q = softmax(z), in nats.

    Args:
        student: z.
        teacher: v; no gradient flows to it.
    """
    log_p = at_least_float32(teacher.detach()).log_softmax(-1)
    log_q = at_least_float32(student).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def standardised(logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch classes"]:
    """Z(z) = (z − z̄) / σ(z), σ² = (1/K) Σₖ (zₖ − z̄)²: the z-scores of each row.

    Sun et al., arXiv:2403.01427, algorithm 1. Scores have mean 0, deviation 1, and lie within
    ±√(K − 1). Their base temperature τ divides the scores, and so is that of `soft_target_loss`,
    with its τ²: soft_target_loss(standardised(z), standardised(v), τ). The paper has τ = 2 (in a
    few pairs 3), weight 9 for this and .1 for labels; the latter see z itself.

    Differs from the paper: nothing. Their code divides by the deviation with K − 1 and adds 1e-7 to
    it: the same scores at the temperature τ √(K / (K − 1)), with the factor τ². Of a row whose
    logits are equal up to rounding, the scores are 0, with the finite gradient of z − z̄.
    """
    z = at_least_float32(logits)
    centred = z - z.mean(-1, keepdim=True)
    spread = centred.detach().abs().amax(-1, keepdim=True)
    kind = torch.finfo(z.dtype)
    noise = _ROUNDING * kind.eps * z.detach().abs().amax(-1, keepdim=True) + kind.tiny / kind.eps
    varies = spread > noise
    # By its largest first: squares of tiny numbers (probabilities, in DIST) would be 0. Scores do
    # not depend on the scale, so that it may be a constant.
    centred = centred / torch.where(varies, spread, 1.0)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / torch.where(varies, variance, 1.0).sqrt()


def ensemble_logits(
    teachers: Float[Tensor, "teachers batch classes"], temperature: Tensor | float = 1.0
) -> Float[Tensor, "batch classes"]:
    """T log((1/M) Σₘ softmax(vₘ / T)): softmax of it at T is the mean of M teachers' at T.

    Hinton et al., section 2: the arithmetic mean of individual predictions as soft targets. With
    it as the teacher, one loss serves for one or several. Of one teacher it is v less a constant
    per row, and no gradient flows to any.

    Args:
        teachers: vₘ, M ≥ 1.
        temperature: T > 0, that of the loss which it is for.
    """
    log_p = (at_least_float32(teachers.detach()) / temperature).log_softmax(-1)
    return temperature * (log_p.logsumexp(0) - math.log(len(teachers)))


def geometric_ensemble_logits(
    teachers: Float[Tensor, "teachers batch classes"],
) -> Float[Tensor, "batch classes"]:
    """(1/M) Σₘ vₘ: softmax of it at any T is the geometric mean of M teachers' at T, normalised.

    Hinton et al., section 2: the alternative of `ensemble_logits`; no gradient flows to a teacher.
    """
    return at_least_float32(teachers.detach()).mean(0)
