"""The classifiers of the shallow methods: nearest neighbour, linear SVM, logistic regression.

The SVM is Cortes and Vapnik, "Support-vector networks", Machine Learning 20, 1995, as libsvm solves
it, one class against the rest; logistic regression is scikit-learn's.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from tlresearch.errors import UserError
from tlresearch.functional import random

Matrix = Float[np.ndarray, "samples dim"]
Labels = Int[np.ndarray, " samples"]
Scores = Callable[[Matrix], Float[np.ndarray, "samples classes"]]
Trainer = Callable[[Matrix, Labels, int, Sequence[float]], list[Scores]]
"""(z, labels, classes, values of C) → scores by each."""

FOLDS = 5


def squared_distances(
    a: Float[np.ndarray, "n dim"], b: Float[np.ndarray, "m dim"]
) -> Float[np.ndarray, "n m"]:
    """‖aᵢ − bⱼ‖², at least 0."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)
    return np.maximum(squares - 2 * a @ b.T, 0)


def nearest(z: Matrix, labels: Labels, classes: int) -> Scores:
    """s_c(x) = −min over the samples of class c of ‖x − zᵢ‖; −∞ without samples.

    The highest is the class of the nearest sample, of equally near ones the first class.

    Args:
        z: source samples.
        labels: theirs.
        classes: how many.
    """
    groups = [z[labels == label] for label in range(classes)]

    def scores(x: Matrix) -> Float[np.ndarray, "samples classes"]:
        columns = [
            -np.sqrt(squared_distances(x, group).min(1)) if len(group) else np.full(len(x), -np.inf)
            for group in groups
        ]
        return np.stack(columns, 1)

    return scores


def linear_svm(z: Matrix, labels: Labels, classes: int, values: Sequence[float]) -> list[Scores]:
    """Minimises ½ ‖w‖² + C Σᵢ max(0, 1 − tᵢ (wᵀzᵢ + b)), t = ±1, for each class against the rest.

    With two classes once, and scores are 0 and wᵀx + b. The intercept b is free.

    Args:
        z: samples.
        labels: 0 … classes − 1; at least two of them occur.
        classes: how many.
        values: of C, above 0.

    Returns:
        The scores by each C.

    Raises:
        UserError: a class has no sample.
    """
    from sklearn.svm import SVC

    check_classes(labels, classes, 1)
    gram = z @ z.T
    found = []
    for c in values:
        weights, biases = [], []
        for label in range(classes) if classes > 2 else (1,):
            machine = SVC(C=c, kernel="precomputed", tol=1e-5).fit(gram, labels == label)
            weights.append(machine.dual_coef_[0] @ z[machine.support_])
            biases.append(machine.intercept_[0])
        found.append(linear(np.stack(weights, 1), np.array(biases)))
    return found


def logistic(z: Matrix, labels: Labels, classes: int, values: Sequence[float]) -> list[Scores]:
    """Minimises ½ ‖W‖² − C Σᵢ log softmax(Wᵀzᵢ + b)[yᵢ]; with two classes w of σ(wᵀz + b).

    Args:
        z: samples.
        labels: 0 … classes − 1.
        classes: how many.
        values: of C, above 0.

    Returns:
        Logits by each C.

    Raises:
        UserError: a class has no sample.
    """
    from sklearn.linear_model import LogisticRegression

    check_classes(labels, classes, 1)
    found = []
    for c in values:
        model = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(z, labels)
        found.append(linear(model.coef_.T, model.intercept_))
    return found


def linear(weights: Float[np.ndarray, "dim units"], bias: Float[np.ndarray, " units"]) -> Scores:
    """Wᵀx + b; of a single unit the scores of two classes are 0 and wᵀx + b."""

    def scores(x: Matrix) -> Float[np.ndarray, "samples classes"]:
        said = x @ weights + bias
        return said if said.shape[1] > 1 else np.concatenate([np.zeros_like(said), said], 1)

    return scores


TRAINERS: dict[str, Trainer] = {"svm": linear_svm, "logistic": logistic}
"""The classifiers that have a C, by name."""


def cross_validation(
    train: Trainer,
    z: Matrix,
    labels: Labels,
    classes: int,
    values: Sequence[float],
    key: Tensor,
) -> list[float]:
    """Accuracy by each C over five folds, each held out once; drawn class by class.

    Args:
        train: the classifier.
        z: source samples as they are aligned: the alignment is not made anew for each fold.
        labels: theirs.
        classes: how many.
        values: of C.
        key: for the folds.

    Raises:
        UserError: a class has fewer samples than there are folds.
    """
    check_classes(labels, classes, FOLDS)
    fold = folds(labels, key)
    right = np.zeros(len(values))
    for held in range(FOLDS):
        out = fold == held
        for place, scores in enumerate(train(z[~out], labels[~out], classes, values)):
            right[place] += (scores(z[out]).argmax(1) == labels[out]).sum()
    return (right / len(labels)).tolist()


def folds(labels: Labels, key: Tensor) -> Int[np.ndarray, " samples"]:
    """A fold 0 … 4 for each sample: each has a fifth of each class, up to one sample."""
    fold = np.empty(len(labels), dtype=np.int64)
    first = 0  # folds go on where the class before ended, so that they are of equal size
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = random.permutation(random.fold(key, int(label)), len(members)).numpy()
        fold[members[order]] = (first + np.arange(len(members))) % FOLDS
        first += len(members)
    return fold


def check_classes(labels: Labels, classes: int, least: int) -> None:
    """Refuses a class with too few samples.

    Raises:
        UserError: names the class.
    """
    counts = np.bincount(labels, minlength=classes)
    few = int(counts.argmin())
    if counts[few] < least:
        wanted = f"{FOLDS}-fold cross-validation needs {least}" if least > 1 else "one is needed"
        then = "give a single c, or take more samples" if least > 1 else "take more samples"
        raise UserError(
            f"class {few} of the source has {counts[few]} training samples, and {wanted}; {then}"
        )
