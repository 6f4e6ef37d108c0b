"""Decoupled knowledge distillation (DKD).

Zhao, Cui, Song, Qiu and Liang, "Decoupled knowledge distillation", CVPR 2022, arXiv:2203.08679. KL
from teacher to student is that of "the label or not" (TCKD), plus that among the other classes
(NCKD) weighted by the teacher's doubt 1 − p_y; DKD gives both parts weights of their own.

Differs from the paper: nothing in the formula. The published code hides the label by adding −1000
to its logit and takes the logarithm of probabilities that may be 0, so it is not finite for logits
of ±500; here sums over the other classes are log-sums, and the label is left out of them. The code
lets the weight of the whole rise linearly from 0 over the first 20 epochs: that is the family's.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tlresearch.functional.precision import at_least_float32

Logits = Float[Tensor, "batch classes"]


class Decoupled(NamedTuple):
    """The two parts of KL(p ‖ q) of each sample, in nats."""

    target: Float[Tensor, " batch"]
    """TCKD: KL between (p_y, 1 − p_y) and (q_y, 1 − q_y)."""
    others: Float[Tensor, " batch"]
    """NCKD: KL between p and q given that it is not y; 0 where there are two classes."""
    doubt: Float[Tensor, " batch"]
    """1 − p_y of the teacher: KL(p ‖ q) = TCKD + (1 − p_y) · NCKD."""


def dkd_loss(
    student: Logits,
    teacher: Logits,
    y: Int64[Tensor, " batch"],
    target_weight: Tensor | float,
    others_weight: Tensor | float,
    temperature: Tensor | float,
) -> Float[Tensor, ""]:
    """T² (1/N) Σₙ (α TCKDₙ + β NCKDₙ), eq. (7) at the temperature T, with Hinton's T².

    Args:
        student: z, at least two classes.
        teacher: v, same shape; no gradient flows to it.
        y: labels.
        target_weight: α ≥ 0; 1 in the paper.
        others_weight: β ≥ 0; 8 for most pairs on CIFAR-100, 2 for resnet56 and resnet20.
        temperature: T > 0; 4 on CIFAR-100.

    Returns:
        Nats, in float32 at least.
    """
    part = decoupled(student, teacher, y, temperature)
    loss = target_weight * part.target + others_weight * part.others
    return temperature**2 * loss.mean()


def decoupled(
    student: Logits, teacher: Logits, y: Int64[Tensor, " batch"], temperature: Tensor | float
) -> Decoupled:
    """KL(p ‖ q) = TCKD + (1 − p_y) NCKD of each sample, p = softmax(v / T), q = softmax(z / T).

    Section 3.1 of the paper; without T².

    Args:
        student: z, at least two classes.
        teacher: v; no gradient flows to it.
        y: labels.
        temperature: T > 0.
    """
    is_label = torch.arange(student.shape[-1], device=y.device) == y.unsqueeze(-1)
    odds_q, log_q = _split(at_least_float32(student) / temperature, y, is_label)
    odds_p, log_p = _split(at_least_float32(teacher.detach()) / temperature, y, is_label)
    doubt = torch.sigmoid(-odds_p)
    target = torch.sigmoid(odds_p) * (F.logsigmoid(odds_p) - F.logsigmoid(odds_q))
    target = target + doubt * (F.logsigmoid(-odds_p) - F.logsigmoid(-odds_q))
    p = log_p.exp().masked_fill(is_label, 0.0)
    return Decoupled(target, (p * (log_p - log_q)).sum(-1), doubt)


def _split(
    z: Logits, y: Int64[Tensor, " batch"], is_label: Bool[Tensor, "batch classes"]
) -> tuple[Float[Tensor, " batch"], Logits]:
    """log(p_y / (1 − p_y)); and log p given that it is not y, with 0 in the place of y."""
    others = z.masked_fill(is_label, -torch.inf).logsumexp(-1)
    odds = z.gather(-1, y.unsqueeze(-1)).squeeze(-1) - others
    return odds, (z - others.unsqueeze(-1)).masked_fill(is_label, 0.0)
