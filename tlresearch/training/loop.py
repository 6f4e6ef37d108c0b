"""`fit`, the only training loop, and what changes while it runs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tlresearch.backbones.layers import dropout_keys, fuse_norms
from tlresearch.functional import random
from tlresearch.training.averages import Average
from tlresearch.training.device import autocast
from tlresearch.training.max_norm import bound_weights
from tlresearch.training.method import Labelled, Loss, Method
from tlresearch.training.optimizers import (
    begin_late_momenta,
    clip_per_seed,
    make_optimizer,
    schedule_factor,
)
from tlresearch.training.phases import bind_phases, merged
from tlresearch.training.scaler import LEAST_SCALE, Scaler
from tlresearch.training.settings import Train
from tlresearch.training.stack import SeedStack
from tlresearch.training.tree import Tree

Fields = tuple[Tensor | None, ...]
"""Of a batch, each with the seeds first."""


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
    statistics: list[str] = field(default_factory=list)
    """Buffers that a forward pass moves: all but the keys of dropout."""
    scaler: Scaler | None = None
    """With fp16-mixed."""
    average: Average | None = None
    """While a task with `train.average` is trained on."""
    _kept: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    """Slices of the stopped seeds by name, written back after each pass of the others."""
    _before: dict[str, Tensor] = field(default_factory=dict)
    """The statistics before the current pass."""

    def step_tensors(self) -> list[Tensor]:
        """What a step changes, each with the seeds first: weights, statistics, moments."""
        return list(self._named_tensors().values())

    def _named_tensors(self) -> dict[str, Tensor]:
        leaves = {name: leaf.detach() for name, leaf in self.stack.leaves.items()}
        moments = {
            f"{of} of {name}": value
            for name, leaf in self.stack.leaves.items()
            for of, value in self.optimizer.state.get(leaf, {}).items()
            if of != "step" and isinstance(value, Tensor)
        }
        if self.stack.direct:
            leaves, moments = ({k: t.unsqueeze(0) for k, t in d.items()} for d in (leaves, moments))
        return leaves | {name: self.stack.buffers[name] for name in self.statistics} | moments

    def stop(self, place: int, reason: str | None) -> None:
        """Stops one seed before its pass is taken; the others go on untouched.

        It keeps the weights, running statistics and optimiser state from before the pass.

        Args:
            place: the seed's place in the stack.
            reason: why it failed; None: it has learned enough for this task (see `wake`).
        """
        self.active[place] = False
        self.failures[place] = reason
        self.keep(place)
        # Not into the buffers yet: the backward pass of the others still needs them as they are.
        for name, before in self._before.items():
            self._kept[place][name] = before[place].clone()

    def keep(self, place: int) -> None:
        """Remembers what `restore_stopped` writes back."""
        self._kept[place] = {k: t[place].clone() for k, t in self._named_tensors().items()}

    def restore_stopped(self) -> None:
        """Writes the stopped seeds' weights, statistics and optimiser state back."""
        if not self._kept:
            return
        tensors = self._named_tensors()
        for place, kept in self._kept.items():
            for name, tensor in tensors.items():
                # Moments are 0 before the optimiser's first step.
                tensor[place] = kept.get(name, 0)

    def remember_statistics(self) -> None:
        """Before a pass, which may find that a seed has to stop."""
        if self.statistics:
            self._before = {name: self.stack.buffers[name].clone() for name in self.statistics}

    def wake(self, step: int) -> None:
        """Lets the seeds that were stopped without a failure go on, at the next task.

        Adam's bias correction goes on from `step`, as if all had taken all steps: the seeds of a
        stack share its count, and a seed alone shall have the same.
        """
        for name, leaf in self.stack.leaves.items():
            state = self.optimizer.state.get(leaf, {})
            if "step" in state:
                times = sum(p.repeats for p in self.method.phases() if p.trains(name))
                state["step"].fill_(step * times)
        for place, failure in enumerate(self.failures):
            if failure is None:
                self.active[place] = True
                self._kept.pop(place, None)

    def finish_pass(self, left_out: Sequence[int] = ()) -> None:
        """The stopped seeds get back what they had.

        Args:
            left_out: places that were kept for this pass only.
        """
        self.restore_stopped()
        for place in left_out:
            del self._kept[place]
        self._before = {}

    def count_step(self) -> None:
        """One more step for the active seeds."""
        self.steps = [n + active for n, active in zip(self.steps, self.active, strict=True)]

    def keep_stopped(self) -> None:
        """Remembers the stopped seeds' slices again, after a checkpoint was read."""
        for place, active in enumerate(self.active):
            if not active:
                self.keep(place)

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
    keys = dropout_keys(stack.module)
    fuse_norms(stack.module, not method.second_order)
    device = next(iter(stack.params.values())).device
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
        dropout_layers=keys,
        statistics=[name for name in stack.buffers if name not in keys],
        scaler=Scaler.start(stack.size, device) if train.precision == "fp16-mixed" else None,
    )


