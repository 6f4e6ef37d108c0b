"""What a trained seed is reported by; the one place that sees target labels, and only reads."""

from typing import Any

import torch
from torch import Tensor

from tlresearch.adaptation.drawn import drawings
from tlresearch.adaptation.estimator import Fitted
from tlresearch.adaptation.method import Chosen
from tlresearch.adaptation.norms import passing
from tlresearch.adaptation.round_log import round_log
from tlresearch.adaptation.scores import ORACLE, UNLABELLED, scores
from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.adaptation.trained import Trained, fraction, probabilities
from tlresearch.data.domains import Labelled, Opened
from tlresearch.functional.calibration import expected_calibration_error
from tlresearch.functional.domain_distance import held_out_a_distance

METRICS = ("acc", *UNLABELLED, "source_test_acc", "ece", "domain_acc", "a_distance")

BINS = 15
"""Of the expected calibration error."""
COMPARED = 1000
"""Samples of each domain whose features are compared; of more so many are drawn."""


@torch.no_grad()
def measure(
    trained: Trained,
    benchmark: AdaptationSettings,
    journal: list[Chosen | None],
    opened: Opened | None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and arrays of one seed.

    Args:
        trained: final.
        benchmark: what to measure on and what to draw.
        journal: what each round chose of the target.
        opened: the target's labels; None: nothing that needs them is measured.
    """
    found, data = scores(trained), trained.data
    truth = opened and opened.training_labels[data.place]
    arrays = round_log(journal, len(data.pair.target_pools[data.place]), data.pair.classes, truth)
    if opened is None:
        return found, arrays
    said = trained.target_scores(opened.test.images)
    predicted = said.argmax(-1)
    accuracy = fraction(predicted == opened.test.labels)
    if benchmark.evaluate == ORACLE:
        return found | {ORACLE: accuracy}, arrays
    found["acc"] = accuracy
    both = (predicted, opened.test.labels)
    if trained.method.probabilistic:
        found["ece"] = float(expected_calibration_error(probabilities(said), both[1], BINS))
    arrays["target_classes"] = [shares(labels, data.pair.classes) for labels in both]
    if not trained.method.oracle:  # which has the target in the source's place
        found |= _domains(trained, opened)
        arrays |= drawings(trained, benchmark, _source_test(trained, opened), opened.test)
    return found, arrays


def shares(labels: Tensor, classes: int) -> list[float]:
    """Fraction of the samples that each class has, with four digits."""
    counts = labels.bincount(minlength=classes).double() / len(labels)
    return [round(share, 4) for share in counts.tolist()]


def _domains(trained: Trained, opened: Opened) -> dict[str, float]:
    """Source test accuracy, and how well the domains can be told apart by features."""
    found = {}
    if opened.source_test is not None:
        right = trained.scores(opened.source_test.images).argmax(-1) == opened.source_test.labels
        found["source_test_acc"] = fraction(right)
    source, target = (
        part.images[trained.drawn(torch.arange(len(part.images)), COMPARED, f"compared, {name}")]
        for name, part in (("source", _source_test(trained, opened)), ("target", opened.test))
    )
    if min(len(source), len(target)) > 1:
        found["a_distance"] = held_out_a_distance(
            trained.features(source, "source"),
            trained.features(target, "target"),
            trained.key("A-distance"),
        )
    with passing(trained.networks, "source"):
        of_source = _told(trained, source)
    of_target = _told(trained, target)
    if of_source and of_target:
        right = fraction([part > 0 for part in of_source])
        found["domain_acc"] = 0.5 * (right + fraction([part <= 0 for part in of_target]))
    return found


def _told(trained: Trained, images: Tensor) -> list[Tensor]:
    """The discriminator's logits in chunks; none without a discriminator."""
    networks = trained.networks
    if isinstance(networks, Fitted):
        return []
    parts = (trained.method.domain_logits(networks, x) for x in trained.inputs(images))
    return [part for part in parts if part is not None]


def _source_test(trained: Trained, opened: Opened) -> Labelled:
    """Source samples that were not trained on, if there are any."""
    if opened.source_test is not None:
        return opened.source_test
    pair, place = trained.data.pair, trained.data.place
    held_out = pair.held_out_pools[place]
    places = held_out if len(held_out) else pair.source_pools[place]
    return Labelled(pair.source.images[places], pair.source.labels[places])
