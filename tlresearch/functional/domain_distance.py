"""How well a linear classifier tells two domains apart by their features."""

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.functional import random

Features = Float[Tensor, "samples width"]


def domain_classifier(
    source: Float[Tensor, "source width"], target: Float[Tensor, "target width"]
) -> Callable[[Features], Float[Tensor, " samples"]]:
    """z ↦ P(source | z) by logistic regression on standardised features, trained on both.

    Classes are as frequent as their samples. Weight decay ½‖w‖² beside the sum of the losses
    (scikit-learn's C = 1), which has one minimum whatever the order of the samples.

    Args:
        source: features z of source samples, at least one.
        target: likewise.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    both = torch.cat([source, target]).detach().double()
    centre, spread = both.mean(0), both.std(0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    domains = torch.arange(len(both)) < len(source)
    model = LogisticRegression(max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near the minimum is near enough
        model.fit(((both - centre) / spread).cpu().numpy(), domains.numpy())

    def probability(features: Features) -> Float[Tensor, " samples"]:
        standard = (features.detach().double() - centre) / spread
        found = torch.from_numpy(model.predict_proba(standard.cpu().numpy())[:, 1])
        return found.to(features.device)

    return probability


def proxy_a_distance(error: float) -> float:
    """2 (1 − 2 ε), ε the error of a domain classifier: 0 at chance, 2 where it never errs.

    Ben-David et al., "Analysis of representations for domain adaptation", NIPS 2006; section 3.2
    of Ganin et al., JMLR 2016. Below 0 where the classifier is worse than chance.

    Args:
        error: fraction in [0, 1] on samples that it was not trained on, with both domains weighing
            the same.
    """
    return 2 * (1 - 2 * error)


def held_out_a_distance(
    source: Float[Tensor, "source width"], target: Float[Tensor, "target width"], key: Tensor
) -> float:
    """`proxy_a_distance` of a linear classifier trained on half of each domain, of the other half.

    Of the larger domain as many samples are drawn as the smaller has.

    Args:
        source: features of source samples, at least two.
        target: likewise.
        key: of the draw and of the halves.
    """
    half = min(len(source), len(target)) // 2
    parts = []
    for domain, features in enumerate((source, target)):
        order = random.permutation(random.fold(key, domain), len(features))
        drawn = features[order[: 2 * half].to(features.device)]
        parts.append((drawn[:half], drawn[half:]))
    (source_fit, source_test), (target_fit, target_test) = parts
    probability = domain_classifier(source_fit, target_fit)
    wrong = (probability(source_test) <= 0.5).double().mean()
    wrong = 0.5 * (wrong + (probability(target_test) > 0.5).double().mean())
    return proxy_a_distance(wrong.item())
