"""`fit`, the only training loop, and what changes while it runs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tlresearch.backbones.layers import dropout_keys
from tlresearch.functional import random
from tlresearch.training.device import autocast
from tlresearch.training.method import Labelled, Loss, Method
from tlresearch.training.optimizers import clip_per_seed, make_optimizer, schedule_factor
from tlresearch.training.settings import Train
from tlresearch.training.stack import SeedStack
from tlresearch.training.tree import Tree


class Observer(Protocol):
    """Whoever wants to see the steps: progress, log, checkpoints."""

    def after_step(self, step: int, loss: Loss) -> None:
        """Called after each step, counted from 0 within the stage.

        Args:
            step: the step just done.
            loss: of each seed: (S,), or () where there is one seed only.
        """
        ...


class Silent:
    """An observer that looks away."""

    def after_step(self, step: int, loss: Loss) -> None:
        """Does nothing."""


@dataclass
class Training:
    """The training of S seeds: what the loop changes and a checkpoint holds."""

    seeds: list[int]
    stack: SeedStack
    method: Method
    fields: dict[str, Tensor]
    """Numeric settings of the method that differ within the stack: (S,) by name."""
    train: Train
    state: Tree
    """The method's state, stacked."""
    optimizer: torch.optim.Optimizer
    steps: list[int]
    """Optimiser steps that each seed has done."""
    active: list[bool]
    """False once a seed was stopped; it then keeps its weights and optimiser state."""
    failures: list[str | None]
    """Why a seed was stopped."""
    dropout_layers: list[str] = field(default_factory=list)
    _kept: dict[int, list[Tensor]] = field(default_factory=dict)
    """Slices of the stopped seeds, written back after each step of the others."""

    def step_tensors(self) -> list[Tensor]:
        """What an optimiser step changes, each with the seeds first."""
        leaves = list(self.stack.leaves.values())
        moments = [
            value
            for leaf in leaves
            for name, value in self.optimizer.state.get(leaf, {}).items()
            if name != "step" and isinstance(value, Tensor)
        ]
        together = [t.detach() for t in leaves + moments]
        return [t.unsqueeze(0) for t in together] if self.stack.direct else together

    def stop(self, place: int, reason: str) -> None:
        """Stops one seed before its step is taken; the others go on untouched.

        Its weights and optimiser state stay; running statistics do not, as the forward pass that
        gave the reason to stop has already moved them.
        """
        self.active[place] = False
        self.failures[place] = reason
        self._kept[place] = [t[place].clone() for t in self.step_tensors()]

    def restore_stopped(self) -> None:
        """Writes the stopped seeds' weights and optimiser state back."""
        if not self._kept:
            return
        tensors = self.step_tensors()
        for place, kept in self._kept.items():
            # Moments come after the leaves, and are 0 before the optimiser's first step.
            kept += [torch.zeros_like(t[place]) for t in tensors[len(kept) :]]
            for tensor, value in zip(tensors, kept, strict=True):
                tensor[place] = value

    def count_step(self) -> None:
        """One more step for the seeds that took it."""
        self.steps = [n + active for n, active in zip(self.steps, self.active, strict=True)]

    def keep_stopped(self) -> None:
        """Remembers the stopped seeds' slices again, after a checkpoint was read."""
        for place, active in enumerate(self.active):
            if not active:
                self._kept[place] = [t[place].clone() for t in self.step_tensors()]

    def reset_optimizer(self) -> None:
        """Forgets the optimiser's moments; stopped seeds keep their weights."""
        self.optimizer = make_optimizer(self.train, self.stack.leaves.values())
        self.keep_stopped()

    def one(self, place: int) -> tuple[Method, nn.Module]:
        """Method and networks of one seed, its own settings and weights filled in."""
        own = {name: values[place].item() for name, values in self.fields.items()}
        return with_fields(self.method, own), self.stack.one(place)


def with_fields(method: Method, fields: dict[str, Any]) -> Method:
    """The method with some of its settings replaced by numbers or 0-dimensional tensors."""
    return replace(method, **fields) if fields else method


