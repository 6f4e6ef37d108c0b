"""The diagonal of the Fisher information of a classifier.

F = (1/N) Σₙ E_{c ~ q(·|xₙ)} [(∂ log p(c|xₙ) / ∂θ)²]: the mean of *per-sample* squares. What the
labels c are drawn from tells the variants apart (van de Ven, arXiv:2502.11756):

- `exact`: q = p(·|x), the expectation written out over the classes; the Fisher itself.
- `sample`: one label drawn from p(·|x); an unbiased estimate of it.
- `predicted`: the most probable label (van de Ven and Tolias 2019).
- `empirical`: the label of the data set; no Fisher, though often called one.

A linear layer's per-sample gradient is an outer product dₙ aₙᵀ (of the gradient at its output and
its input), so Σₙ wₙ (dₙ aₙᵀ)² = (w · d²)ᵀ a²: a network of linear layers needs one backward pass
per class and one matrix product per layer, and no loop over samples. Everything else goes
through `vmap(grad)`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from tlresearch.functional import random
from tlresearch.functional.losses import mask_logits

Labels = Literal["exact", "sample", "predicted", "empirical"]
"""From which distribution the Fisher's labels come."""

PER_SAMPLE_NUMBERS = 2**26
"""Most numbers that the per-sample gradients of one chunk may take (256 MiB in float32)."""


class _Slot(NamedTuple):
    """One label for every sample, and the probability it stands for."""

    label: Tensor  # int64 [batch]
    weight: Tensor  # float [batch]


def diagonal_fisher(
    network: nn.Module,
    batches: Iterable[Sequence[Tensor | None]],
    labels: Labels = "exact",
    batch: int = 1,
    key: Tensor | None = None,
    first: int = 0,
) -> dict[str, Tensor]:
    """F by parameter name, in nats per squared unit of θ; shapes of the parameters.

    The network is put in evaluation mode and back, so neither running statistics nor dropout
    masks move; no gradient is left behind.

    Args:
        network: maps x of shape (batch, …) to logits (batch, classes); samples do not interact.
        batches: tuples (x, y) or (x, y, mask) with y int64 (batch,) and mask True where a class
            is active, (classes,) or (batch, classes). y is read by `empirical` only.
        labels: see the module.
        batch: 1 for per-sample squares. b > 1 squares the mean gradient of b samples, about b
            times too small where gradients are independent: the mistake of public code, here to
            be measured. A last batch shorter than b counts as one batch.
        key: random key of `sample`.
        first: number of the first sample, which its label is drawn by; above 0 where the data
            are a part of more.

    Raises:
        ValueError: unknown `labels`, `exact` with b > 1, `sample` without a key, or no data.
    """
    if labels not in get_args(Labels):
        raise ValueError(f"labels={labels!r}; expected one of {', '.join(get_args(Labels))}")
    if batch > 1 and labels == "exact":
        raise ValueError(f"labels='exact' averages per sample; batch must be 1, not {batch}")
    if labels == "sample" and key is None:
        raise ValueError(
            "labels='sample' draws labels and needs a key (functional.random.make_key)"
        )
    params: dict[str, Tensor] = {k: p for k, p in network.named_parameters() if p.requires_grad}
    totals = {k: torch.zeros_like(p) for k, p in params.items()}
    accumulate = _choose(network, params, batch)
    count = 0
    with _evaluation_mode(network), torch.enable_grad():
        seen = first
        for x, y, *rest in _regroup(batches, batch):
            assert x is not None
            slots = _label_slots(labels, y, key, seen)
            count += accumulate(network, totals, x, rest[0] if rest else None, slots)
            seen += len(x)
    if count == 0:
        raise ValueError("the Fisher information of no samples is not defined")
    return {k: total / count for k, total in totals.items()}


def _regroup(
    batches: Iterable[Sequence[Tensor | None]], size: int
) -> Iterator[Sequence[Tensor | None]]:
    """The same samples in chunks of a multiple of `size` each, but for the last."""
    if size == 1:
        yield from batches
        return
    waiting: list[Sequence[Tensor | None]] = []
    count = 0
    for chunk in batches:
        waiting.append(chunk)
        count += _length(chunk)
        whole = count - count % size
        if whole:
            together = _join(waiting)
            yield _rows(together, slice(0, whole))
            waiting = [_rows(together, slice(whole, count))]
            count -= whole
    if count:
        yield _join(waiting)


