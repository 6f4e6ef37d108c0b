"""What a zero-shot method is: an Estimator on features and attributes, without a gradient loss."""

from dataclasses import dataclass
from typing import Annotated, Any

from jaxtyping import Float, Int64
from torch import Tensor

from tlresearch.settings import Bounds
from tlresearch.training.method import Method

Features = Float[Tensor, "n dim"]
Attributes = Float[Tensor, "classes attributes"]
Fitted = Any
"""What an estimator learned: a NamedTuple of tensors."""


@dataclass(frozen=True)
class ZeroShotMethod(Method):
    """Learns from seen classes what attributes look like, and scores classes by their attributes.

    `networks` and `loss` are those of a plain classifier and are not to be changed: where the
    benchmark trains the features, they are trained on the seen classes in the same way for all.
    """

    calibration: Annotated[float, Bounds(ge=0)] = 0.0
    """Taken off the scores of seen classes where all classes compete (calibrated stacking)."""

    def fit(
        self, features: Features, labels: Int64[Tensor, " n"], attributes: Attributes, seed: int
    ) -> Fitted:
        """What is learned from seen classes; it gets nothing else to learn from.

        Args:
            features: of the training images, float64.
            labels: rows of `attributes`.
            attributes: of the seen classes.
            seed: of the run, for whatever is drawn (`functional.random`).
        """
        raise NotImplementedError(f"{type(self).__name__} does not define fit")

    def scores(
        self, fitted: Fitted, features: Features, attributes: Attributes
    ) -> Float[Tensor, "n classes"]:
        """A score for each image and class, the highest is the prediction.

        Args:
            fitted: what `fit` returned.
            features: of test images.
            attributes: of the classes to choose from, seen or not; a class's score must not depend
                on the others in the list.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define scores")
