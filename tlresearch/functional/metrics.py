"""What an accuracy matrix says about learning and forgetting.

All functions take R of shape (…, T + 1, T): R[i, j] is the test accuracy on task j after training
on task i; row 0 is the network at initialisation (b of Lopez-Paz and Ranzato), row i ≥ 1 follows
the i-th task, columns are counted from 0 here. Leading dimensions (seeds) are kept. Values are
accuracies in [0, 1] or their differences. With one task, the means over j < T are NaN.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Matrix = Float[Tensor, "*seeds rows tasks"]
Scores = Float[Tensor, "*seeds"]


def accuracy(matrix: Matrix) -> Scores:
    """ACC = meanⱼ R[T, j] (Lopez-Paz and Ranzato 2017, eq. 2)."""
    return matrix[..., -1, :].mean(-1)


def backward_transfer(matrix: Matrix) -> Scores:
    """BWT = mean over j < T of R[T, j] − R[j, j] (Lopez-Paz and Ranzato 2017, eq. 3)."""
    return (matrix[..., -1, :] - _after_learning(matrix))[..., :-1].mean(-1)


def forward_transfer(matrix: Matrix) -> Scores:
    """FWT = mean over j > 1 of R[j−1, j] − b[j] (Lopez-Paz and Ranzato 2017, eq. 4)."""
    before = torch.diagonal(matrix[..., :-1, :], dim1=-2, dim2=-1)
    return (before - matrix[..., 0, :])[..., 1:].mean(-1)


def forgetting(matrix: Matrix) -> Scores:
    """mean over j < T of max over 1 ≤ l < T of R[l, j], less R[T, j] (Chaudhry et al. 2018, eq. 3).

    The maximum is over all earlier rows, and not the last, so the value can be negative.
    """
    best = matrix[..., 1:-1, :-1]
    if best.shape[-2] == 0:
        return matrix.new_full(matrix.shape[:-2], float("nan"))
    return (best.amax(-2) - matrix[..., -1, :-1]).mean(-1)


def forgetting_first_minus_last(matrix: Matrix) -> Scores:
    """mean over j < T of R[j, j] − R[T, j], which is −BWT; what many libraries call forgetting."""
    return -backward_transfer(matrix)


def intransigence(matrix: Matrix, reference: Float[Tensor, "*seeds tasks"]) -> Scores:
    """meanₖ a*ₖ − R[k, k] (Chaudhry et al. 2018, eq. 5).

    Args:
        matrix: R.
        reference: a*ₖ, accuracy on task k of a network trained jointly on tasks 1 … k.
    """
    return (reference - _after_learning(matrix)).mean(-1)


def learning_accuracy(matrix: Matrix) -> Scores:
    """meanⱼ R[j, j]: how well each task was learned at the time."""
    return _after_learning(matrix).mean(-1)


def average_incremental_accuracy(matrix: Matrix) -> Scores:
    """meanᵢ of mean over j ≤ i of R[i, j] (Rebuffi et al. 2017, iCaRL); not the same as ACC."""
    tasks = matrix.shape[-1]
    seen = torch.ones(tasks, tasks, dtype=matrix.dtype, device=matrix.device).tril()
    return ((matrix[..., 1:, :] * seen).sum(-1) / seen.sum(-1)).mean(-1)


def worst_case_accuracy(matrix: Matrix) -> Scores:
    """R[T, T]/T + (1 − 1/T) · mean over j < T of min over i ≥ j of R[i, j].

    WC-ACC of De Lange, van de Ven and Tuytelaars 2023 (arXiv:2205.13452, eq. 3), its minimum taken
    over the ends of tasks instead of over all steps.
    """
    tasks = matrix.shape[-1]
    later = torch.ones(tasks, tasks, dtype=torch.bool, device=matrix.device).tril()
    lowest = matrix[..., 1:, :].masked_fill(~later, float("inf")).amin(-2)
    return (matrix[..., -1, -1] + lowest[..., :-1].sum(-1)) / tasks


def _after_learning(matrix: Matrix) -> Float[Tensor, "*seeds tasks"]:
    """R[j, j]: accuracy on each task right after training on it."""
    return torch.diagonal(matrix[..., 1:, :], dim1=-2, dim2=-1)


METRICS = {
    "acc": accuracy,
    "forgetting": forgetting,
    "forgetting_first_minus_last": forgetting_first_minus_last,
    "bwt": backward_transfer,
    "fwt": forward_transfer,
    "learning_accuracy": learning_accuracy,
    "average_incremental_accuracy": average_incremental_accuracy,
    "worst_case_accuracy": worst_case_accuracy,
}
"""Every metric that needs the matrix alone, by its name in records and tables."""
