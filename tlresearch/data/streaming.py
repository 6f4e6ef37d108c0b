"""Images that do not fit on the device, fetched ahead by torch's `DataLoader`.

Which samples form which batch is decided elsewhere; here they are read in that order, so that
streamed batches are, to the bit, those gathered on the device, from any step on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tlresearch.errors import UserError

LARGEST_SHARE = 0.5
"""Of a GPU's free memory: images that take more are streamed."""


@runtime_checkable
class Source(Protocol):
    """Images by number: a list of files, a memory-mapped array, a tensor, a torch data set."""

    def __getitem__(self, index: int, /) -> Any:
        """Image `index`: uint8 (channels, height, width), a tensor or an array of numpy."""
        ...


@dataclass(frozen=True)
class _Failed:
    """A sample that could not be read: told, because a worker's exception loses its number."""

    index: int
    reason: str


class _Batches(Dataset):
    """What a worker does: one batch of numbers to one tensor of images."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Any:
        if isinstance(self.source, Tensor):
            return self.source.index_select(0, torch.tensor(indices))
        images = []
        for index in indices:
            try:
                images.append(torch.as_tensor(self.source[index]))
            except Exception as error:
                return _Failed(index, f"{type(error).__name__}: {error}")
        return torch.stack(images)


class StreamedImages:
    """The images of batch after batch, on the device, one batch ahead of the one in use."""

    def __init__(
        self,
        source: Source,
        batch: Callable[[int], Tensor],
        steps: int,
        device: torch.device | str,
        workers: int = 0,
    ) -> None:
        """Reads nothing yet.

        Args:
            source: the images, in host memory or on disk.
            batch: the numbers of the images of a step, int64 on the host, of any one shape.
            steps: how many steps there are.
            device: where the images go; to CUDA through pinned memory, without waiting for it.
            workers: processes that read ahead; 0 reads in this one.
        """
        self.source, self.numbers, self.steps = source, batch, steps
        self.device, self.workers = torch.device(device), workers
        self._next, self._ahead = 0, iter(())

    def batch(self, step: int) -> UInt8[Tensor, "batch channels height width"]:
        """The images of a step; fast where steps follow one another, as they do in training.

        Raises:
            UserError: an image cannot be read; names its number and the reason.
        """
        if step != self._next or step == 0:
            self._ahead = self._from(step)
        self._next = step + 1
        return next(self._ahead)

    def _from(self, first: int) -> Iterator[Tensor]:
        """The images of the steps from `first` on."""
        loader = DataLoader(
            _Batches(self.source),
            batch_sampler=_Numbers(self.numbers, first, self.steps),
            num_workers=self.workers,
            collate_fn=_as_it_is,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it would draw from the one that is everybody's
        )
        ahead = None
        for images in loader:
            # The copy to the device goes on while the batch before it is computed with.
            coming = images if isinstance(images, _Failed) else self._moved(images)
            if ahead is not None:
                yield self._sound(ahead)
            ahead = coming
        if ahead is not None:
            yield self._sound(ahead)

    def _moved(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True)

    def _sound(self, images: "Tensor | _Failed") -> Tensor:
        if isinstance(images, _Failed):
            raise UserError(
                f"image {images.index} of {type(self.source).__name__} cannot be read "
                f"({images.reason}); repair or remove it, and give the same command again"
            )
        return images


@dataclass(frozen=True)
class _Numbers:
    """The numbers of the images, batch after batch: what `DataLoader` calls a batch sampler."""

    batch: Callable[[int], Tensor]
    first: int
    steps: int

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.steps):
            yield self.batch(step).flatten().tolist()

    def __len__(self) -> int:
        return self.steps - self.first


def _as_it_is(images: Any) -> Any:
    return images


def gather(images: Tensor, indices: Tensor) -> Tensor:
    """Rows of `images`, on the device of `indices`, wherever the images lie."""
    if images.device == indices.device:
        return images.index_select(0, indices)
    rows = images.index_select(0, indices.to(images.device))
    return rows.pin_memory().to(indices.device, non_blocking=True)


def too_large(images: Tensor, device: torch.device) -> bool:
    """Whether images would take more than half of what is free on a GPU; never so on a CPU."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes > LARGEST_SHARE * free
