"""The scores that choose a model without target labels, as metrics of a run; higher is better."""

import torch

from tlresearch.adaptation.trained import Trained, fraction, probabilities
from tlresearch.errors import UserError
from tlresearch.functional.domain_distance import domain_classifier
from tlresearch.functional.selectors import (
    density_ratio,
    embedded_risk,
    information,
    mean_entropy,
    soft_neighbourhood_density,
)

ORACLE = "oracle"
"""Accuracy on the target under the name by which a selection may ask for it."""

SELECTORS = {
    "source_acc": "source validation accuracy",
    "entropy": "entropy",
    "im": "information maximisation",
    "snd": "soft neighbourhood density",
    "dev": "deep embedded validation",
    "reverse": "reverse validation",
    ORACLE: "target labels (oracle)",
}
"""What a selection may choose by, and what its table says of it."""

UNLABELLED = tuple(name for name in SELECTORS if name != ORACLE)
"""Those that need no label of the target."""

PROBABILISTIC = ("entropy", "im", "snd")
"""Those of a method that predicts probabilities, and of no other."""

NEIGHBOURS = 4000
"""Target samples that `snd` compares, all with all; of a larger pool so many are drawn."""
CLASSIFIED = 2000
"""Samples of each domain that a domain classifier is trained on; of more so many are drawn."""


def check_selection(metric: str) -> None:
    """Refuses to choose by what needs labels of the target and does not say so.

    Raises:
        UserError: with the names of the scores that may choose.
    """
    if metric not in SELECTORS:
        raise UserError(
            f"'select.metric' is '{metric}', which needs target labels or is no score, so it must "
            f"not choose; expected one of {', '.join(UNLABELLED)}, or '{ORACLE}', which opens the "
            "target labels and is named in the table"
        )


@torch.no_grad()
def scores(trained: Trained) -> dict[str, float]:
    """Every score but reverse validation; without held-out source samples fewer."""
    pair, found = trained.data.pair, dict[str, float]()
    if trained.method.probabilistic:
        found = _of_probabilities(trained)
    places = pair.held_out_pools[trained.data.place]
    if len(places):
        held_out = trained.scores(pair.source.images[places])
        right = held_out.argmax(-1) == pair.source.labels[places]
        found["source_acc"] = fraction(right)
        found["dev"] = 1 - _embedded_risk(trained, ~right)
    return found


def _of_probabilities(trained: Trained) -> dict[str, float]:
    """The scores of predicted probabilities of the target pool."""
    pair, pool = trained.data.pair, trained.data.pair.target_pools[trained.data.place]
    said = probabilities(trained.target_scores(pair.target.images[pool]))
    near = trained.drawn(torch.arange(len(pool), device=pool.device), NEIGHBOURS, "snd")
    return {
        "entropy": -mean_entropy(said).item(),
        "im": information(said).item(),
        "snd": soft_neighbourhood_density(said[near]).item(),
    }


def _embedded_risk(trained: Trained, wrong: torch.Tensor) -> float:
    """DEV of the error on held-out source samples.

    The domain classifier sees the features of the samples that were trained on, the weights are of
    those that were held out.
    """
    pair, place = trained.data.pair, trained.data.place
    few = [
        trained.drawn(pools[place], CLASSIFIED, f"dev, {name}")
        for name, pools in (("source", pair.source_pools), ("target", pair.target_pools))
    ]
    source = trained.features(pair.source.images[few[0]], "source")
    target = trained.features(pair.target.images[few[1]], "target")
    held_out = trained.features(pair.source.images[pair.held_out_pools[place]], "source")
    probability = domain_classifier(source, target)(held_out).clamp_min(1e-12)
    weights = density_ratio(probability, len(source), len(target))
    return embedded_risk(weights, wrong.double()).item()
