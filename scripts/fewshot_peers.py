"""What `benchmark_fewshot.py` compares with: the peers' loops and samplers, and hand-written ones.

Every loop is a function of a number of meta-steps. It takes its episodes from `Episodes`, drawn
before, and Adam at 1e-3, so all of them do the same work. Peers that are missing are left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from turns import Loop, repeated

from tlresearch.data.episodes import Episodes, labels

Sampler = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Given:
    """Meta-steps of episodes as peers take them: one task after another, with targets."""

    steps: list[Episodes]
    targets: tuple[Tensor, Tensor] | None
    """Labels of the rows of (support, query); None: a regression's are in the episodes."""

    @staticmethod
    def of(batch: Callable[[int], tuple[Tensor | None, ...]], steps: int, ways: int) -> "Given":
        """The first seed's episodes of some steps; rows class by class.

        Args:
            batch: as `fit` takes it.
            steps: how many; a loop that takes more begins again.
            ways: N; 1 is a regression.
        """
        drawn = []
        for step in range(steps):
            fields = (None if t is None else t[0].flatten(1, 2) for t in batch(step))
            drawn.append(Episodes(*fields))  # type: ignore[arg-type]
        if ways == 1:
            return Given(drawn, None)
        rows = [t.shape[1] // ways for t in drawn[0][:2] if t is not None]
        device = drawn[0].support_x.device
        return Given(drawn, (labels(ways, rows[0], device), labels(ways, rows[1], device)))

    def tasks(self, step: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """(support, its targets, query, its targets) of each task of a step."""
        episodes = self.steps[step % len(self.steps)]
        if self.targets is None:
            assert episodes.support_y is not None and episodes.query_y is not None
            of_support, of_query = episodes.support_y, episodes.query_y
        else:
            of_support, of_query = ([t] * len(episodes.support_x) for t in self.targets)
        return zip(episodes.support_x, of_support, episodes.query_x, of_query, strict=True)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of one task."""
        return (F.mse_loss if self.targets is None else F.cross_entropy)(outputs, targets)


def mlp(width: int = 40) -> nn.Sequential:
    """1-40-40-1, as one writes it for a peer."""
    hidden = (nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(width, 1))


def conv4(ways: int, channels: int = 64) -> nn.Sequential:
    """Conv-4 for images of 28 x 28 with batch norm that keeps no running averages."""
    layers: list[nn.Module] = []
    for block in range(4):
        layers += [
            nn.Conv2d(channels if block else 1, channels, 3, padding=1),
            nn.BatchNorm2d(channels, track_running_stats=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, ways))


def learn2learn_loop(
    package: Any, network: nn.Module, given: Given, inner_steps: int, rate: float
) -> Loop:
    """As in its own example `maml_omniglot.py`: clone, adapt, backward of each task's loss."""
    maml = package.algorithms.MAML(network, lr=rate)
    optimizer = torch.optim.Adam(maml.parameters(), lr=1e-3, fused=True)

    def step_of(step: int) -> None:
        optimizer.zero_grad()
        for support, of_support, query, of_query in given.tasks(step):
            fast = maml.clone()
            for _ in range(inner_steps):
                fast.adapt(given.loss(fast(support), of_support))
            given.loss(fast(query), of_query).backward()
        _mean_gradient(network, given)
        optimizer.step()

    return repeated(step_of)


def higher_loop(
    package: Any, network: nn.Module, given: Given, inner_steps: int, rate: float
) -> Loop:
    """As in its own example `maml-omniglot.py`."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    inner = torch.optim.SGD(network.parameters(), lr=rate)

    def step_of(step: int) -> None:
        optimizer.zero_grad()
        for support, of_support, query, of_query in given.tasks(step):
            with package.innerloop_ctx(network, inner, copy_initial_weights=False) as (fast, taken):
                for _ in range(inner_steps):
                    taken.step(given.loss(fast(support), of_support))
                given.loss(fast(query), of_query).backward()
        _mean_gradient(network, given)
        optimizer.step()

    return repeated(step_of)


def _mean_gradient(network: nn.Module, given: Given) -> None:
    """Over the tasks, of the sum that the tasks' backward passes left."""
    for parameter in network.parameters():
        assert parameter.grad is not None
        parameter.grad.div_(len(given.steps[0].support_x))


def hand_loop(
    network: nn.Module, given: Given, inner_steps: int, rate: float, compiled: bool
) -> Loop:
    """All tasks of a regression at once, by `bmm`; the inner gradient of the MLP is written out."""
    weights = list(network.parameters())
    optimizer = torch.optim.Adam(weights, lr=1e-3, fused=True)

    def loss_of(x: Tensor, y: Tensor, query: Tensor, of_query: Tensor) -> Tensor:
        tasks, shots = x.shape[:2]
        # Weights as (tasks, in, out), biases as (tasks, 1, out).
        fast = [(w.T if w.ndim == 2 else w.unsqueeze(0)).expand(tasks, -1, -1) for w in weights]
        for _ in range(inner_steps):
            z_1 = torch.baddbmm(fast[1], x, fast[0])
            h_1 = z_1.relu()
            z_2 = torch.baddbmm(fast[3], h_1, fast[2])
            h_2 = z_2.relu()
            d_3 = (torch.baddbmm(fast[5], h_2, fast[4]) - y) * (2 / shots)
            d_2 = (d_3 @ fast[4].mT) * (z_2 > 0)
            d_1 = (d_2 @ fast[2].mT) * (z_1 > 0)
            slopes: list[Tensor] = []
            for inputs, d in ((x, d_1), (h_1, d_2), (h_2, d_3)):
                slopes += [inputs.mT @ d, d.sum(1, keepdim=True)]
            fast = [w - rate * slope for w, slope in zip(fast, slopes, strict=True)]
        h = torch.baddbmm(fast[1], query, fast[0]).relu()
        h = torch.baddbmm(fast[3], h, fast[2]).relu()
        return (torch.baddbmm(fast[5], h, fast[4]) - of_query).square().mean()

    function = torch.compile(loss_of) if compiled else loss_of

    def step_of(step: int) -> None:
        episodes = given.steps[step % len(given.steps)]
        assert episodes.support_y is not None and episodes.query_y is not None
        optimizer.zero_grad()
        function(
            episodes.support_x, episodes.support_y, episodes.query_x, episodes.query_y
        ).backward()
        optimizer.step()

    return repeated(step_of)


def learn2learn_sampler(
    package: Any, x: Tensor, y: Tensor, ways: int, shots: int, queries: int
) -> Sampler:
    """Its data sets, on float32 tensors in memory: (support, query), rows class by class."""
    transforms = package.data.transforms

    data = package.data.MetaDataset(torch.utils.data.TensorDataset(x, y))
    each = shots + queries
    tasks = package.data.TaskDataset(
        data,
        task_transforms=[
            transforms.NWays(data, ways),
            transforms.KShots(data, each),
            transforms.LoadData(data),
            transforms.RemapLabels(data),
            transforms.ConsecutiveLabels(data),
        ],
        num_tasks=-1,
    )
    while True:
        images, _ = tasks.sample()
        images = images.unflatten(0, (ways, each))
        yield images[:, :shots], images[:, shots:]


def easyfsl_sampler(
    package: Any, x: Tensor, y: Tensor, ways: int, shots: int, queries: int
) -> Sampler:
    """Its batch sampler and collate function in torch's loader, on float32 tensors in memory."""
    from easyfsl.datasets import FewShotDataset  # type: ignore[import-not-found]
    from easyfsl.samplers import TaskSampler  # type: ignore[import-not-found]

    pairs = list(zip(x.unbind(), y.tolist(), strict=True))

    class Images(FewShotDataset):
        """Images and labels."""

        def __getitem__(self, item: int) -> tuple[Tensor, int]:
            return pairs[item]

        def __len__(self) -> int:
            return len(pairs)

        def get_labels(self) -> list[int]:
            return [label for _, label in pairs]

    data = Images()
    # easyfsl 1.5.0 gives torch's Sampler an argument that torch 2.14 no longer takes.
    with mock.patch.object(torch.utils.data.Sampler, "__init__", lambda self, data_source: None):
        sampler = TaskSampler(data, ways, shots, queries, 10**9)
    loader = torch.utils.data.DataLoader(
        data, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn
    )
    for support, _, query, _, _ in loader:
        yield support.unflatten(0, (ways, shots)), query.unflatten(0, (ways, queries))
