"""The inner loop by its peers, `higher` and `learn2learn`, in place of our own.

Grefenstette et al., "Generalized inner loop meta-learning", 2019, arXiv:1910.01727 (higher 0.2.1);
Arnold et al., "learn2learn: a library for meta-learning research", 2020, arXiv:2008.12284. They
run task after task on one seed's module and cannot be mapped. Both are imported here only when
they are asked for.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.data.episodes import Episodes
from tlresearch.errors import UserError
from tlresearch.fewshot.inner import parameters_of
from tlresearch.fewshot.rows import inputs_of, targets_of, task_loss

if TYPE_CHECKING:
    from tlresearch.fewshot.maml import MAML

Engine = Literal["func", "higher", "learn2learn"]

_INSTALL = {
    "higher": "pip install 'tlresearch[compare]'",
    "learn2learn": "pip install --no-deps -r requirements-learn2learn.txt",
}


def problem(engine: Engine, statistics: str, learns_rates: bool, chunk: int | None) -> str | None:
    """What an engine cannot do, as a sentence that begins with a key; None if it can."""
    if engine == "func":
        return None
    if statistics != "transductive":
        return f"statistics: {engine} normalises by the batch; set transductive or engine: func"
    if learns_rates:
        return f"learn_rates: {engine} takes one rate; set none, or engine: func"
    if chunk is not None:
        return f"task_chunk: {engine} takes one task at a time; leave it out, or set engine: func"
    try:
        _imported(engine)
    except UserError as error:
        return str(error)
    return None


def mean_loss(
    method: "MAML",
    engine: Engine,
    networks: nn.Module,
    batch: Episodes,
    weights: Sequence[float | Tensor],
) -> Float[Tensor, ""]:
    """(1/T) Σ_t Σ_k w_k L(θ_k; query), the loss of `MAML`, task by task.

    Args:
        method: whose inner loop it is.
        engine: `higher` or `learn2learn`.
        networks: one seed's.
        batch: its episodes.
        weights: w₁ … w_K.

    Raises:
        UserError: the engine is not installed, or was to be mapped over a stack of seeds.
    """
    if not all(isinstance(p, nn.Parameter) for p in networks.parameters()):  # mapped
        raise UserError(
            f"engine: {engine} trains one seed at a time and cannot be stacked; set "
            "train.stack: 1, or engine: func"
        )
    package, run = _imported(engine), _higher if engine == "higher" else _learn2learn
    losses = []
    for support, query, *values in zip(*inputs_of(batch), strict=True):
        of_support, of_query = targets_of(batch, tuple(values))
        params = parameters_of(networks)
        support, query = method.encode(networks, params, support, query, {})
        moved = method.moved_module(networks)
        answers = run(package, method, moved, support, of_support, query)
        for weight, outputs in zip(weights, answers, strict=True):
            if isinstance(weight, Tensor) or weight:
                losses.append(weight * task_loss(outputs, of_query))
    return torch.stack(losses).sum() / len(batch.support_x)


def _higher(
    higher: Any, method: "MAML", moved: nn.Module, support: Tensor, targets: Tensor, query: Tensor
) -> list[Tensor]:
    """Outputs for the queries after 1 … K steps."""
    sgd = torch.optim.SGD(moved.parameters(), lr=float(method.inner_lr))
    first = method.is_first_order()
    constant = (lambda slopes: [g.detach() for g in slopes]) if first else None
    answers = []
    with higher.innerloop_ctx(moved, sgd, copy_initial_weights=False) as (fast, inner):
        for _ in range(method.inner_steps):
            inner.step(task_loss(fast(support), targets), grad_callback=constant)
            answers.append(fast(query))
    return answers


def _learn2learn(
    package: Any, method: "MAML", moved: nn.Module, support: Tensor, targets: Tensor, query: Tensor
) -> list[Tensor]:
    """Outputs for the queries after 1 … K steps."""
    rate, first = float(method.inner_lr), method.is_first_order()
    fast = package.algorithms.MAML(moved, lr=rate, first_order=first).clone()
    answers = []
    for _ in range(method.inner_steps):
        fast.adapt(task_loss(fast(support), targets))
        answers.append(fast(query))
    return answers


def _imported(engine: Engine) -> Any:
    """The engine's package.

    Raises:
        UserError: it is not installed; its text says how to install it.
    """
    try:
        if engine == "higher":
            import higher

            return higher
        import learn2learn

        return learn2learn
    except ImportError as error:
        raise UserError(
            f"engine: {engine} cannot be imported ({error}); install it by {_INSTALL[engine]}, or "
            "set engine: func"
        ) from None
