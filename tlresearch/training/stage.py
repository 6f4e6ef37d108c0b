"""One stage of training: its steps, the choice of the best weights on held-out data, its end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tlresearch.training.averages import Average
from tlresearch.training.best import Best
from tlresearch.training.distributed import Onlooker
from tlresearch.training.loop import Training, fit
from tlresearch.training.observer import RunObserver

Batch = Callable[[int], tuple[Tensor | None, ...]]


@dataclass
class Stage:
    """How far a stage is; its `place` goes into a checkpoint and comes back from there."""

    training: Training
    step: int = 0
    best: Best | None = None
    waited: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """Evaluations without a better one, of each seed."""
    last: Best | None = None
    """The last weights, once those that were selected have taken their place."""

    def __post_init__(self) -> None:
        self.waited = torch.zeros(len(self.training.seeds), dtype=torch.int64)

    def place(self) -> dict[str, Any]:
        """What a checkpoint has to say of it beside the step."""
        best = self.best and {
            "score": self.best.score,
            "params": self.best.params,
            "buffers": self.best.buffers,
        }
        return {"best": best, "waited": self.waited}

    def fits(self, place: dict[str, Any]) -> bool:
        """Whether a checkpoint's place is of a stage like this one."""
        best, shapes = place["best"], _shapes(self.training.stack.params)
        return (
            place["step"] in range(self.training.train.steps + 1)
            and place["waited"].shape == self.waited.shape
            and (best is None or _shapes(best["params"]) == shapes)
        )

    def go_to(self, place: dict[str, Any]) -> None:
        """Continues where a checkpoint was."""
        self.step, self.waited = place["step"], place["waited"].cpu()
        self.best = Best(**place["best"]) if place["best"] else None

    def reset(self) -> None:
        """Before the next stage."""
        self.step, self.best = 0, None

    def begin(self, stage: int, done: int | None = None) -> None:
        """What starts anew with each stage, counted from 0.

        Args:
            stage: which one.
            done: steps of the stages before it; None: as many each as this one has.
        """
        train, training = self.training.train, self.training
        training.wake(stage * train.steps if done is None else done)
        self.waited.zero_()
        if train.reset_optimizer and stage > 0:
            training.reset_optimizer()
        if train.average:
            training.average = Average.start(training.stack, train.average)

    def learn(
        self,
        batch: Batch,
        observer: RunObserver | Onlooker,
        scores: Callable[[], Tensor],
        name: str,
    ) -> None:
        """Trains to the stage's end; leaves the last weights, or with `selected` the best.

        Args:
            batch: see `fit`.
            observer: sees every step.
            scores: of each seed's weights on held-out data, the higher the better; (S,).
            name: of the stage, for a seed whose weights broke.
        """
        train, training = self.training.train, self.training
        if train.checkpoint == "last":
            fit(training, batch, train.steps, self.step, observer)
            if training.average:
                training.average.swap(training.stack)
        else:
            self._fit_and_select(batch, observer, scores)
        training.average = None
        self._stop_broken(name)
        observer.flush()

    def _stop_broken(self, name: str) -> None:
        """Stops the seeds whose last step broke their weights; no later loss would tell."""
        training = self.training
        for place, failure in enumerate(training.failures):
            weights = (p[place] for p in training.stack.params.values())
            if failure is None and not all(bool(w.isfinite().all()) for w in weights):
                steps = training.steps[place]
                training.stop(place, f"its weights were not finite after {name}, {steps} steps")

    def _fit_and_select(
        self, batch: Batch, observer: RunObserver | Onlooker, scores: Callable[[], Tensor]
    ) -> None:
        """Trains, and ends with each seed's weights that were best on the held-out part."""
        train, training = self.training.train, self.training
        best = self.best = self.best or Best.start(training.stack)
        if self.step and (self.step % train.evaluate_every == 0 or self.step == train.steps):
            self._select(best, scores)  # this step's checkpoint was written before its evaluation
        while self.step < train.steps and any(training.active):
            until = min(
                self.step - self.step % train.evaluate_every + train.evaluate_every, train.steps
            )
            fit(training, batch, until, self.step, observer)
            self.step = until
            self._select(best, scores)
        if training.average:
            training.average.swap(training.stack)
        self.last = Best.start(training.stack)
        best.restore(training.stack)

    def _select(self, best: Best, scores: Callable[[], Tensor]) -> None:
        """Keeps what is better than before, and stops the seeds that have waited long enough."""
        training, patience = self.training, self.training.train.patience
        if training.average:
            training.average.swap(training.stack)
        better = best.update(training.stack, scores()).cpu()
        if training.average:
            training.average.swap(training.stack)
        self.waited = torch.where(better, 0, self.waited + 1)
        for place, waited in enumerate(self.waited.tolist()):
            if patience and waited >= patience and training.active[place]:
                training.stop(place, None)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