def _length(chunk: Sequence[Tensor | None]) -> int:
    assert chunk[0] is not None
    return len(chunk[0])


def _join(chunks: list[Sequence[Tensor | None]]) -> list[Tensor | None]:
    """Chunks end to end; a mask of shape (classes,) is the same for all of them."""
    return [
        torch.cat([part for part in column if part is not None])
        if column[0] is not None and (i < 2 or column[0].dim() == 2)
        else column[0]
        for i, column in enumerate(zip(*chunks, strict=True))
    ]


def _rows(chunk: Sequence[Tensor | None], rows: slice) -> list[Tensor | None]:
    return [
        part[rows] if part is not None and (i < 2 or part.dim() == 2) else part
        for i, part in enumerate(chunk)
    ]


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode within; every module's own mode is restored after it."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _label_slots(
    labels: Labels, y: Tensor | None, key: Tensor | None, first: int
) -> Callable[[Tensor], list[_Slot]]:
    """A function from log p (batch, classes) to the labels whose squares are summed."""

    def slots(log_p: Tensor) -> list[_Slot]:
        log_p = log_p.detach()
        if labels == "exact":
            # A class that is active for no sample has probability 0 and costs nothing.
            active = (log_p > -float("inf")).any(0).nonzero().flatten().tolist()
            p = log_p.exp()
            return [
                _Slot(torch.full_like(log_p[:, 0], c, dtype=torch.int64), p[:, c]) for c in active
            ]
        if labels == "sample":
            assert key is not None
            label = random.categorical(key.to(log_p.device), log_p.exp(), first)
        elif labels == "predicted":
            label = log_p.argmax(-1)
        elif y is None:
            raise ValueError("labels='empirical' needs the labels of the data")
        else:
            label = y
        return [_Slot(label, torch.ones_like(log_p[:, 0]))]

    return slots


def _choose(network: nn.Module, params: dict[str, Tensor], batch: int) -> Callable[..., int]:
    """The cheapest way that is right for this network."""
    if batch > 1:
        return lambda *args: _add_batched(*args, batch=batch)
    layers = [m for m in network.modules() if type(m) is nn.Linear]
    owned = {
        id(p) for m in layers for p in (m._parameters.get("weight"), m._parameters.get("bias"))
    }
    if all(id(p) in owned for p in params.values()):
        return _add_linear
    return _add_general


def _add_linear(
    network: nn.Module,
    totals: dict[str, Tensor],
    x: Tensor,
    mask: Tensor | None,
    slots: Callable[[Tensor], list[_Slot]],
) -> int:
    """Adds Σₙ Σ_c w (dₙ aₙᵀ)² = (Σ_c w d²)ᵀ a² of each linear layer; returns the samples."""
    layers = {name: m for name, m in network.named_modules() if type(m) is nn.Linear}
    calls: list[tuple[str, Tensor, Tensor]] = []

    def tap(name: str) -> Callable[..., None]:
        return lambda _module, inputs, output: calls.append((name, inputs[0], output))

    handles = [m.register_forward_hook(tap(name)) for name, m in layers.items()]
    try:
        log_p = mask_logits(network(x), mask).log_softmax(-1)
    finally:
        for handle in handles:
            handle.remove()
    if not _linear_rule_holds(network, calls, log_p):
        return _add_general(network, totals, x, mask, slots)
    outputs = [output for _, _, output in calls]
    squares = [torch.zeros_like(output) for output in outputs]
    for label, weight in slots(log_p):
        chosen = log_p.gather(1, label.unsqueeze(1)).sum()
        for square, d in zip(
            squares, torch.autograd.grad(chosen, outputs, retain_graph=True), strict=True
        ):
            square.addcmul_(d * weight.unsqueeze(1), d)
    for (name, a, _), square in zip(calls, squares, strict=True):
        prefix = f"{name}." if name else ""
        if f"{prefix}weight" in totals:
            totals[f"{prefix}weight"].addmm_(square.T, a.detach().square())
        if f"{prefix}bias" in totals:
            totals[f"{prefix}bias"] += square.sum(0)
    return x.shape[0]


