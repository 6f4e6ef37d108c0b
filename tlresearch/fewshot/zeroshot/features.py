"""Where features come from: the inputs, a frozen backbone, or one trained on the seen classes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from tlresearch.backbones import Settings, build
from tlresearch.data.sampler import EpochSampler
from tlresearch.data.zero_shot import ZeroShotData, ZeroShotSplit, classes_in
from tlresearch.training import checkpoint
from tlresearch.training.averages import Average
from tlresearch.training.device import autocast, dtype_of
from tlresearch.training.distributed import ALONE, Onlooker, Processes
from tlresearch.training.loop import Training, fit, start
from tlresearch.training.method import Method
from tlresearch.training.observer import CHECKPOINT_SECONDS, RunFiles, RunObserver
from tlresearch.training.settings import Train
from tlresearch.training.stack import stack_networks

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


class _Batches:
    """The batches of the seen classes' training images, by step: (S, B, …), (S, B), None."""

    def __init__(
        self,
        data: ZeroShotData,
        split: ZeroShotSplit,
        seeds: list[int],
        train: Train,
        device: torch.device,
        processes: Processes,
    ) -> None:
        images = split.train
        self.raw = data.inputs[images].to(device)
        seen = classes_in(data.labels, images)
        self.units = torch.searchsorted(seen, data.labels[images]).to(device)
        sizes = [len(images)] * len(seeds)
        self.sampler = EpochSampler(seeds, sizes, train.batch_size, "zero-shot classifier")
        self.dtype, self.steps = dtype_of(train.precision), train.steps * train.accumulate
        places = processes.part.places(train.batch_size)
        self.part = slice(places.start, places.stop)
        self._first, self._block = 0, torch.empty(0, dtype=torch.int64)

    def __call__(self, step: int) -> tuple[Tensor | None, ...]:
        if not self._first <= step < self._first + len(self._block):
            count = min(self.sampler.block_steps, self.steps - step)
            self._first, self._block = step, self.sampler.block(step, count).to(self.raw.device)
        places = self._block[step - self._first][:, self.part]
        raw = self.raw.index_select(0, places.flatten())
        x = as_inputs(raw, self.dtype).view(*places.shape, *raw.shape[1:])
        return x, self.units[places], None


def trained(
    backbone: Settings,
    data: ZeroShotData,
    split: ZeroShotSplit,
    seeds: Sequence[int],
    train: Train,
    device: torch.device,
    files: RunFiles,
    progress: Callable[[int], None] = lambda steps: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    track: Callable[[dict[str, Any]], None] = lambda entry: None,
    processes: Processes = ALONE,
) -> Training:
    """The classifiers of the seen classes, one a seed, trained as one stack by `train`.

    It is plain cross-entropy for every method; images of unseen classes are not among `split.train`
    and so in no batch. Goes on from the run's checkpoint if there is one.
    """
    networks = [network_of(backbone, data, split, train, seed) for seed in seeds]
    if train.channels_last:
        networks = [network.to(memory_format=torch.channels_last) for network in networks]
    stack = stack_networks([network.to(device) for network in networks], device, processes)
    training = start(list(seeds), stack, Method(), {}, train, {})
    if train.average:
        training.average = Average.start(stack, train.average)
    step = _resume(training, files, processes)
    observer: RunObserver | Onlooker = Onlooker()
    if processes.is_main:
        files.log_lines_before(0, step)
        observer = RunObserver(training, files, _place, progress, checkpoint_seconds, track=track)
        observer.progress(step)
    batches = _Batches(data, split, list(seeds), train, device, processes)
    fit(training, batches, train.steps, step, observer)
    observer.flush()
    if training.average:
        training.average.swap(stack)
    return training


def _place(step: int) -> dict[str, Any]:
    return {"step": step}


def _resume(training: Training, files: RunFiles, processes: Processes) -> int:
    """The step at which a checkpoint lets the training go on; 0 without one."""

    def fits(place: dict[str, Any]) -> bool:
        return place["step"] in range(training.train.steps + 1)

    path = files.checkpoint
    place = checkpoint.resume(path, training, fits) if processes.is_main else None
    found = processes.from_main(torch.tensor(place is not None))
    with processes.alike():  # what the main process could read, the others can
        if found and not processes.is_main:
            place = checkpoint.load(path, training, fits)
    return place["step"] if place else 0