def fit(
    training: Training,
    batch: Callable[[int], Fields],
    steps: int,
    first_step: int = 0,
    observer: Observer | None = None,
) -> None:
    """Trains all seeds of a stack from `first_step` to `steps`, in place.

    A seed whose loss is not finite is stopped at that step, keeps its weights, and leaves the
    others' numbers untouched.

    Args:
        training: what is trained.
        batch: the fields of the method's `Batch`, stacked: (S, B, …). Step t takes the batches
            t · accumulate … (t + 1) · accumulate − 1.
        steps: length of this stage; the schedule runs over `train.steps`.
        first_step: where to go on.
        observer: sees every step.
    """
    observer = observer or Silent()
    train, stack, optimizer = training.train, training.stack, training.optimizer
    passes = bind_phases(stack, training.method, partial(_bind_loss, training))
    stack.train()
    for step in range(first_step, steps):
        if not any(training.active):
            return
        _set_learning_rate(optimizer, train, step)
        of_step = partial(_batch, batch, step * train.accumulate)
        if len(passes) > 1:
            of_step = cache(of_step)
        losses = []
        for number, one in enumerate(passes):
            with one.only_its_parameters():
                losses.append(_pass(training, one.loss, of_step, step, (number, len(passes))))
            if not any(training.active):
                return
        training.count_step()
        stack.average_buffers()
        if training.average:
            training.average.update(stack, training.active)
        observer.after_step(step, merged(losses))


def _batch(batch: Callable[[int], Fields], first: int, part: int) -> Fields:
    return batch(first + part)


def _pass(
    training: Training,
    loss_of: Callable[..., Loss],
    batch: Callable[[int], Fields],
    step: int,
    number: tuple[int, int],
) -> Loss:
    """One step of the optimiser: forward, backward, clipping."""
    train, stack, optimizer = training.train, training.stack, training.optimizer
    training.remember_statistics()
    optimizer.zero_grad()
    loss = _backward(training, loss_of, batch, step, number)
    if not any(training.active):
        training.finish_pass()
        return loss
    gradients = [leaf.grad for leaf in stack.leaves.values() if leaf.grad is not None]
    left_out = _unscale(training, gradients, step)
    if train.clip:
        clip_per_seed(gradients, train.clip, stacked=not stack.direct)
    begin_late_momenta(optimizer)
    optimizer.step()
    if train.max_norm:
        bound_weights(stack, train.max_norm)
    training.finish_pass(left_out)
    return loss


def _backward(
    training: Training,
    loss_of: Callable[..., Loss],
    batch: Callable[[int], Fields],
    step: int,
    number: tuple[int, int],
) -> Loss:
    """The mean loss of the step's batches; its gradient is left in the leaves."""
    train, stack = training.train, training.stack
    device = next(iter(stack.params.values())).device
    losses = []
    for part in range(train.accumulate):
        _set_dropout_keys(training, part, *number)
        with stack.local_gradients(part + 1 < train.accumulate):
            with autocast(train.precision, device):
                loss = loss_of(*batch(part))
            total = loss.total if stack.direct else loss.total.sum()
            if not math.isfinite(total.item()):
                _stop_non_finite(training, loss, step)
                if not any(training.active):
                    return loss
            if training.scaler:
                total = training.scaler.scaled(loss.total)
            (total / train.accumulate if train.accumulate > 1 else total).backward()
        losses.append(loss)
    return losses[0] if train.accumulate == 1 else _mean(losses)


