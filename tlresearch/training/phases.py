"""The parts of a step, each with a loss and parameters of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from tlresearch.training.method import Loss, Method
from tlresearch.training.stack import SeedStack


@dataclass(frozen=True)
class Pass:
    """One backward pass and one step of the optimiser, of some of the parameters."""

    loss: Callable[..., Loss]
    """Of a batch's tensors, for all seeds."""
    others: list[Tensor]
    """Leaves that keep their weights and their moments: those that no gradient may reach."""

    @contextmanager
    def only_its_parameters(self) -> Iterator[None]:
        """Within: no gradient for the others, which costs nothing, and the optimiser skips them."""
        try:
            for leaf in self.others:
                leaf.requires_grad_(False)
            yield
        finally:
            for leaf in self.others:
                leaf.requires_grad_(True)


def bind_phases(
    stack: SeedStack, method: Method, bind: Callable[[str], Callable[..., Loss]]
) -> list[Pass]:
    """What a step does, in order: each phase of the method as often as it says.

    Args:
        stack: what the optimiser steps.
        method: says its phases.
        bind: from the name of one of its losses to that loss for all seeds.

    Raises:
        ValueError: a phase trains no parameter at all, or there are several in several processes.
    """
    passes, leaves, phases = [], stack.leaves, method.phases()
    if stack.processes.size > 1 and len(phases) > 1:
        raise ValueError(f"{type(method).__name__} has phases, which one process trains")
    for phase in phases:
        if not any(phase.trains(name) for name in leaves):
            raise ValueError(
                f"the phase {phase.loss} of {type(method).__name__} trains parameters whose names "
                f"begin with {' or '.join(phase.parameters) or 'nothing'}, and there are none"
            )
        others = [t for name, t in leaves.items() if t.requires_grad and not phase.trains(name)]
        passes += [Pass(bind(phase.loss), others)] * phase.repeats
    return passes


def merged(losses: list[Loss]) -> Loss:
    """What a log is told of a step: the first pass's total, and each term as it was last."""
    if len(losses) == 1:
        return losses[0]
    return Loss(losses[0].total, {name: v for loss in losses for name, v in loss.terms.items()})
