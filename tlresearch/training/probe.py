"""Whether a foreign method or backbone can be trusted: tried on a few images of noise.

Our own are known to map over seeds and to draw no hidden random numbers. Of a foreign one this is
found out before anything runs: one step of two seeds, each alone, each twice, and both stacked.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tlresearch import own
from tlresearch.backbones.conversion import unsplit
from tlresearch.errors import UserError
from tlresearch.training import tree
from tlresearch.training.device import dtype_of
from tlresearch.training.loop import fit, start
from tlresearch.training.method import Labelled, Loss
from tlresearch.training.settings import Train
from tlresearch.training.stack import stack_networks
from tlresearch.training.tree import Tree
from tlresearch.training.trial import Case, Noise, classification, images_of, told

__all__ = ["Case", "probe"]

_SEEDS = (0, 1)
_TOLERANCE = 1e-3
"""Largest difference between a stack and single runs, as a fraction of the largest value of the
same tensor; a wrong number is far off, rounding in float32 is not."""


def probe(case: Case, stacked: bool) -> str | None:
    """Why the seeds of a case cannot be one program, in half a sentence; None if they can.

    Torch's generator is left as it was.

    Args:
        case: what is tried, on the CPU.
        stacked: whether a stack is wanted at all; without, only single runs are tried.

    Raises:
        UserError: it does not run even with one seed, breaks the contract of a method, draws
            random numbers that a resumed run would not repeat, or differentiates twice through a
            norm whose second order is wrong.
    """
    with torch.random.fork_rng(devices=[]):
        networks = [_initialised(case, seed) for seed in _SEEDS]
        _check_norms(case, networks[0])
        images = [images_of(case, seed) for seed in _SEEDS]
        batches = [case.batch(seed) for seed in _SEEDS]
        with own.blamed(f"{case.label}: its state cannot be made"), _undrawn(case, "init"):
            states = [case.method.init(network) for network in networks]
        _check_contract(case, networks[0], states[0], batches[0], images[0])
        reason = _try(case, networks, states, batches, stacked)
        stacked = stacked and reason is None
        later = _try_later(case, networks, states, batches, images, stacked)
        return reason or later


def _try_later(
    case: Case,
    networks: list[nn.Module],
    states: list[Tree],
    batches: Sequence[Any],
    images: list[Labelled],
    stacked: bool,
) -> str | None:
    """The same with the state that follows a task."""
    method = case.method
    try:
        with _undrawn(case, "after_task"):
            later = [
                method.after_task(network, _copy(state), Noise(some))
                for network, state, some in zip(networks, states, images, strict=True)
            ]
    except UserError:
        raise
    except Exception:
        return None  # four images of noise may be too few for it; real data need not be
    return _try(case, networks, later, batches, stacked)


def _initialised(case: Case, seed: int) -> nn.Module:
    """The networks of a seed, whose weights must follow from it."""
    dtype = dtype_of(case.train.precision)
    with own.blamed(f"{case.label}: its networks cannot be built"):
        network, again = (case.networks(seed).to(dtype) for _ in range(2))
    twin = again.state_dict()
    if not all(torch.equal(value, twin[name]) for name, value in network.state_dict().items()):
        raise UserError(
            f"{case.label}: two networks of one seed have different weights; draw them with "
            "torch's generator, which is seeded, and not with numpy or random"
        )
    return network


def _check_norms(case: Case, network: nn.Module) -> None:
    wrong = unsplit(network) if case.method.second_order else []
    if wrong:
        raise UserError(
            f"{case.label}: {type(case.method).__name__} differentiates twice, and the second "
            f"order of the affine norm {wrong[0]} is wrong under vmap and cannot be converted; use "
            "torch.nn.BatchNorm2d, torch.nn.LayerNorm or torch.nn.GroupNorm as they are"
        )


def _check_contract(
    case: Case, network: nn.Module, state: Tree, batch: Any, images: Labelled
) -> None:
    """Refuses a loss or a prediction of another kind than the loop takes."""
    buffers = {name: b.clone() for name, b in network.named_buffers()}
    if case.is_trained:
        with own.blamed(f"{case.label}: its loss fails on {told(batch)}"):
            loss = case.method.loss(network, _copy(state), batch)
        if not isinstance(loss, Loss) or loss.total.shape != ():
            raise UserError(
                f"{case.label}: loss must return tlresearch.training.method.Loss(total, terms) "
                f"with a 0-dimensional total, not {type(loss).__name__}"
            )
    trial = case.trial or classification(case, images)
    network.eval()
    at = f"{case.label}: its {trial.name} fails on {told(batch)}"
    with own.blamed(at), _undrawn(case, f"its {trial.name}"):
        scores, again = (trial.predict(network, _copy(state)) for _ in range(2))
    network.train()
    _restore(dict(network.named_buffers()), buffers)
    found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if not trial.fits(found):
        raise UserError(
            f"{case.label}: {trial.name} must return scores of shape ({', '.join(trial.shape)}), "
            f"not {found}"
        )
    if not torch.equal(scores.nan_to_num(), again.nan_to_num()):
        raise _hidden(case, f"its {trial.name}")


def _try(
    case: Case,
    networks: list[nn.Module],
    states: list[Tree],
    batches: Sequence[Any],
    stacked: bool,
) -> str | None:
    """Single runs, which must repeat themselves; then the stack, which must equal them."""
    if not case.is_trained:
        return None
    alone = []
    for seed, network, state, batch in zip(_SEEDS, networks, states, batches, strict=True):
        runs = []
        for attempt in range(2):
            torch.manual_seed(attempt)
            at = f"{case.label}: its loss fails on {told(batch)}"
            with own.blamed(at), _undrawn(case, "its loss"):
                runs.append(_step(case, [seed], [network], [state], [batch]))
        if not torch.equal(*(run["the loss"].nan_to_num() for run in runs)):
            raise _hidden(case, "its loss")
        alone.append(runs[0])
    if not stacked:
        return None
    # Fresh ones: a module that keeps something of a mapped pass would spoil the next try.
    fresh = [case.networks(seed).to(dtype_of(case.train.precision)) for seed in _SEEDS]
    try:
        together = _step(case, list(_SEEDS), fresh, states, batches, case.fields)
    except Exception as error:
        return f"its loss refuses vmap: {own.told(error)}"
    for name, value in together.items():
        expected = torch.cat([run[name] for run in alone])
        scale = expected.abs().amax().item() if expected.numel() else 0.0
        if not torch.allclose(
            value, expected, rtol=0, atol=_TOLERANCE * scale + 1e-5, equal_nan=True
        ):
            return f"two seeds as one program gave {name} other numbers than one after the other"
    return None


def _step(
    case: Case,
    seeds: list[int],
    networks: list[nn.Module],
    states: list[Tree],
    batches: Sequence[Any],
    fields: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """Loss, gradients and buffers of one training step, by name, the seeds first.

    Networks are as they were afterwards.
    """
    precision = "fp64" if case.train.precision == "fp64" else "fp32"
    train = Train(steps=1, optimizer="sgd", lr=1.0, precision=precision)
    stack = stack_networks(networks)
    held = [dict(network.named_buffers()) for network in networks]
    dtype = dtype_of(precision)
    own_fields = {
        name: torch.full((len(seeds),), getattr(case.method, name), dtype=dtype) for name in fields
    }
    state = tree.stack([_copy(state) for state in states])
    training = start(seeds, stack, case.method, own_fields, train, state)
    batch = tree.stack(list(batches))
    params = {name: p.clone() for name, p in stack.params.items()}
    buffers = {name: b.clone() for name, b in stack.buffers.items()}
    seen: list[Tensor] = []

    class Watcher:
        def after_step(self, step: int, loss: Loss) -> None:
            seen.append(loss.total.detach().reshape(-1))

    fit(training, lambda step: tuple(batch), 1, observer=Watcher())
    _check_buffers(case, networks, held)
    losses = seen[0] if seen else torch.full((len(seeds),), torch.nan, dtype=dtype)
    values = {"the loss": losses}
    values |= {f"the gradient of {k}": params[k] - p for k, p in stack.params.items()}
    values |= {f"the buffer {k}": b.to(dtype) for k, b in stack.buffers.items()}
    values = {name: value.clone() for name, value in values.items()}
    _restore(stack.params, params)
    _restore(stack.buffers, buffers)
    return values


def _check_buffers(case: Case, networks: list[nn.Module], held: list[dict[str, Tensor]]) -> None:
    """Refuses a module that puts a new tensor in the place of a buffer."""
    for network, before in zip(networks, held, strict=True):
        for name, buffer in network.named_buffers():
            if len(networks) == 1 and before.get(name) is not buffer:
                raise UserError(
                    f"{case.label}: its buffer {name} is assigned anew in a forward pass, so no "
                    "checkpoint would hold it; change it in place, e.g. with "
                    f"self.{name.rpartition('.')[2]}.copy_(...)"
                )


def _restore(tensors: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])


def _copy(state: Tree) -> Tree:
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, state)


@contextmanager
def _undrawn(case: Case, what: str) -> Iterator[None]:
    """Refuses draws from torch's generator inside."""
    before = torch.random.get_rng_state()
    yield
    if not torch.equal(before, torch.random.get_rng_state()):
        raise _hidden(case, what)


def _hidden(case: Case, what: str) -> UserError:
    return UserError(
        f"{case.label}: {what} draws hidden random numbers, or keeps from one step to the next "
        "what no checkpoint holds, so a resumed run would differ; use torch.nn.Dropout or "
        "tlresearch.backbones.layers.Dropout as a layer, tlresearch.functional.random with a key, "
        "buffers and the method's state"
    )
