"""Training of a small head on frozen features, for one episode; maps under `vmap`."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.func import grad

from tlresearch.training.settings import Count, Fraction, NonNegative, Positive

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class HeadTraining:
    """Gradient descent with momentum on all images of the support set together."""

    steps: Count = 100
    """Steps, at least 1."""
    lr: Positive = 0.01
    """η, above 0."""
    momentum: Fraction = 0.9
    """m, in [0, 1)."""
    dampening: Fraction = 0.9
    """d, in [0, 1): how much of each gradient but the first is left out of the momentum."""
    weight_decay: NonNegative = 1e-3
    """λ, at least 0."""

    def descend(self, loss: Callable[[Weights], Tensor], weights: Weights) -> Weights:
        """v ← m v + (1 − d) (∇L(w) + λ w) and w ← w − η v, from v = ∇L(w) + λ w; `steps` times.

        These are the steps of `torch.optim.SGD`, whose first gradient is not dampened.

        Args:
            loss: L, a scalar function of the weights.
            weights: where to start.
        """
        velocity: Weights = {}
        for step in range(self.steps):
            slopes = grad(loss)(weights)
            slopes = {k: slopes[k] + self.weight_decay * w for k, w in weights.items()}
            velocity = self._mixed(velocity, slopes) if step else slopes
            weights = {k: w - self.lr * velocity[k] for k, w in weights.items()}
        return weights

    def _mixed(self, velocity: Weights, slopes: Weights) -> Weights:
        kept, new = self.momentum, 1 - self.dampening
        return {k: kept * velocity[k] + new * slope for k, slope in slopes.items()}
