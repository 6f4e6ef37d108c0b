"""Shallow methods: closed forms on features, on the evaluator and in the records of the deep ones.

An Estimator has no steps and no network: it places the samples of both domains in one space
(`align`) and trains a classifier there on the source. Everything is float64 numpy on the CPU, and
nothing is drawn but the folds that choose C: where the benchmark draws no samples either, all seeds
have the same numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tlresearch.adaptation import shallow_classifiers as classifiers
from tlresearch.adaptation.method import AdaptationMethod, Round
from tlresearch.errors import UserError
from tlresearch.training.settings import Positive, Train
from tlresearch.training.tree import Tree

Matrix = Float[np.ndarray, "samples dim"]
"""Samples in rows, float64."""
Target = Float[np.ndarray, "target dim"]
"""Those of the target, where both domains are there."""
Labels = Int[np.ndarray, " samples"]
Map = Callable[[Matrix], Matrix]


class Alignment(NamedTuple):
    """Where samples of each domain are placed; the two spaces are the same."""

    source: Map
    target: Map


def unchanged(x: Matrix) -> Matrix:
    """x."""
    return x


class Fitted(nn.Module):
    """What an estimator learned, in the place of a network.

    It takes inputs as networks do, (batch, channels, rows, columns), and computes in float64.
    """

    def __init__(
        self, alignment: Alignment, scores: Callable[[Matrix], Matrix], details: dict[str, Any]
    ) -> None:
        """Holds what it is given.

        Args:
            alignment: where samples go.
            scores: of samples there, one for each class; the highest is the prediction.
            details: what was chosen, for the record.
        """
        super().__init__()
        self.alignment, self.scores, self.details = alignment, scores, details

    def features(self, x: Tensor) -> Float[Tensor, "batch width"]:
        """Where samples of the target are placed."""
        return torch.from_numpy(self.alignment.target(rows(x)))

    def source_features(self, x: Tensor) -> Float[Tensor, "batch width"]:
        """Where samples of the source are placed, those that were not fitted to as well."""
        return torch.from_numpy(self.alignment.source(rows(x)))

    def forward(self, x: Tensor) -> Float[Tensor, "batch classes"]:
        return torch.from_numpy(self.scores(self.features(x).numpy()))

    def source_scores(self, x: Tensor) -> Float[Tensor, "batch classes"]:
        """Scores of samples of the source."""
        return torch.from_numpy(self.scores(self.source_features(x).numpy()))


def rows(x: Tensor) -> Matrix:
    """Inputs as rows of numbers, float64."""
    return x.flatten(1).double().cpu().numpy()


@dataclass(frozen=True)
class Estimator(AdaptationMethod):
    """A closed form on features, and a classifier behind it."""

    head: ClassVar[tuple[int, ...]] = ()
    """There is no network: no setting, unlike that of the other methods."""

    classifier: Literal["1nn", "svm", "logistic"] = "1nn"
    """The nearest source sample (Euclidean); a linear SVM, one class against the rest; or logistic
    regression."""
    c: tuple[Positive, ...] | None = None
    """C of the linear classifiers, ½ ‖w‖² + C Σ loss; each above 0. Of several the one is taken
    that 5-fold cross-validation on the source's training samples finds best, of equals the first.
    null: 1."""

    def align(self, source: Matrix, labels: Labels, target: Target) -> Alignment:
        """Where samples go.

        Args:
            source: training samples.
            labels: of the source, 0 … classes − 1.
            target: samples that are adapted to, without labels.

        Raises:
            UserError: a setting does not fit the samples.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define align")

    def fit(
        self, source: Matrix, labels: Labels, target: Target, classes: int, key: Tensor
    ) -> Fitted:
        """Aligns the domains and trains the classifier on the aligned source.

        Args:
            source: training samples.
            labels: of the source.
            target: samples that are adapted to.
            classes: of both domains.
            key: of the seed, for the folds.

        Raises:
            UserError: a setting does not fit the samples.
        """
        alignment = self.align(source, labels, target)
        z = alignment.source(source)
        if self.classifier == "1nn":
            return Fitted(alignment, classifiers.nearest(z, labels, classes), {})
        train = classifiers.TRAINERS[self.classifier]
        candidates = self.c or (1.0,)
        c = candidates[0]
        details: dict[str, Any] = {}
        if self.draws:
            found = classifiers.cross_validation(train, z, labels, classes, candidates, key)
            c = candidates[int(np.argmax(found))]
            details["cross_validation"] = dict(zip(map(str, candidates), found, strict=True))
        (scores,) = train(z, labels, classes, (c,))
        return Fitted(alignment, scores, details | {"c": c})

    @property
    def draws(self) -> bool:
        """Whether anything depends on the seed apart from the samples."""
        return self.c is not None and len(self.c) > 1

    @property
    def probabilistic(self) -> bool:
        """Scores of an SVM are margins, those of the nearest neighbour distances."""
        return self.classifier == "logistic"

    def problem(self) -> str | None:
        if self.classifier == "1nn" and self.c is not None:
            return "c: the nearest neighbour has no C; remove it, or set classifier: svm"
        if self.c == ():
            return "c: give at least one number above 0, or leave it out"
        return None

    def parts(self, train: Train) -> tuple[Round, ...]:
        """None: there are no steps."""
        return ()

    def networks(  # type: ignore[override]
        self, backbone: Any, shape: tuple[int, int, int], classes: int, seed: int
    ) -> nn.Module:
        """Nothing that is trained."""
        return nn.Module()

    def predict_source(self, networks: nn.Module, state: Tree, x: Tensor) -> Tensor:
        assert isinstance(networks, Fitted)
        return networks.source_scores(x)

    def source_features(self, networks: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(networks, Fitted)
        return networks.source_features(x)


def check_dim(dim: int, source: Matrix, target: Target, least: int) -> None:
    """Refuses more components than there can be.

    Args:
        dim: what was asked for.
        source: (n, d).
        target: (k, d).
        least: samples that the components are found in.

    Raises:
        UserError: `dim` is above d or the samples.
    """
    d = source.shape[1]
    if dim > min(d, least):
        raise UserError(
            f"dim: {dim} components were asked for, of inputs with {d} numbers, in {least} samples "
            f"({len(source)} of the source, {len(target)} of the target); set it to at most "
            f"{min(d, least)}"
        )
