"""What a method of continual learning says to its protocol, beyond the common contract."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from tlresearch.data.tasks import Scenario
from tlresearch.functional.fisher import Labels, diagonal_fisher
from tlresearch.settings import Bounds
from tlresearch.training.method import Method, TaskData


@dataclass(frozen=True)
class ContinualMethod(Method):
    """A method that learns one task after another."""

    sees: ClassVar[Literal["task", "tasks so far"]] = "task"
    """Which training data a task's batches are drawn from."""
    scenarios: ClassVar[tuple[Scenario, ...]] = get_args(Scenario)
    """The scenarios in which the method makes sense."""

    def problem(self) -> str | None:
        """What contradicts itself in the settings: one sentence that begins with a key, or None."""
        return None


@dataclass(frozen=True)
class FisherSettings:
    """How the Fisher information of a task is estimated, after training on it."""

    labels: Labels = "exact"
    """Expectation over all labels, one sampled label, the predicted one, or the data's own."""
    samples: Annotated[int, Bounds(ge=1)] | None = None
    """How many training samples are used, drawn without replacement; null: all."""
    batch: Annotated[int, Bounds(ge=1)] = 1
    """1: mean of per-sample squares. b > 1: squares of the mean gradient of b samples."""
    normalize: bool = False
    """Divides F by its mean over all parameters, so that every task weighs the same."""
    active_only: bool = True
    """Whether the softmax runs over the classes that are active in training, or over all units."""

    def problem(self) -> str | None:
        """What contradicts itself in the settings: one sentence that begins with a key, or None."""
        if self.batch > 1 and self.labels == "exact":
            return (
                "fisher.batch: an expectation over labels is taken per sample; set fisher.batch: 1 "
                "or fisher.labels to sample, predicted or empirical"
            )
        return None

    def estimate(self, networks: nn.Module, data: TaskData) -> dict[str, Tensor]:
        """F by parameter name, in nats per squared unit of θ; see `functional.fisher`."""
        own = data.places(self.samples, self.batch)
        if own:
            batches = (
                (x, y, mask if self.active_only else None)
                for x, y, mask in data.batches(self.samples, self.batch)
            )
            key = data.key("fisher labels") if self.labels == "sample" else None
            here = diagonal_fisher(networks, batches, self.labels, self.batch, key, own.start)
        else:
            params = networks.named_parameters()
            here = {k: torch.zeros_like(p) for k, p in params if p.requires_grad}
        fisher = data.average(here, -(-len(own) // self.batch))
        return _normalized(fisher) if self.normalize else fisher


def _normalized(fisher: dict[str, Tensor]) -> dict[str, Tensor]:
    """F over its mean; a Fisher that is 0 everywhere stays 0."""
    total = torch.stack([f.sum() for f in fisher.values()]).sum()
    mean = total / sum(f.numel() for f in fisher.values())
    return {k: f / mean.clamp_min(torch.finfo(mean.dtype).tiny) for k, f in fisher.items()}
