"""How networks are trained: the `train:` section of an experiment file."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tlresearch.settings import Bounds

Positive = Annotated[float, Bounds(gt=0)]
NonNegative = Annotated[float, Bounds(ge=0)]
Fraction = Annotated[float, Bounds(ge=0, lt=1)]
Count = Annotated[int, Bounds(ge=1)]


@dataclass(frozen=True)
class Train:
    """Optimiser, schedule, length and precision, for every method of a table.

    What a method has of its own, as `methods.LABEL.train`, goes over them.
    """

    steps: Count = 2000
    """Optimiser steps; in a stream, for each task."""
    batch_size: Count = 128
    """Samples of one forward and backward pass."""
    accumulate: Count = 1
    """Passes whose gradients are averaged for one step; the effective batch is their product."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """One of torch.optim's elementwise optimisers."""
    lr: Positive = 1e-3
    """Learning rate."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Adam's decay rates of the two moments."""
    momentum: Fraction = 0.0
    """SGD's momentum."""
    weight_decay: NonNegative = 0.0
    """L2 penalty (sgd, adam) or decoupled decay (adamw)."""
    schedule: Literal["constant", "cosine", "multistep", "annealed"] = "constant"
    """Learning rate over the steps of one `fit`: lr · factor(p), p = step / steps; `annealed` is
    (1 + 10 p)^(−0.75), as in DANN."""
    warmup: Fraction = 0.0
    """Fraction of the steps in which the rate rises linearly, before the schedule begins."""
    milestones: tuple[Fraction, ...] = ()
    """Multistep: fractions of the steps after which the rate is multiplied by `gamma`."""
    gamma: Positive = 0.1
    """Multistep: the factor."""
    clip: NonNegative = 0.0
    """Largest gradient norm of a seed; 0 is no clipping."""
    max_norm: NonNegative = 0.0
    """Largest length of the incoming weights of a unit, to which they are shortened after each
    step; 0: any."""
    reset_optimizer: bool = False
    """Whether the optimiser forgets its moments at each new task."""
    checkpoint: Literal["last", "selected"] = "last"
    """Weights at the end of a task: the last, or the best on the held-out part."""
    evaluate_every: Count = 200
    """Selected: steps between evaluations on the held-out part."""
    patience: Annotated[int, Bounds(ge=0)] = 0
    """Selected: a seed's task ends after so many evaluations without a better one; 0: never."""
    average: Fraction = 0.0
    """Decay of an exponential average of the weights, which replaces them at the end of a task
    and is what `selected` measures; 0: none."""
    precision: Literal["fp32", "fp64", "bf16-mixed", "fp16-mixed"] = "fp32"
    """Of the computation; with -mixed, weights and optimiser stay in float32. fp16-mixed scales
    the loss, each seed's by a scale of its own."""
    tf32: bool = False
    """CUDA: whether float32 products may round their factors to TensorFloat-32 (10 bits)."""
    channels_last: bool = False
    """Images and filters in the order batch, rows, columns, channels; one seed at a time."""
    compile: bool = False
    """Through `torch.compile` (needs a C++ compiler on a CPU)."""
    stack: Literal["auto"] | Annotated[int, Bounds(ge=1)] = "auto"
    """Most seeds that train as one program; `auto` decides by size and device."""


def check_train(train: Train) -> str | None:
    """What is contradictory in the settings, as one sentence, or None."""
    if train.schedule == "multistep" and not train.milestones:
        return "train.milestones: schedule 'multistep' needs some, e.g. [0.5, 0.75]"
    if list(train.milestones) != sorted(train.milestones):
        return "train.milestones: expected fractions in rising order, e.g. [0.5, 0.75]"
    if train.channels_last and train.stack not in ("auto", 1):
        return "train.channels_last: one seed trains at a time; set train.stack: 1 or leave it out"
    unread = {
        "milestones": ("schedule", train.schedule != "multistep"),
        "gamma": ("schedule", train.schedule != "multistep"),
        "betas": ("optimizer", train.optimizer == "sgd"),
        "momentum": ("optimizer", train.optimizer != "sgd"),
        "evaluate_every": ("checkpoint", train.checkpoint == "last"),
        "patience": ("checkpoint", train.checkpoint == "last"),
    }
    for name, (choice, is_unread) in unread.items():
        if is_unread and getattr(train, name) != getattr(Train(), name):
            chosen = getattr(train, choice)
            return (
                f"train.{name}: {choice} '{chosen}' does not use it; remove one or change the other"
            )
    return None
