"""Random numbers as a pure function of (seed, purpose, step, index).

A counter-based generator (the idea of Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011): a *key* is an int64 tensor that names a stream, a draw is a hash of
(key, counter). There is no state, so a run resumes from its step alone, a seed has the same
numbers in any stack, and everything maps under `vmap` and `compile`.

The hash is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014; variant 13 of
Stafford), applied to `key + counter * golden ratio`, in wrapping int64 arithmetic.
"""

import hashlib
import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Key = Int64[Tensor, "*streams"]


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    return word - (1 << 64) if word >= 1 << 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _mix(word: Tensor) -> Tensor:
    """SplitMix64's finaliser, a bijection of 64-bit words. Shifts are made logical by a mask."""
    word = (word ^ ((word >> 30) & ((1 << 34) - 1))) * _MIX_1
    word = (word ^ ((word >> 27) & ((1 << 37) - 1))) * _MIX_2
    return word ^ ((word >> 31) & ((1 << 33) - 1))


def purpose_code(purpose: str) -> int:
    """The int64 that stands for a purpose: the first 8 bytes of the name's SHA-256."""
    return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "big", signed=True)


def fold(key: Key, counter: Tensor | int) -> Tensor:
    """The key of a sub-stream: `mix(key + (counter + 1) · golden)`, int64, broadcast shape.

    Args:
        key: int64 keys of any shape.
        counter: int64 tensor or integer; broadcasts against `key`.
    """
    if isinstance(counter, int):
        return _mix(key + _signed((counter + 1) * _GOLDEN % (1 << 64)))
    return _mix(key + (counter + 1) * _GOLDEN)


def make_key(seed: Tensor | int, purpose: str, *counters: Tensor | int) -> Tensor:
    """The key of (seed, purpose, counters…), an int64 tensor of their broadcast shape.

    Args:
        seed: one seed, or an int64 tensor of the seeds of a stack.
        purpose: what the numbers are for, e.g. `"sampler"`; other purposes are other streams.
        counters: step, task, epoch…; integers or int64 tensors.
    """
    key = fold(_mix(torch.as_tensor(seed, dtype=torch.int64)), purpose_code(purpose))
    for counter in counters:
        key = fold(key, counter)
    return key


def bits(key: Key, shape: tuple[int, ...], first: int = 0) -> Tensor:
    """63 random bits for each index: int64 ≥ 0 of shape `key.shape + shape`.

    The value at an index depends on its place in row-major order only, so a longer draw
    begins with the shorter one; `first` is the place of the first.
    """
    spread = key.view(key.shape + (1,) * len(shape))
    # Adding 0 that depends on the key keeps inductor from taking `arange * constant` for index
    # arithmetic, which it does in fewer bits: compiled draws were silently different (torch 2.14).
    counter = torch.arange(first, first + math.prod(shape), device=key.device)
    return fold(spread, counter.view(shape) + (spread & 0)) & ((1 << 63) - 1)


def uniform(
    key: Key, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, first: int = 0
) -> Float[Tensor, "..."]:
    """U[0, 1): multiples of 2⁻²⁴ (of 2⁻⁵³ in float64), of shape `key.shape + shape`."""
    digits = 53 if dtype == torch.float64 else 24
    return (bits(key, shape, first) >> (63 - digits)).to(dtype) * 2.0**-digits


def bernoulli(key: Key, probability: float, shape: tuple[int, ...]) -> Tensor:
    """True with `probability` (rounded to 2⁻⁵³), bool of shape `key.shape + shape`."""
    return bits(key, shape) >> 10 < round(probability * (1 << 53))


def normal(
    key: Key, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "..."]:
    """N(0, 1) by Box and Muller (1958): √(−2 ln(1 − u)) cos 2πv, of shape `key.shape + shape`."""
    radius = (-2 * torch.log1p(-uniform(fold(key, 0), shape, torch.float64))).sqrt()
    angle = 2 * math.pi * uniform(fold(key, 1), shape, torch.float64)
    return (radius * torch.cos(angle)).to(dtype)


def integers(key: Key, below: Tensor | int, shape: tuple[int, ...]) -> Tensor:
    """Uniform integers in [0, below), int64 of shape `key.shape + shape`.

    The remainder of 63 bits: its bias is at most `below` / 2⁶³.
    """
    return bits(key, shape) % below


def permutation(key: Key, size: int) -> Tensor:
    """A permutation of 0 … size − 1 for each key, int64 of shape `key.shape + (size,)`.

    Sorts random words; two equal words (probability below size² / 2⁶⁴) keep their order.
    """
    return bits(key, (size,)).argsort(dim=-1, stable=True)


def distinct(key: Key, below: Tensor | int, size: int) -> Int64[Tensor, "*streams size"]:
    """`size` distinct integers of [0, below), each ordered choice equally likely.

    Floyd's algorithm (Bentley and Floyd, CACM 30(9), 1987) makes the set in `size` steps for all
    keys at once, whatever `below` is; a permutation then makes its order random.

    Args:
        key: keys of any shape.
        below: integer, or int64 tensor of the keys' shape; at least `size`.
        size: how many, at least 1.
    """
    words = bits(key, (2 * size,))
    chosen = torch.empty_like(words[..., :size])
    for i in range(size):
        last = torch.as_tensor(below, device=key.device) - size + i
        drawn = words[..., i] % (last + 1)
        taken = (chosen[..., :i] == drawn.unsqueeze(-1)).any(-1)
        chosen[..., i] = torch.where(taken, last, drawn)
    order = words[..., size:].argsort(dim=-1, stable=True)
    return chosen.gather(-1, order)


def categorical(
    key: Key, probabilities: Float[Tensor, "*batch classes"], first: int = 0
) -> Int64[Tensor, "*batch"]:
    """One class per row, drawn by inverting the cumulative distribution, int64 of shape `batch`.

    Args:
        key: one key (shape `()`); row i uses counter `first` + i.
        probabilities: rows that sum to 1; classes of probability 0 are never drawn.
        first: counter of the first row, so that a long draw can be made in parts.
    """
    cumulative = probabilities.cumsum(-1)
    u = uniform(key, tuple(probabilities.shape[:-1]), torch.float64, first).unsqueeze(-1)
    drawn = (cumulative <= u * cumulative[..., -1:]).sum(-1)
    last_possible = (probabilities > 0).long().cumsum(-1).argmax(-1)
    return torch.minimum(drawn, last_possible)
