"""Scores that choose a model for a target without labels.

Each is a function of what a model says of the target's inputs, or of losses on a labelled source
and weights that carry them over to the target. `tlresearch.adaptation.scores` measures them.
"""

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 1024
"""Rows of a matrix of similarities at a time; a matter of memory, not of results."""


def entropy(probabilities: Float[Tensor, "*rows classes"]) -> Float[Tensor, "*rows"]:
    """H(p) = −Σ_c p_c log p_c, in nats, with 0 log 0 = 0.

    Args:
        probabilities: p ≥ 0, each row with the sum 1.
    """
    return -torch.special.xlogy(probabilities, probabilities).sum(-1)


def mean_entropy(probabilities: Float[Tensor, "samples classes"]) -> Float[Tensor, ""]:
    """1/n Σᵢ H(pᵢ), in nats: 0 for certain predictions, log C for undecided ones.

    As a criterion of choice (the lower the better): Morerio et al., "Minimal-entropy correlation
    alignment for unsupervised deep domain adaptation", ICLR 2018, arXiv:1711.10288.

    Args:
        probabilities: pᵢ of each sample.
    """
    return entropy(probabilities).mean()


def information(probabilities: Float[Tensor, "samples classes"]) -> Float[Tensor, ""]:
    """H(1/n Σᵢ pᵢ) − 1/n Σᵢ H(pᵢ), in nats, in [0, log C]: the information of x about the class.

    High where single predictions are certain and all classes are predicted. Bridle et al.,
    "Unsupervised classifiers, mutual information and 'phantom targets'", NIPS 1991; as a criterion
    of choice: Musgrave et al., "Three new validators and a large-scale benchmark ranking for
    unsupervised domain adaptation", arXiv:2208.07360.

    Args:
        probabilities: pᵢ of each sample.
    """
    return entropy(probabilities.mean(0)) - mean_entropy(probabilities)


def soft_neighbourhood_density(
    probabilities: Float[Tensor, "samples classes"], temperature: float = 0.05
) -> Float[Tensor, ""]:
    """1/n Σᵢ H(Pᵢ), Pᵢⱼ ∝ exp(⟨fᵢ, fⱼ⟩ / τ) over all j ≠ i, f = p / ‖p‖; in nats.

    In [0, log(n − 1)]: high where a sample has many near neighbours. Saito et al., "Tune it the
    right way: unsupervised validation of domain adaptation via soft neighborhood density", ICCV
    2021, arXiv:2108.10860, with their τ of .05 on softmax outputs.

    Args:
        probabilities: pᵢ of each sample; at least two samples, of which the value depends on the
            number.
        temperature: τ > 0.
    """
    f = probabilities / probabilities.norm(dim=1, keepdim=True)
    total = f.new_zeros(())
    for first in range(0, len(f), CHUNK):
        similar = f[first : first + CHUNK] @ f.T / temperature
        rows = torch.arange(len(similar), device=f.device)
        similar[rows, first + rows] = -torch.inf  # no sample is its own neighbour
        total = total + entropy(similar.softmax(1)).sum()
    return total / len(f)


def density_ratio(
    source_probability: Float[Tensor, " samples"], source: int, target: int
) -> Float[Tensor, " samples"]:
    """w(x) = p_T(x) / p_S(x) = n_S / n_T · P(target | x) / P(source | x).

    Bickel et al., "Discriminative learning for differing training and test distributions", ICML
    2007; with features for x: You et al., see `embedded_risk`.

    Args:
        source_probability: P(source | x) of a domain classifier, above 0.
        source: n_S, source samples that it was trained on.
        target: n_T, target samples that it was trained on.
    """
    return source / target * (1 - source_probability) / source_probability


def embedded_risk(
    weights: Float[Tensor, " samples"], losses: Float[Tensor, " samples"]
) -> Float[Tensor, ""]:
    """mean(w ℓ) + η mean(w) − η, η = −Cov(w ℓ, w) / Var(w): deep embedded validation (DEV).

    The mean loss on the target as estimated on the source; w, whose mean should be 1, is a control
    variate. With equal weights (Var(w) = 0) η is 0. You et al., "Towards accurate model selection
    in deep unsupervised domain adaptation", ICML 2019, its function `GetRisk`.

    Args:
        weights: w of held-out source samples, see `density_ratio`.
        losses: ℓ of each, e.g. 0 where the prediction is right and 1 where it is wrong.
    """
    weighted = weights * losses
    centred = weights - weights.mean()
    variance = centred.square().mean()
    covariance = (centred * (weighted - weighted.mean())).mean()
    some = variance > 0
    eta = torch.where(some, -covariance / torch.where(some, variance, 1.0), 0.0)
    return weighted.mean() + eta * weights.mean() - eta
