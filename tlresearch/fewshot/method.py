"""What a few-shot method says to its protocol, beyond the common contract."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vmap

from tlresearch.backbones import Settings
from tlresearch.data.episodes import Episodes, labels
from tlresearch.functional.losses import cross_entropy
from tlresearch.training.method import Loss, Method
from tlresearch.training.settings import Count
from tlresearch.training.tree import Tree


@dataclass(frozen=True)
class FewShotMethod(Method):
    """A method that is measured on episodes."""

    Batch: ClassVar[type] = Episodes
    trains_on: ClassVar[Literal["episodes", "classes", "nothing"]] = "episodes"
    """Episodes; a classification of all training classes (`Batch` is then `Labelled`); nothing."""
    regresses: ClassVar[bool] = False
    """Whether it can learn a regression, such as the sinusoids."""
    classifies: ClassVar[bool] = True
    """Whether it can learn a classification."""
    training_kind: ClassVar[str] = ""
    """Methods with the same word and settings share their trainings; empty: the class's name."""
    evaluation_fields: ClassVar[tuple[str, ...]] = ()
    """Settings that training does not depend on."""
    chunk: ClassVar[int] = 50
    """Episodes that are predicted at once, a matter of memory and speed."""
    sees_task: ClassVar[bool] = False
    """Regression: whether an input also holds what describes its task (amplitude and phase)."""

    train_ways: Count | None = None
    """Classes of a training episode, for methods that train on episodes; null: as in the test."""
    train_shots: Count | None = None
    """Shots of each class of a training episode; null: as in the test."""
    train_queries: Count | None = None
    """Queries of each class of a training episode; null: as in the test."""
    tasks: Count = 1
    """Episodes of one optimiser step; a classifier takes `train.batch_size` images instead."""

    def problem(self) -> str | None:
        """What contradicts itself in the settings: one sentence that begins with a key, or None."""
        return None

    def notes(self) -> dict[str, str]:
        """Columns of text that its rows have in a table."""
        return {}

    def predict_episode(
        self, networks: nn.Module, state: Tree, episode: Episodes
    ) -> Float[Tensor, "rows queries outputs"]:
        """Scores (or values) of one episode's queries, flattened class by class.

        Rows: after 0, 1, … inner steps; one for a method without an inner loop. The last counts.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define predict_episode")


@dataclass(frozen=True)
class MetricMethod(FewShotMethod):
    """A method that embeds images and compares the queries with the support."""

    def networks(
        self, backbone: Settings, shape: tuple[int, int, int], classes: int, seed: int
    ) -> nn.Module:
        """The backbone alone, without a head."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return backbone.build(shape)

    def embed(
        self, networks: nn.Module, x: Float[Tensor, "batch *shape"]
    ) -> Float[Tensor, "batch dim"]:
        """What is known of an image before it is compared."""
        return networks(x)

    def compare(
        self,
        networks: nn.Module,
        state: Tree,
        support: Float[Tensor, "ways shots dim"],
        query: Float[Tensor, "queries dim"],
    ) -> Float[Tensor, "queries ways"]:
        """Scores of one episode's queries, a pure function that maps over episodes."""
        raise NotImplementedError(f"{type(self).__name__} does not define compare")

    def compare_all(
        self,
        networks: nn.Module,
        state: Tree,
        support: Float[Tensor, "episodes ways shots dim"],
        query: Float[Tensor, "episodes queries dim"],
    ) -> Float[Tensor, "episodes queries ways"]:
        """`compare` of every episode, in float32 or wider also where images are embedded in less.

        A distance is a small difference of large squares, and half precision would round it away.
        """
        with torch.autocast(support.device.type, enabled=False):
            if len(support) == 1:  # without the cost of mapping
                return self.compare(networks, state, support[0], query[0]).unsqueeze(0)
            return vmap(lambda s, q: self.compare(networks, state, s, q))(support, query)

    def loss(self, networks: nn.Module, state: Tree, batch: Episodes) -> Loss:
        """Mean cross-entropy of the episodes' queries, in nats.

        All images of the step pass the network together, as in the code of Snell et al., so that
        batch norm sees support and queries of all episodes.
        """
        support, query = self._embed_episodes(networks, batch)
        scores = self.compare_all(networks, state, support, query).flatten(0, 1)
        episodes, (ways, _, queries) = len(batch.support_x), batch.sizes
        y = labels(ways, queries, scores.device).repeat(episodes)
        value = cross_entropy(scores, y)
        right = (scores.detach().argmax(-1) == y).to(scores.dtype).mean()
        return Loss(value, {"cross_entropy": value, "accuracy": right})

    def _embed_episodes(
        self, networks: nn.Module, batch: Episodes
    ) -> tuple[Float[Tensor, "episodes ways shots dim"], Float[Tensor, "episodes queries dim"]]:
        """Features of support and queries, in float32 or wider."""
        ways, shots, queries = batch.sizes
        x = torch.cat([batch.support_x.flatten(0, 2), batch.query_x.flatten(0, 2)])
        z = self.embed(networks, x)
        z = z if z.dtype == torch.float64 else z.float()
        support, query = z.tensor_split([len(batch.support_x) * ways * shots])
        support = support.unflatten(0, (-1, ways, shots))
        return support, query.unflatten(0, (-1, ways * queries))

    def predict_episode(
        self, networks: nn.Module, state: Tree, episode: Episodes
    ) -> Float[Tensor, "1 queries ways"]:
        """`compare` of the embedded images of one episode, in evaluation mode."""
        ways, shots = episode.support_x.shape[:2]
        support = self.embed(networks, episode.support_x.flatten(0, 1)).unflatten(0, (ways, shots))
        query = self.embed(networks, episode.query_x.flatten(0, 1))
        return self.compare(networks, state, support, query).unsqueeze(0)
