"""What `benchmark_distillation.py` compares with: hand-written loops of KD, and torchdistill's.

Every loop is a function of a number of steps. It takes the places of its samples from `Given`,
drawn before, and the same optimiser, so all of them do the same work and end with the same weights.
The loss is (1 − α) · cross-entropy + α T² · KL(teacher ‖ student), of probabilities at T.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from turns import Loop, repeated


@dataclass(frozen=True)
class Given:
    """What is trained on, and in which order; on the device."""

    pixels: Tensor
    """(n, channels, rows, columns), uint8."""
    images: Tensor
    """The same in [0, 1], as floating numbers."""
    labels: Tensor
    """(n,)."""
    places: Tensor
    """(steps, B) places in `images`. A loop that takes more steps begins again."""
    answers: Tensor
    """(n, classes), the teacher's logits of every image."""
    alpha: float
    """α."""
    temperature: float
    """T."""
    optimizer: str
    """`SGD` or `Adam`, of torch.optim."""
    arguments: dict[str, Any]
    """Of the optimiser, such as its rate."""

    def rows(self, step: int) -> Tensor:
        """(B,)."""
        return self.places[step % len(self.places)]


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them, as one writes them."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, units in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, units), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def hand_loop(
    student: nn.Module, teacher: nn.Module | None, given: Given, compiled: bool = False
) -> Loop:
    """One gather of images that are floating numbers already, one pass, one fused step.

    Args:
        student: is trained.
        teacher: is asked at each step; None: its answers are gathered.
        given: data, order, loss and optimiser.
        compiled: whether the loss goes through `torch.compile`.
    """
    kind = getattr(torch.optim, given.optimizer)
    optimizer = kind(student.parameters(), **given.arguments, fused=True)
    alpha, temperature = given.alpha, given.temperature

    def loss_of(x: Tensor, y: Tensor, answers: Tensor) -> Tensor:
        z = student(x)
        log_q = (z / temperature).log_softmax(-1)
        log_p = (answers / temperature).log_softmax(-1)
        soft = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        return (1 - alpha) * F.cross_entropy(z, y) + alpha * temperature**2 * soft

    function = torch.compile(loss_of) if compiled else loss_of

    def step_of(step: int) -> None:
        rows = given.rows(step)
        x = given.images.index_select(0, rows)
        if teacher is None:
            answers = given.answers.index_select(0, rows)
        else:
            with torch.no_grad():
                answers = teacher(x)
        loss = function(x, given.labels.index_select(0, rows), answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return repeated(step_of)


class Digits(Dataset[tuple[Tensor, int]]):
    """Images that become a tensor one by one, as torchvision's MNIST gives them.

    Args:
        pixels: (n, 1, rows, columns), uint8.
        labels: (n,).
    """

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        from torchvision.transforms import ToTensor

        self.pixels, self.labels, self.transform = pixels[:, 0].cpu(), labels.tolist(), ToTensor()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        from PIL import Image

        image = Image.fromarray(self.pixels[place].numpy())
        return self.transform(image), self.labels[place]


class Rows(Dataset[tuple[Tensor, int]]):
    """Rows of a tensor that is ready, the least that a data set can do.

    Args:
        images: (n, …).
        labels: (n,).
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.cpu(), labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self.images[place], self.labels[place]


def _settings_of_box(given: Given, fused: dict[str, bool], workers: int) -> dict[str, Any]:
    """What a configuration file of torchdistill would say."""
    loader = {"batch_size": given.places.shape[1], "num_workers": workers}
    order = given.places.flatten().tolist()
    paths = {f"{who}_module_path": "." for who in ("student", "teacher")}
    inputs = {f"{who}_module_io": "output" for who in ("student", "teacher")}
    numbers = {"temperature": given.temperature, "alpha": 1 - given.alpha}
    kd = {"key": "KDLoss", "kwargs": paths | inputs | numbers | {"reduction": "batchmean"}}
    return {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": lambda data: order},
            "kwargs": loader | ({"persistent_workers": True} if workers else {}),
        },
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {"key": given.optimizer, "kwargs": given.arguments | fused},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"criterion": kd, "weight": 1.0}}},
        },
    }


def torchdistill_loop(
    package: Any,
    student: nn.Module,
    teacher: nn.Module,
    given: Given,
    helped: bool = False,
    workers: int = 0,
) -> Loop:
    """`DistillationBox` with `KDLoss`, called and logged as its example for classification does.

    The teacher is asked at each step. Its α is the weight of the labels.

    Args:
        package: torchdistill, with the modules that are named below.
        student: is trained.
        teacher: is asked.
        given: data, order, loss and optimiser.
        helped: whether images are tensors already and the optimiser is fused; else each image is
            made a tensor of and the optimiser is what its name alone gives, as in its samples.
        workers: processes of its data loader.
    """
    device = given.labels.device
    data = Rows(given.images, given.labels) if helped else Digits(given.pixels, given.labels)
    settings = _settings_of_box(given, {"fused": True} if helped else {}, workers)
    box = package.core.distillation.get_distillation_box(
        teacher, student, {"train": data}, settings, device, None, False, 1
    )
    log = package.misc.log

    def steps_without_end() -> Iterator[None]:
        for epoch in itertools.count():
            box.pre_epoch_process(epoch=epoch)
            meters = log.MetricLogger(delimiter="  ")
            for x, y, more in meters.log_every(box.train_data_loader, 100, ""):
                loss = box.forward_process(x.to(device), y.to(device), more)
                box.post_forward_process(loss=loss)
                meters.update(loss=loss.item(), lr=box.optimizer.param_groups[0]["lr"])
                yield
            box.post_epoch_process()

    running = steps_without_end()

    def steps(count: int) -> None:
        for _ in range(count):
            next(running)

    return steps
