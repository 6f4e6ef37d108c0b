"""How zero-shot predictions are scored: among unseen classes, and among all of them.

Xian, Lampert, Schiele and Akata, "Zero-shot learning - a comprehensive evaluation of the good, the
bad and the ugly", TPAMI 2018, arXiv:1707.00600: accuracies are means over classes, and the
generalised setting is summed up by a harmonic mean. Chao, Changpinyo, Gong and Sha, "An empirical
study and analysis of generalized zero-shot learning for object recognition in the wild", ECCV 2016,
arXiv:1605.04253: calibrated stacking, and the area under the curve that it draws.

Accuracies are fractions in [0, 1], float64.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Scores = Float[Tensor, "n classes"]
Labels = Int64[Tensor, " n"]


def accuracy_by_class(
    predicted: Labels, labels: Labels, classes: int
) -> Float[Tensor, " {classes}"]:
    """acc_c = |{i: ŷᵢ = yᵢ = c}| / |{i: yᵢ = c}|; NaN for a class without a sample.

    Args:
        predicted: ŷ.
        labels: y, 0 … classes − 1.
        classes: how many there are.
    """
    totals = torch.bincount(labels, minlength=classes)
    hits = torch.bincount(labels[predicted == labels], minlength=classes)
    return hits.double() / totals


def per_class_accuracy(predicted: Labels, labels: Labels) -> Float[Tensor, ""]:
    """The mean of acc_c over the classes that occur: each counts alike, however many its samples.

    NaN without samples.
    """
    classes = int(labels.max()) + 1 if len(labels) else 0
    return accuracy_by_class(predicted, labels, classes).nanmean()


def harmonic_mean(
    seen: Float[Tensor, "*batch"], unseen: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """H = 2 s u / (s + u) of the accuracies on seen and unseen classes; 0 where both are 0."""
    total = seen + unseen
    return torch.where(total > 0, 2 * seen * unseen / total.where(total > 0, 1), 0)


def calibrated(scores: Scores, seen: Bool[Tensor, " classes"], constant: float) -> Scores:
    """f_c(x) − γ · 1[c is seen] (Chao et al. 2016, "calibrated stacking").

    Args:
        scores: f.
        seen: which classes were trained on; their scores are larger for that alone.
        constant: γ, in units of the scores. 0: as they are; −∞, ∞: only seen, only unseen classes.
    """
    return torch.where(seen, scores - constant, scores)


def seen_unseen_curve(
    scores: Scores, labels: Labels, seen: Bool[Tensor, " classes"]
) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"]]:
    """(acc_seen, acc_unseen) in the generalised setting for every γ of calibrated stacking.

    With m_i the best seen less the best unseen score, sample i is called seen while γ < mᵢ. So the
    accuracies change at the distinct mᵢ only: from γ = −∞, where all are called seen, to ∞.

    Args:
        scores: f, of seen and unseen classes, at least one of each.
        labels: y; samples of seen and of unseen classes.
        seen: which classes were trained on.
    """
    best_seen, first = _best(scores, seen)
    best_unseen, second = _best(scores, ~seen)
    from_seen = seen[labels]
    correct = torch.where(from_seen, first == labels, second == labels)
    share = _class_shares(labels, seen) * correct
    margin, order = (best_seen - best_unseen).sort()
    lost = (share * from_seen)[order].cumsum(0)
    won = (share * ~from_seen)[order].cumsum(0)
    # Samples of one margin change sides together: only the last of them is a point.
    last = torch.cat([margin[1:] != margin[:-1], torch.ones_like(margin[:1], dtype=torch.bool)])
    start = lost.new_zeros(1)
    return lost[-1] - torch.cat([start, lost[last]]), torch.cat([start, won[last]])


def area_under_curve(
    acc_seen: Float[Tensor, " points"], acc_unseen: Float[Tensor, " points"]
) -> Float[Tensor, ""]:
    """∫ acc_seen d acc_unseen, by trapezoids: AUSUC of Chao et al. 2016, free of any γ."""
    return torch.trapezoid(acc_seen, acc_unseen)


def distinguishable(attributes: Float[Tensor, "classes attributes"]) -> Float[Tensor, ""]:
    """The highest per-class accuracy that attributes allow: distinct rows / rows.

    Classes of equal attributes get equal scores from any method, and one of them is chosen.
    """
    distinct = len(torch.unique(attributes, dim=0))
    return torch.tensor(distinct / len(attributes), dtype=torch.float64)


def _best(scores: Scores, among: Bool[Tensor, " classes"]) -> tuple[Tensor, Tensor]:
    """The highest score among some of the classes, and whose it is."""
    best = scores.masked_fill(~among, float("-inf")).max(-1)
    return best.values, best.indices


def _class_shares(labels: Labels, seen: Bool[Tensor, " classes"]) -> Float[Tensor, " n"]:
    """What a sample counts in its side's per-class accuracy: 1 / (samples · classes present)."""
    counts = torch.bincount(labels, minlength=len(seen))
    present = counts > 0
    classes = torch.where(seen, (present & seen).sum(), (present & ~seen).sum())
    return 1 / (counts * classes)[labels].double()
