"""What pseudo-labels did round by round, as arrays of a record; made when all training is over."""

from typing import Any

from torch import Tensor

from tlresearch.adaptation.method import Chosen


def round_log(
    journal: list[Chosen | None], size: int, classes: int, truth: Tensor | None
) -> dict[str, Any]:
    """A row for each round that predicted the target pool; {} if none did.

    `pseudo_round`: its number, from 0; `pseudo_kept`: fraction of the pool that it trained on (0
    where training ended instead); `pseudo_counts`: of them, samples of each class;
    `pseudo_changed`: fraction of the pool that is predicted otherwise than in the row before (NaN
    in the first); and where the labels are known, `pseudo_acc` of the samples that were kept (NaN
    of none) and `pseudo_acc_pool` of all.

    Args:
        journal: what each round chose.
        size: of the pool.
        classes: how many there are.
        truth: true labels of the pool, which a report may see and nothing before it; None: a
            selection is under way.
    """
    found: dict[str, list[Any]] = {}
    before: Tensor | None = None
    for number, one in enumerate(journal):
        if one is None or one.predicted is None:
            continue
        guessed = one.predicted
        row: dict[str, Any] = {
            "round": number,
            "kept": len(one.places) / size,
            "counts": guessed[one.places].bincount(minlength=classes).tolist(),
            "changed": float("nan") if before is None else changed_fraction(guessed, before),
        }
        if truth is not None:
            right = (guessed == truth).double()
            row |= {"acc": right[one.places].mean().item(), "acc_pool": right.mean().item()}
        for name, value in row.items():
            found.setdefault(f"pseudo_{name}", []).append(value)
        before = guessed
    return found


def changed_fraction(now: Tensor, before: Tensor) -> float:
    """The fraction of a pool that is predicted otherwise than before."""
    return (now != before).double().mean().item()
