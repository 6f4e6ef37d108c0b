"""Elementwise optimisers over stacked tensors, and schedules as pure functions of progress.

An elementwise optimiser on stacked parameters is S separate optimisers. Weight decay, momentum
and Adam's moments all are elementwise; what looks across parameters (L-BFGS, SAM) is not.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from tlresearch.functional.schedules import annealed
from tlresearch.training.settings import Train


def make_optimizer(train: Train, leaves: Iterable[Tensor]) -> torch.optim.Optimizer:
    """torch's optimiser over `leaves`, fused."""
    leaves = list(leaves)
    common = {"lr": train.lr, "weight_decay": train.weight_decay, "fused": True}
    if train.optimizer == "sgd":
        return torch.optim.SGD(leaves, momentum=train.momentum, **common)
    kind = torch.optim.Adam if train.optimizer == "adam" else torch.optim.AdamW
    return kind(leaves, betas=train.betas, **common)


def begin_late_momenta(optimizer: torch.optim.Optimizer) -> None:
    """Momentum 0 for parameters that have their first gradient after others had theirs.

    With it SGD's first step is what it is without; its fused form fails where some have none.
    """
    if not isinstance(optimizer, torch.optim.SGD) or not optimizer.state:
        return
    leaves = optimizer.param_groups[0]["params"]
    if optimizer.param_groups[0]["momentum"] and len(optimizer.state) < len(leaves):
        for leaf in leaves:
            if leaf.grad is not None and leaf not in optimizer.state:
                optimizer.state[leaf]["momentum_buffer"] = torch.zeros_like(leaf)


def schedule_factor(train: Train, step: int) -> float:
    """What the learning rate is multiplied by at `step` (from 0) of `train.steps`.

    In the first w = round(warmup · steps) steps: (step + 1) / w (Goyal et al., arXiv:1706.02677,
    section 2.2). After them, constant: 1. cosine: ½ (1 + cos(π (step − w) / (steps − w)))
    (Loshchilov and Hutter 2017, eq. 5, one period). multistep: gamma for each milestone m with
    step ≥ m · steps. annealed: (1 + 10 p)^(−0.75) with p = (step − w) / (steps − w) (Ganin et al.,
    JMLR 2016, section 5.2.2).
    """
    warm = round(train.warmup * train.steps)
    if step < warm:
        return (step + 1) / warm
    if train.schedule == "annealed":
        return annealed((step - warm) / (train.steps - warm))
    if train.schedule == "cosine":
        progress = (step - warm) / (train.steps - warm)
        return 0.5 * (1 + math.cos(math.pi * progress))
    if train.schedule == "multistep":
        return train.gamma ** sum(step / train.steps >= m for m in train.milestones)
    return 1.0


def clip_per_seed(gradients: list[Tensor], largest: float, stacked: bool) -> None:
    """Scales each seed's gradient g in place by min(1, largest / ‖g‖), ‖·‖ over all its tensors.

    Args:
        gradients: (S, …) each where `stacked`, else of one seed.
        largest: the largest norm.
        stacked: whether the leading dimension is the seeds.
    """
    rows = [g.reshape(len(g) if stacked else 1, -1) for g in gradients]
    norm = torch.stack([row.square().sum(1) for row in rows]).sum(0).sqrt()
    factor = (largest / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_max(1.0)
    for g in gradients:
        g.mul_(factor.view(-1, *[1] * (g.dim() - 1)) if stacked else factor[0])
