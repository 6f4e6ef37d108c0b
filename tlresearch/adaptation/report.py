"""What a trained seed is reported by; the one place that sees target labels, and only reads."""

from typing import Any

import torch
from torch import Tensor, nn

from tlresearch.adaptation.batches import SeedData
from tlresearch.adaptation.method import AdaptationMethod, Chosen
from tlresearch.adaptation.round_log import round_log
from tlresearch.data.domains import Opened
from tlresearch.training.tree import Tree

METRICS = ("acc", "source_acc")


@torch.no_grad()
def measure(
    method: AdaptationMethod,
    networks: nn.Module,
    state: Tree,
    data: SeedData,
    journal: list[Chosen | None],
    place: int,
    opened: Opened | None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and arrays of one seed.

    Args:
        method: with the seed's own settings.
        networks: final, in evaluation mode.
        state: what it predicts with.
        data: the seed's view of the pair.
        journal: what each round chose of the target.
        place: of the seed in its stack.
        opened: the target's labels; None: nothing that needs them is measured.
    """
    found: dict[str, float] = {}
    held_out = data.held_out()
    if held_out:
        right = [method.predict_source(networks, state, x).argmax(-1) == y for x, y in held_out]
        found["source_acc"] = torch.cat(right).double().mean().item()
    truth = opened and opened.training_labels[place]
    arrays = round_log(journal, len(data.pair.target_pools[place]), data.pair.classes, truth)
    if opened is None:
        return found, arrays
    predicted = _scores(method, networks, state, data, opened.test.images).argmax(-1)
    found["acc"] = (predicted == opened.test.labels).double().mean().item()
    return found, arrays


def _scores(
    method: AdaptationMethod, networks: nn.Module, state: Tree, data: SeedData, images: Tensor
) -> Tensor:
    """Logits of all images."""
    return method.predict_all(
        networks, state, len(images), lambda places: data.pair.inputs(images[places])
    )
