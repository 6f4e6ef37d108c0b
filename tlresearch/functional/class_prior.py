"""What a student lacks of classes that its transfer set did not show: a shift of their logits.

Hinton, Vinyals and Dean, arXiv:1503.02531, section 3: a student that never saw a 3 gets most of
them right once the bias of class 3 is raised by 3.5, and one that saw only 7s and 8s once their
biases are lowered by 7.6. Both numbers were chosen by errors on the test set.

Two ways to the number: `label_free_shift` needs the classes' prior and inputs without labels, and
is not in the paper; `best_shift_by_labels` is the paper's, an oracle. Of several classes the same
amount goes to all of them, as in the paper: what they gain together is set, and their order among
themselves stays.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Logits = Float[Tensor, "samples classes"]

_HALVINGS = 100
_MARGIN = 1e-3
"""How far inside an interval of equal errors a shift is, so that float32 does not leave it."""


def shifted(
    logits: Float[Tensor, "*batch labels"], classes: Sequence[int], amount: Tensor | float
) -> Float[Tensor, "*batch labels"]:
    """zₖ + b · 1[k ∈ C]: as if the biases of the last layer were raised by b for these classes.

    Args:
        logits: z.
        classes: C.
        amount: b, in nats; below 0 lowers.

    Raises:
        ValueError: C is empty, all classes (softmax would not change), or has one that z lacks.
    """
    return logits + _member(logits, classes).to(logits.dtype) * amount


def label_free_shift(logits: Logits, classes: Sequence[int], prior: float) -> Float[Tensor, ""]:
    """The b at which (1/N) Σₙ Σ_{k ∈ C} softmax(shifted zₙ)ₖ = π: mean predicted mass = prior.

    With oₙ = log Σ_{k ∈ C} exp zₙₖ − log Σ_{k ∉ C} exp zₙₖ the mass is the mean of σ(oₙ + b). It
    rises in b and is π between logit(π) − max o and logit(π) − min o, where b is halved for.

    Args:
        logits: z of inputs like those to be predicted; their labels are not needed.
        classes: C.
        prior: π, the part of such inputs that is of the classes C together, within (0, 1).

    Returns:
        b in nats, float64; where rounding lets several reach π, the one nearest to 0.

    Raises:
        ValueError: there is no sample, a logit is not finite, π is not within (0, 1), or as in
            `shifted`.
    """
    if not 0 < prior < 1:
        raise ValueError(f"the prior of classes {list(classes)} must be within (0, 1), not {prior}")
    inside, outside = _groups(logits, classes)
    odds = inside.logsumexp(-1) - outside.logsumexp(-1)
    centre = torch.logit(odds.new_tensor(prior))
    ends = centre - odds.max(), centre - odds.min()
    lowest = _halved(*ends, lambda b: torch.sigmoid(odds + b).mean() >= prior)
    highest = _halved(*ends, lambda b: torch.sigmoid(odds + b).mean() > prior)
    return torch.zeros_like(centre).clamp(lowest, highest)


def best_shift_by_labels(
    logits: Logits, y: Int64[Tensor, " samples"], classes: Sequence[int]
) -> Float[Tensor, ""]:
    """argmin_b of the errors of argmax(shifted zₙ): the oracle's shift. It reads the labels.

    Below θₙ = max_{k ∉ C} zₙₖ − max_{k ∈ C} zₙₖ a sample's prediction is outside C, above inside,
    so errors change only at thresholds: they are sorted, and every interval is counted.

    Args:
        logits: z of labelled samples.
        y: their labels.
        classes: C.

    Returns:
        b in nats, float64. Of all intervals with the fewest errors it is in the one nearest to 0,
        and there 0 itself, or else inside the nearer end by `_MARGIN` or half the interval, since
        at a threshold two classes are tied.

    Raises:
        ValueError: as in `label_free_shift`, less the prior.
    """
    inside, outside = _groups(logits, classes)
    threshold = outside.amax(-1) - inside.amax(-1)
    right_above = inside.argmax(-1) == y
    right_below = outside.argmax(-1) == y
    matters = right_above != right_below
    steps, order = threshold[matters].sort()
    gains = torch.where(right_above[matters][order], 1, -1)
    right = torch.cat([gains.new_zeros(1), gains.cumsum(0)])  # relative to a shift of −∞
    edges = torch.cat([steps.new_tensor([-torch.inf]), steps, steps.new_tensor([torch.inf])])
    low, high = edges[:-1], edges[1:]
    best = (right == right[low < high].max()) & (low < high)
    return _nearest_to_zero(low[best], high[best])


def _nearest_to_zero(low: Float[Tensor, " n"], high: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Of all points well inside the open intervals."""
    margin = ((high - low) / 2).clamp(max=_MARGIN)
    points = torch.where(
        (low < 0) & (high > 0), 0.0, torch.where(low >= 0, low + margin, high - margin)
    )
    return points[points.abs().argmin()]


def _halved(low: Tensor, high: Tensor, reached: Callable[[Tensor], Tensor]) -> Float[Tensor, ""]:
    """The least b in [low, high] at which `reached` turns true, to float64."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        yes = reached(middle)
        low, high = torch.where(yes, low, middle), torch.where(yes, middle, high)
    return high


def _groups(logits: Logits, classes: Sequence[int]) -> tuple[Logits, Logits]:
    """z of the classes, and z of the others; −∞ in the place of those that are not of the group."""
    if not len(logits) or not bool(logits.isfinite().all()):
        raise ValueError("a shift of logits needs samples with finite logits")
    member = _member(logits, classes)
    z = logits.detach().double()
    return z.masked_fill(~member, -torch.inf), z.masked_fill(member, -torch.inf)


def _member(logits: Tensor, classes: Sequence[int]) -> Bool[Tensor, " labels"]:
    """Whether each column is one of the classes."""
    count = logits.shape[-1]
    chosen = set(classes)
    if not chosen or len(chosen) == count or not chosen <= set(range(count)):
        raise ValueError(
            f"the classes whose logits are shifted must be some, but not all, of 0 to {count - 1}, "
            f"not {list(classes)}"
        )
    return torch.tensor([k in chosen for k in range(count)], device=logits.device)
