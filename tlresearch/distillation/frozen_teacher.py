"""A teacher that only answers: in evaluation mode, without gradients, unchanged to the byte.

Its rows are evaluated in chunks of one fixed size, the last one filled up, as the last digits of a
row depend on how many rows there are: an MLP 784-1200-1200-10 and small convolutional networks in
float32 gave the same bits for 16 to 1000 rows on one and two threads, and others for 1, 2 or 7. At
one size of a chunk they never depended on the neighbours; on the place in the chunk they did for
some networks (torch 2.14, an AMD EPYC, chunks of 16 to 128 rows, the same on one and two threads):

- behind a linear layer whose number of inputs 4 does not divide in float32, or 2 in float64, for
  about half of the rows or more: rows lie at addresses that 16 bytes divide or not. So it is with
  MLPs that have 9, 10, 30, 31 or 50 hidden units, and not with 12, 20, 100, 256, 300, 400 or 1200,
  nor with LeNet or ResNet-20;
- in the last rows of a chunk of 50, behind a layer with one output or, in float64, many; behind a
  sigmoid in chunks of 7, 50 or 100.

So an answer is a function of the sample, kept or asked, to the bit, if the sample always has the
same place: `LiveTeacher` sees to it where `place_matters`.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.data.checksums import tensor_digest
from tlresearch.functional.taps import tapped

CHUNK = 128
"""Rows of a pass, unless told: the batch of most of our tables, which then needs no filling up."""


class Outputs(NamedTuple):
    """What a teacher says of samples."""

    logits: Float[Tensor, "*batch classes"]
    features: dict[str, Tensor]
    """By the path of the tapped module, each with the batch first."""


class TeacherChanged(AssertionError):
    """A defect of whoever holds the teacher: nothing may change it."""


class FrozenTeacher:
    """Holds a teacher's network, and is none itself.

    So a student's network that has it as an attribute neither trains it, nor stores it, nor puts
    it in training mode.
    """

    def __init__(self, network: nn.Module) -> None:
        """Takes the network as it is: in evaluation mode and without gradients from now on.

        Args:
            network: from inputs to logits; its tensors are not copied.
        """
        self.network = network.eval().requires_grad_(False)
        self._digests = _digests(network)

    def outputs(self, x: Tensor, taps: Sequence[str] = (), chunk: int = CHUNK) -> Outputs:
        """Logits and features of each row: they depend on it, on `chunk` and maybe on its place.

        The place of row i in its chunk is i mod `chunk`; see `place_matters`. In the type of the
        weights also under autocast, as the kept outputs are.

        Args:
            x: inputs, (batch, …), at least one.
            taps: paths of modules whose outputs are wanted.
            chunk: rows of a pass, at least 1; a last chunk of fewer costs as much.

        Raises:
            UserError: a path names no module, or one that cannot be tapped.
        """
        parts = self._asked(x.split(chunk), taps, chunk)
        if len(parts) == 1:
            return parts[0]
        features = {path: torch.cat([part.features[path] for part in parts]) for path in taps}
        return Outputs(torch.cat([part.logits for part in parts]), features)

    def place_matters(self, x: Tensor, taps: Sequence[str] = ()) -> bool:
        """Whether a row's bits depend on its place in a chunk: tried in four orders.

        Args:
            x: one chunk of inputs, (chunk, …).
            taps: paths of modules whose outputs count, too.
        """
        rows = torch.arange(len(x), device=x.device)
        orders = [rows, rows.flip(0), rows.roll(1), rows.roll(len(x) // 3 | 1)]
        said = self._asked([x[order] for order in orders], taps, len(x))
        tables = [[one.logits, *one.features.values()] for one in said]
        return not all(
            torch.equal(table[order], moved)
            for order, found in zip(orders, tables, strict=True)
            for table, moved in zip(tables[0], found, strict=True)
        )

    def _asked(self, parts: Sequence[Tensor], taps: Sequence[str], chunk: int) -> list[Outputs]:
        # Whatever was done to the network since: batch norm must not see the transfer set.
        self.network.eval()
        with torch.no_grad(), torch.autocast(parts[0].device.type, enabled=False):
            # A part of a larger tensor may begin anywhere in memory, which bits depend on.
            alone = len(parts) == 1
            return [self._chunk(x if alone else x.clone(), taps, chunk) for x in parts]

    def _chunk(self, x: Tensor, taps: Sequence[str], chunk: int) -> Outputs:
        """Of at most `chunk` rows, filled up with copies of the first."""
        x = x.contiguous()
        rows = len(x)
        if rows < chunk:
            x = torch.cat([x, x[:1].expand(chunk - rows, *x.shape[1:])])
        with tapped(self.network, taps) as features:
            logits = self.network(x)[:rows]
        return Outputs(logits, {path: feature[:rows] for path, feature in features.items()})

    def logits(self, x: Tensor, chunk: int = CHUNK) -> Float[Tensor, "batch classes"]:
        """As `outputs`, without features."""
        return self.outputs(x, (), chunk).logits

    def state_digest(self) -> str:
        """SHA-256 of parameters and buffers by name, type, shape and bytes; hexadecimal.

        Of those in the `state_dict`: what a teacher read from a file has in common with the one
        that was written.
        """
        kept = self.network.state_dict().keys()
        return _sha256(f"{k} {v}" for k, v in _digests(self.network).items() if k in kept)

    def digest(self) -> str:
        """SHA-256 that names the teacher: its state and the description of its architecture.

        The description is that of `repr`, and the classes of all modules with where they are
        defined. An edit of a `forward` does not show in it, which is why a cache asks again.
        """
        classes = (type(module) for module in self.network.modules())
        names = sorted({f"{kind.__module__}.{kind.__qualname__}" for kind in classes})
        return _sha256([self.state_digest(), repr(self.network), *names])

    def unchanged(self) -> None:
        """Checks that every parameter and buffer still has the bytes that it came with.

        Raises:
            TeacherChanged: one has not; its name is in the text.
        """
        now = _digests(self.network)
        changed = [k for k in self._digests | now if self._digests.get(k) != now.get(k)]
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise TeacherChanged(
                f"the teacher's tensor {changed[0]!r}{more} changed while it was held; a teacher "
                "is never trained, and always in evaluation mode"
            )


def _digests(network: nn.Module) -> dict[str, str]:
    """SHA-256 of type, shape and bytes of each parameter and buffer, by name."""
    named = [
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ]
    return {name: _sha256([str(t.dtype), str(tuple(t.shape)), _bytes(t)]) for name, t in named}


def _bytes(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes, of types too that numpy has not."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return tensor_digest(flat.view(torch.uint8))


def _sha256(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