def _linear_rule_holds(
    network: nn.Module, calls: list[tuple[str, Tensor, Tensor]], log_p: Tensor
) -> bool:
    """Whether Σₙ dₙ aₙᵀ is autograd's gradient: every layer used once, on rows, and not beside.

    A weight that is shared, or read outside its layer's forward, breaks the rule silently, so
    the rule is checked against autograd for one random combination of the log-probabilities.
    """
    linear = [(name, m) for name, m in network.named_modules() if type(m) is nn.Linear]
    if sorted(name for name, _, _ in calls) != sorted(name for name, _ in linear):
        return False
    if any(a.dim() != 2 for _, a, _ in calls):
        return False
    modules = dict(linear)
    finite = log_p.masked_fill(log_p == -float("inf"), 0.0)
    probe = random.uniform(random.make_key(0, "fisher probe").to(log_p.device), finite.shape)
    layers = [modules[name] for name, _, _ in calls]
    if any(p is not None and not p.requires_grad for m in layers for p in (m.weight, m.bias)):
        return False
    weights = [m.weight for m in layers]
    biased = [i for i, m in enumerate(layers) if m.bias is not None]
    outputs = [output for _, _, output in calls]
    biases = [layers[i].bias for i in biased]
    grads = torch.autograd.grad(
        (finite * probe.to(finite.dtype)).sum(),
        [*weights, *biases, *outputs],
        retain_graph=True,
        allow_unused=True,
    )
    if any(g is None for g in grads):
        return False
    of_weights, of_biases = grads[: len(layers)], grads[len(layers) : -len(outputs)]
    d_outputs = grads[-len(outputs) :]
    predicted = [d.T @ a.detach() for (_, a, _), d in zip(calls, d_outputs, strict=True)]
    predicted += [d_outputs[i].sum(0) for i in biased]
    return all(
        bool((rule - true).abs().amax() <= 1e-3 * true.abs().amax().clamp_min(1e-30))
        for rule, true in zip(predicted, [*of_weights, *of_biases], strict=True)
    )


def _add_general(
    network: nn.Module,
    totals: dict[str, Tensor],
    x: Tensor,
    mask: Tensor | None,
    slots: Callable[[Tensor], list[_Slot]],
) -> int:
    """Adds Σₙ Σ_c w (∂ log p(c|xₙ)/∂θ)² by `vmap(grad)` over samples; returns the samples."""
    params = {k: p.detach() for k, p in network.named_parameters() if k in totals}
    fixed = {k: p.detach() for k, p in network.named_parameters() if k not in totals}
    fixed |= dict(network.named_buffers())

    def log_prob(
        params: dict[str, Tensor], x: Tensor, mask: Tensor | None, label: Tensor
    ) -> Tensor:
        logits = functional_call(network, params | fixed, (x.unsqueeze(0),))[0]
        return mask_logits(logits, mask).log_softmax(-1).gather(0, label.unsqueeze(0))[0]

    per_sample_mask = mask is not None and mask.dim() == 2
    per_sample = vmap(grad(log_prob), in_dims=(None, 0, 0 if per_sample_mask else None, 0))
    with torch.no_grad():
        log_p = mask_logits(network(x), mask).log_softmax(-1)
    chunk = max(1, PER_SAMPLE_NUMBERS // max(1, sum(p.numel() for p in params.values())))
    for label, weight in slots(log_p):
        for start in range(0, x.shape[0], chunk):
            rows = slice(start, start + chunk)
            part = mask[rows] if per_sample_mask and mask is not None else mask
            for name, g in per_sample(params, x[rows], part, label[rows]).items():
                totals[name] += torch.einsum("n,n...->...", weight[rows], g.square())
    return x.shape[0]


def _add_batched(
    network: nn.Module,
    totals: dict[str, Tensor],
    x: Tensor,
    mask: Tensor | None,
    slots: Callable[[Tensor], list[_Slot]],
    batch: int,
) -> int:
    """Adds the square of each batch's mean gradient; returns the batches."""
    params = {k: p for k, p in network.named_parameters() if k in totals}
    log_p = mask_logits(network(x), mask).log_softmax(-1)
    (slot,) = slots(log_p)
    chosen = log_p.gather(1, slot.label.unsqueeze(1)).squeeze(1)
    parts = math.ceil(x.shape[0] / batch)
    for part in range(parts):
        mean = chosen[part * batch : (part + 1) * batch].mean()
        grads = torch.autograd.grad(
            mean, list(params.values()), retain_graph=part + 1 < parts, materialize_grads=True
        )
        for name, g in zip(params, grads, strict=True):
            totals[name] += g.square()
    return parts
