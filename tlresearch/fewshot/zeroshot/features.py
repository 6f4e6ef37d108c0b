"""What an estimator sees of an image: the input itself, or the features of a network."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from tlresearch.backbones import Settings, build
from tlresearch.data.zero_shot import ZeroShotData, ZeroShotSplit, classes_in
from tlresearch.training.device import autocast, dtype_of
from tlresearch.training.settings import Train

CHUNK = 1000
"""Images of one forward pass in evaluation; a matter of memory, not of results."""


def as_inputs(raw: Tensor, dtype: torch.dtype) -> Tensor:
    """Pixels 0 … 255 as 0 … 1; features as they are."""
    return raw.to(dtype) / 255 if raw.dtype == torch.uint8 else raw.to(dtype)


@torch.no_grad()
def features_of(
    inputs: Tensor, network: nn.Module | None, train: Train, device: torch.device
) -> Float[Tensor, "n dim"]:
    """What an estimator sees of each input, float64 on the device.

    Args:
        inputs: as `ZeroShotData` has them.
        network: offers `features`; put into evaluation mode. None: the inputs themselves, flat.
        train: its precision is that of the network.
        device: where.
    """
    if network is None:
        return as_inputs(inputs.to(device), torch.float64).flatten(1)
    network.eval()
    parts = []
    for chunk in inputs.split(CHUNK):
        with autocast(train.precision, device):
            x = as_inputs(chunk.to(device), dtype_of(train.precision))
            parts.append(network.features(x).double())  # type: ignore[operator]
    return torch.cat(parts)


def scaled(
    features: Float[Tensor, "n dim"], train: Int64[Tensor, " images"], scale: str
) -> Float[Tensor, "n dim"]:
    """Features as they are (`none`), at length 1 (`unit`), or standardised by the training images.

    `standard`: (z − mean) / (standard deviation) of each number over the images `train`; one that
    is the same in all of them becomes 0.
    """
    if scale == "unit":
        return F.normalize(features, dim=1)
    if scale == "standard":
        seen = features[train]
        spread = seen.std(0, correction=0)
        return torch.where(spread > 0, (features - seen.mean(0)) / spread.where(spread > 0, 1), 0)
    return features


def network_of(
    backbone: Settings, data: ZeroShotData, split: ZeroShotSplit, train: Train, seed: int
) -> nn.Module:
    """A classifier of the seen classes, initialised under a seed, on the CPU."""
    classes = len(classes_in(data.labels, split.train))
    return build(backbone, data.shape, classes, seed).to(dtype_of(train.precision))
