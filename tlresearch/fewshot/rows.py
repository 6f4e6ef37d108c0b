"""An episode as an inner loop sees it: rows of inputs, their targets, and the loss between."""

from jaxtyping import Float, Int64
from torch import Tensor

from tlresearch.data.episodes import Episodes, labels
from tlresearch.functional.losses import cross_entropy


def batch_of(episode: Episodes) -> Episodes:
    """A single episode as a batch of one."""

    def first(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.unsqueeze(0)

    x = (episode.support_x.unsqueeze(0), episode.query_x.unsqueeze(0))
    return Episodes(*x, first(episode.support_y), first(episode.query_y))


def inputs_of(batch: Episodes) -> tuple[Tensor, ...]:
    """(support_x, query_x), and for a regression (…, support_y, query_y), class by class.

    Returns:
        x of shape (episodes, ways · samples, channels, rows, columns), where a vector is an image
        of one pixel with as many channels; targets of shape (episodes, samples, outputs).
    """
    x = [t.flatten(1, 2) for t in (batch.support_x, batch.query_x)]
    x = [t[..., None, None] if t.ndim == 3 else t for t in x]
    if batch.support_y is None or batch.query_y is None:
        return tuple(x)
    return (*x, batch.support_y.flatten(1, 2), batch.query_y.flatten(1, 2))


def targets_of(batch: Episodes, given: tuple[Tensor, ...] = ()) -> tuple[Tensor, ...]:
    """Targets of (support, query) rows of one episode: its values, or the places of its classes.

    Args:
        batch: the episodes.
        given: the values of one of them, as `inputs_of` has them; empty: labels.
    """
    ways, shots, queries = batch.sizes
    device = batch.support_x.device
    return given or (labels(ways, shots, device), labels(ways, queries, device))


def task_loss(
    outputs: Float[Tensor, "rows outputs"],
    targets: Float[Tensor, "rows outputs"] | Int64[Tensor, " rows"],
) -> Float[Tensor, ""]:
    """Mean squared error (no ½) where the targets are numbers; cross-entropy, in nats, else."""
    if targets.is_floating_point():
        return (outputs - targets).square().mean()
    return cross_entropy(outputs, targets)