def _mean(losses: list[Loss]) -> Loss:
    """The mean of the losses and of each of their terms."""
    totals = torch.stack([loss.total.detach() for loss in losses])
    terms = {
        name: torch.stack([loss.terms[name].detach() for loss in losses]).mean(0)
        for name in losses[0].terms
    }
    return Loss(totals.mean(0), terms)


def _unscale(training: Training, gradients: list[Tensor], step: int) -> list[int]:
    """Undoes the loss scale; the places of the seeds that leave this step out.

    Those are kept like stopped ones, for this step only.
    """
    scaler = training.scaler
    if scaler is None:
        return []
    finite = scaler.unscale(gradients, stacked=not training.stack.direct)
    left_out = []
    for place, (fine, lowest) in enumerate(zip(finite, scaler.exhausted(), strict=True)):
        if fine or not training.active[place]:
            continue
        if lowest:
            reason = f"the gradient was not finite at step {step}, at loss scale {LEAST_SCALE:g}"
            training.stop(place, reason)
        else:
            training.keep(place)
            left_out.append(place)
    scaler.update(finite, training.active)
    return left_out


def _bind_loss(training: Training, name: str) -> Callable[..., Loss]:
    """The method's loss of that name as a function of a batch's tensors, for all seeds."""
    method, last = training.method, training.train.channels_last
    # Not read within, and of one length: a compiled graph would be made anew once it is filled.
    found: dict[str, tuple[str, ...]] = {"terms": ()}

    def loss(
        networks: nn.Module, fields: dict[str, Tensor], state: Tree, *batch: Tensor
    ) -> tuple[Tensor, ...]:
        given = method.Batch(*batch)
        if last and isinstance(given, Labelled) and given.x.dim() == 4:
            given = given._replace(x=given.x.contiguous(memory_format=torch.channels_last))
        value = getattr(with_fields(method, fields), name)(networks, state, given)
        found["terms"] = tuple(value.terms)
        return (value.total, *value.terms.values())

    constants = (training.fields, training.state)
    call = training.stack.bind(loss, constants, training.train.compile)

    def named(*batch: Tensor | None) -> Loss:
        total, *terms = call(*batch)
        return Loss(total, dict(zip(found["terms"], terms, strict=True)))

    return named


def _set_learning_rate(optimizer: torch.optim.Optimizer, train: Train, step: int) -> None:
    if train.schedule != "constant" or train.warmup:
        for group in optimizer.param_groups:
            group["lr"] = train.lr * schedule_factor(train, step)


def _set_dropout_keys(training: Training, part: int, number: int, passes: int) -> None:
    """The key of dropout layer i: fold(key(seed, "dropout", n), i).

    n counts the seed's own forward passes.
    """
    if not training.dropout_layers:
        return
    count = (torch.tensor(training.steps) * passes + number) * training.train.accumulate + part
    keys = random.make_key(torch.tensor(training.seeds), "dropout", count)
    for i, name in enumerate(training.dropout_layers):
        training.stack.buffers[name].copy_(random.fold(keys, i))


def _stop_non_finite(training: Training, loss: Loss, step: int) -> None:
    """Stops the seeds whose own loss is not finite; their sum's check is cheaper than theirs."""
    for place, value in enumerate(loss.total.reshape(-1).tolist()):
        if training.active[place] and not math.isfinite(value):
            reason = f"the loss was {value} at step {step}"
            if training.steps[place] != step:
                reason += f" of its task, after {training.steps[place]} steps in all"
            training.stop(place, reason)
