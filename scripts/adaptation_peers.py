"""What `benchmark_adaptation.py` compares with: hand-written loops of DANN, and pytorch-adapt's.

Every loop is a function of a number of steps. It takes the places of its samples and λ from
`Given`, drawn before, and SGD with momentum, so all of them do the same work and end with the same
weights. The loss is cross-entropy + ½ (domain loss of the source + domain loss of the target).
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from turns import Loop, repeated


@dataclass(frozen=True)
class Given:
    """What is trained on, and in which order; on the device."""

    images: Tensor
    """(2n, channels, rows, columns), uint8: the source, then the target."""
    labels: Tensor
    """(n,), of the source."""
    places: Tensor
    """(steps, 2, B) places in `images`: B of the source, B of the target. A loop that takes more
    steps begins again."""
    strengths: Tensor
    """(many,) λ of each step; the last one stays."""
    rate: float
    """Learning rate."""
    momentum: float

    @property
    def batch(self) -> int:
        """B."""
        return self.places.shape[2]

    def rows(self, step: int) -> Tensor:
        """(2, B)."""
        return self.places[step % len(self.places)]

    def strength(self, step: int) -> Tensor:
        """λ."""
        return self.strengths[min(step, len(self.strengths) - 1)]

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """Fused."""
        return torch.optim.SGD(
            module.parameters(), lr=self.rate, momentum=self.momentum, fused=True
        )


def scaled(images: Tensor) -> Tensor:
    """Pixels in [-1, 1], as floating numbers."""
    return images.float().mul_(2 / 255).sub_(1)


class Networks(nn.Module):
    """LeNet 20-50-500 for images of 28 x 28, and the discriminator 500-500-1, as one writes them.

    Args:
        channels: of an image.
        classes: of the head.
    """

    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        blocks = [
            (nn.Conv2d(a, b, 5), nn.MaxPool2d(2), nn.ReLU()) for a, b in ((channels, 20), (20, 50))
        ]
        units = (nn.Linear(50 * 4 * 4, 500), nn.ReLU())
        self.features = nn.Sequential(*blocks[0], *blocks[1], nn.Flatten(), *units)
        self.head = nn.Linear(500, classes)
        hidden = (nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU())
        self.discriminator = nn.Sequential(*hidden, nn.Linear(500, 1), nn.Flatten(0))


class Reversed(torch.autograd.Function):
    """x, whose gradient is multiplied by −λ."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: Tensor) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * -ctx.strength, None


def _by_hand(
    networks: Networks, given: Given, compiled: bool = False
) -> Callable[[Tensor, Tensor, int], None]:
    """A step on (inputs of both domains, labels of the source), both domains in one pass."""
    optimizer = given.optimizer(networks)
    is_source = torch.arange(2 * given.batch, device=given.images.device) < given.batch
    is_source = is_source.float()

    def loss_of(x: Tensor, y: Tensor, strength: Tensor) -> Tensor:
        z = networks.features(x)
        domains = networks.discriminator(Reversed.apply(z, strength))
        domain_loss = F.binary_cross_entropy_with_logits(domains, is_source)
        return F.cross_entropy(networks.head(z[: len(y)]), y) + domain_loss

    function = torch.compile(loss_of) if compiled else loss_of

    def take(x: Tensor, y: Tensor, step: int) -> None:
        loss = function(x, y, given.strength(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return take


def hand_loop(
    networks: Networks, given: Given, channels_last: bool = False, compiled: bool = False
) -> Loop:
    """uint8 images on the device, one gather for both domains."""
    images = given.images
    if channels_last:
        networks = networks.to(memory_format=torch.channels_last)
        images = images.permute(0, 2, 3, 1).contiguous()
    take = _by_hand(networks, given, compiled)

    def step_of(step: int) -> None:
        rows = given.rows(step)
        x = scaled(images.index_select(0, rows.flatten()))
        y = given.labels.index_select(0, rows[0])
        take(x.permute(0, 3, 1, 2) if channels_last else x, y, step)

    return repeated(step_of)


class Files(Dataset[tuple[Tensor, int]]):
    """Images of a folder, decoded one by one; it is filled first.

    Args:
        folder: gets the files `PLACE.png`.
        images: (n, 3, rows, columns), uint8.
        labels: (n,).
    """

    def __init__(self, folder: Path, images: Tensor, labels: Tensor) -> None:
        from torchvision.transforms import Compose, Normalize, ToTensor
        from torchvision.transforms.functional import to_pil_image

        self.paths = [folder / f"{place}.png" for place in range(len(images))]
        self.labels = labels.tolist()
        half = [0.5] * images.shape[1]
        self.transform = Compose([ToTensor(), Normalize(half, half)])
        for path, image in zip(self.paths, images.cpu(), strict=True):
            to_pil_image(image).save(path)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        from torchvision.datasets.folder import default_loader

        return self.transform(default_loader(str(self.paths[place]))), self.labels[place]


def png_loop(networks: Networks, given: Given, folder: Path) -> Loop:
    """Images are PNG files in a folder, which torch's loader decodes in this process."""
    count = len(given.labels)
    loaders: list[Iterator[Any]] = []
    for domain in range(2):
        inside = folder / str(domain)
        inside.mkdir()
        images = given.images[domain * count : (domain + 1) * count]
        places = (given.places[:, domain] - domain * count).tolist()
        labels = given.labels if domain == 0 else torch.zeros_like(given.labels)
        files = Files(inside, images, labels)
        loaders.append(iter(DataLoader(files, batch_sampler=itertools.cycle(places))))
    take, device = _by_hand(networks, given), given.images.device

    def step_of(step: int) -> None:
        (source, y), (target, _) = (next(loader) for loader in loaders)
        take(torch.cat([source, target]).to(device), y.to(device), step)

    return repeated(step_of)


def pytorch_adapt_loop(
    package: Any, networks: Networks, given: Given, channels_last: bool = False
) -> Loop:
    """`DANNHook` as in the package's README, on batches from uint8 images on the device.

    Each domain has a pass by itself, and G, C and D an optimiser each. The losses are weighted
    and the discriminator is ours, which learns: the package's default weights differ.
    """
    if channels_last:
        networks = networks.to(memory_format=torch.channels_last)
    models = {"G": networks.features, "C": networks.head, "D": networks.discriminator}
    features = ["src_imgs_features", "target_imgs_features"]
    # 1 would make an integer of its buffer, in which every λ is 0.
    reversal = package.hooks.dann.GradientReversalHook(weight=1.0, apply_to=features)
    weighter = package.weighters.SumWeighter(
        weights={"src_domain_loss": 0.5, "target_domain_loss": 0.5}
    )
    hook = package.hooks.DANNHook(
        [given.optimizer(model) for model in models.values()],
        weighter=weighter,
        gradient_reversal=reversal,
    )
    ones = torch.ones(given.batch, device=given.images.device)
    domains = {"src_domain": ones, "target_domain": torch.zeros_like(ones)}

    def step_of(step: int) -> None:
        source, target = given.rows(step)
        reversal.fn.update_weight(given.strength(step))
        batch = {
            "src_imgs": scaled(given.images.index_select(0, source)),
            "src_labels": given.labels.index_select(0, source),
            "target_imgs": scaled(given.images.index_select(0, target)),
        }
        hook({**models, **batch, **domains})

    return repeated(step_of)