def start(
    seeds: list[int],
    stack: SeedStack,
    method: Method,
    fields: dict[str, Tensor],
    train: Train,
    state: Tree,
) -> Training:
    """A training at step 0."""
    return Training(
        seeds=list(seeds),
        stack=stack,
        method=method,
        fields=fields,
        train=train,
        state=state,
        optimizer=make_optimizer(train, stack.leaves.values()),
        steps=[0] * len(seeds),
        active=[True] * len(seeds),
        failures=[None] * len(seeds),
        dropout_layers=dropout_keys(stack.module),
    )


def fit(
    training: Training,
    batch: Callable[[int], tuple[Tensor | None, ...]],
    steps: int,
    first_step: int = 0,
    observer: Observer | None = None,
) -> None:
    """Trains all seeds of a stack from `first_step` to `steps`, in place.

    A seed whose loss is not finite is stopped at that step, keeps its weights, and leaves the
    others' numbers untouched.

    Args:
        training: what is trained.
        batch: the fields of `Labelled` at a step, stacked: (S, B, …).
        steps: length of this stage; the schedule runs over `train.steps`.
        first_step: where to go on.
        observer: sees every step.
    """
    observer = observer or Silent()
    train, stack, optimizer = training.train, training.stack, training.optimizer
    device = next(iter(stack.params.values())).device
    loss_of = _bind_loss(training)
    leaves = list(stack.leaves.values())
    stack.train()
    for step in range(first_step, steps):
        if not any(training.active):
            return
        _set_learning_rate(optimizer, train, step)
        _set_dropout_keys(training)
        with autocast(train.precision, device):
            loss = loss_of(*batch(step))
        total = loss.total if stack.direct else loss.total.sum()
        if not math.isfinite(total.item()):
            _stop_non_finite(training, loss, step)
            if not any(training.active):
                return
        optimizer.zero_grad()
        total.backward()
        if train.clip:
            grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
            clip_per_seed(grads, train.clip, stacked=not stack.direct)
        optimizer.step()
        training.restore_stopped()
        training.count_step()
        stack.average_buffers()
        observer.after_step(step, loss)


def _bind_loss(training: Training) -> Callable[..., Loss]:
    """The method's loss as a function of a batch's tensors, for all seeds."""
    method = training.method
    names: list[str] = []

    def loss(
        networks: nn.Module, fields: dict[str, Tensor], state: Tree, *batch: Tensor
    ) -> tuple[Tensor, ...]:
        value = with_fields(method, fields).loss(networks, state, Labelled(*batch))
        names[:] = value.terms
        return (value.total, *value.terms.values())

    constants = (training.fields, training.state)
    call = training.stack.bind(loss, constants, training.train.compile)

    def named(*batch: Tensor | None) -> Loss:
        total, *terms = call(*batch)
        return Loss(total, dict(zip(names, terms, strict=True)))

    return named


def _set_learning_rate(optimizer: torch.optim.Optimizer, train: Train, step: int) -> None:
    if train.schedule != "constant":
        for group in optimizer.param_groups:
            group["lr"] = train.lr * schedule_factor(train, step)


def _set_dropout_keys(training: Training) -> None:
    """The key of dropout layer i: fold(key(seed, "dropout", step), i), by each seed's own steps."""
    if not training.dropout_layers:
        return
    keys = random.make_key(torch.tensor(training.seeds), "dropout", torch.tensor(training.steps))
    for i, name in enumerate(training.dropout_layers):
        training.stack.buffers[name].copy_(random.fold(keys, i))


def _stop_non_finite(training: Training, loss: Loss, step: int) -> None:
    """Stops the seeds whose own loss is not finite; their sum's check is cheaper than theirs."""
    for place, value in enumerate(loss.total.reshape(-1).tolist()):
        if training.active[place] and not math.isfinite(value):
            training.stop(place, f"the loss was {value} at step {step}")
