"""Images moved and mirrored, each by its own key: a row depends on its key and on itself alone."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tlresearch.functional import random
from tlresearch.functional.random import Key

Images = Float[Tensor, "batch channels rows columns"]


def shifted(keys: Key, x: Images, pixels: int, fill: Tensor | float = 0.0) -> Images:
    """x moved by (dy, dx), each uniform in {−p, …, p}; what comes in from outside is `fill`.

    Args:
        keys: (batch,).
        x: images.
        pixels: p, at least 0.
        fill: what black became when the images were normalised, a number or (channels, 1, 1).
    """
    if pixels == 0:
        return x
    moves = random.integers(random.fold(keys, 0), 2 * pixels + 1, (2,))
    padded = F.pad(x - fill, (pixels,) * 4) + fill
    rows = moves[:, :1] + torch.arange(x.shape[2], device=x.device)
    columns = moves[:, 1:] + torch.arange(x.shape[3], device=x.device)
    batch = torch.arange(len(x), device=x.device).view(-1, 1, 1)
    moved = padded.permute(0, 2, 3, 1)[batch, rows.unsqueeze(2), columns.unsqueeze(1)]
    return moved.permute(0, 3, 1, 2)


def mirrored(keys: Key, x: Images) -> Images:
    """x, or with probability ½ x with its columns reversed."""
    chosen = random.bernoulli(random.fold(keys, 1), 0.5, ()).view(-1, 1, 1, 1)
    return torch.where(chosen, x.flip(3), x)
