"""Relation networks.

Sung et al., "Learning to compare: relation network for few-shot learning", CVPR 2018,
arXiv:1711.06025: a relation score r_ij = g(C(f(x_i), f(x_j))) in (0, 1) for each class i and query
j, eq. (1), from the feature map of the class (summed over its shots) and that of the query,
concatenated in depth; trained by Σ (r_ij − 1(y_i = y_j))², eq. (2). Networks: section 3.4.

Differs from the paper: the mean of the squares and not their sum, as in the authors' code; all
convolutions are padded, also where the authors' Omniglot code has none; no bias in front of batch
norm; initialisation and momentum of batch norm are torch's. The first convolution of g is taken of
each map alone and the two are added, which is the convolution of the concatenation at a fraction of
its cost: maps are fewer than pairs.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.layers import BatchNorm2d
from tlresearch.data.episodes import Episodes
from tlresearch.errors import UserError
from tlresearch.fewshot.method import MetricMethod
from tlresearch.settings import Bounds
from tlresearch.training.method import Loss
from tlresearch.training.settings import Count
from tlresearch.training.tree import Tree

_SMALLEST = 4
"""Rows and columns that the relation module's two poolings leave something of."""


class RelationModule(nn.Module):
    """g: two blocks (3 x 3 convolution, batch norm, ReLU, 2 x 2 max pool), two linear layers.

    Args:
        map_shape: channels, rows and columns of a feature map.
        hidden: units between the linear layers.
    """

    def __init__(self, map_shape: tuple[int, int, int], hidden: int) -> None:
        super().__init__()
        channels, rows, columns = map_shape
        self.map_shape = map_shape
        self.first = nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False)
        self.rest = nn.Sequential(
            *_normalised_and_pooled(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            *_normalised_and_pooled(channels),
            nn.Flatten(),
            nn.Linear(channels * (rows // 4) * (columns // 4), hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )

    def forward(
        self,
        classes: Float[Tensor, "episodes ways dim"],
        query: Float[Tensor, "episodes queries dim"],
    ) -> Float[Tensor, "episodes queries ways"]:
        """logit r_ij: the score before its sigmoid, of each query with each class.

        Args:
            classes: flattened feature maps, summed over the shots of a class.
            query: flattened feature maps.
        """
        of_class, of_query = self.first.weight.chunk(2, dim=1)  # the class is concatenated first
        pairs = self._convolved(classes, of_class).unsqueeze(1)
        pairs = pairs + self._convolved(query, of_query).unsqueeze(2)
        return self.rest(pairs.flatten(0, 2)).view(pairs.shape[:3])

    def _convolved(self, maps: Tensor, weight: Tensor) -> Tensor:
        """The convolution of flattened maps (episodes, n, dim), not flattened."""
        found = F.conv2d(maps.reshape(-1, *self.map_shape), weight, padding=1)
        return found.unflatten(0, maps.shape[:2])


def _normalised_and_pooled(channels: int) -> list[nn.Module]:
    # Pooling and ReLU commute, and the ReLU of a pooled map is cheaper.
    return [BatchNorm2d(channels), nn.MaxPool2d(2), nn.ReLU()]


class EmbeddingAndRelation(nn.Module):
    """f, a backbone whose features are flattened maps, and g."""

    def __init__(self, backbone: Any, hidden: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.relation = RelationModule(backbone.map_shape, hidden)


@dataclass(frozen=True)
class RelationNetwork(MetricMethod):
    """Learns the comparison of two feature maps together with the maps."""

    chunk: ClassVar[int] = 1  # 20 ways with 300 queries are 6000 pairs of feature maps

    hidden: Count = 8
    """Units between the relation module's linear layers, at least 1."""
    pools: Annotated[int, Bounds(ge=0, le=4)] | None = 2
    """Blocks of Conv-4 that pool, in place of the backbone's own setting, so that a map of 28 x 28
    pixels has 7 x 7 places; null: as the backbone says."""

    def networks(
        self, backbone: Any, shape: tuple[int, int, int], classes: int, seed: int
    ) -> EmbeddingAndRelation:
        """f and g, with parameters drawn under `seed`.

        Raises:
            UserError: the backbone has no feature maps, or too small ones.
        """
        if isinstance(backbone, Conv4) and self.pools is not None:
            backbone = replace(backbone, pools=self.pools)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            embedding = backbone.build(shape)
            _require_maps(embedding, shape)
            return EmbeddingAndRelation(embedding, self.hidden)

    def embed(self, networks: EmbeddingAndRelation, x: Tensor) -> Float[Tensor, "batch dim"]:
        return networks.backbone(x)

    def loss(self, networks: EmbeddingAndRelation, state: Tree, batch: Episodes) -> Loss:
        """Mean of (r_ij − 1(y_i = y_j))² over episodes, queries j and classes i, eq. (2).

        All pairs of all episodes go through the relation module together, and share the
        statistics of its batch norm.
        """
        support, query = self._embed_episodes(networks, batch)
        scores = self.compare_all(networks, state, support, query).sigmoid()
        one_hot = torch.eye(support.shape[1]).to(scores).repeat_interleave(batch.sizes[2], 0)
        value = (scores - one_hot).square().mean()
        return Loss(value, {"squared_error": value})

    def compare(
        self,
        networks: EmbeddingAndRelation,
        state: Tree,
        support: Float[Tensor, "ways shots dim"],
        query: Float[Tensor, "queries dim"],
    ) -> Float[Tensor, "queries ways"]:
        """logit r_ij, which has the order of r_ij without its ties near 0 and 1."""
        return networks.relation(support.sum(1).unsqueeze(0), query.unsqueeze(0)).squeeze(0)

    def compare_all(
        self,
        networks: EmbeddingAndRelation,
        state: Tree,
        support: Float[Tensor, "episodes ways shots dim"],
        query: Float[Tensor, "episodes queries dim"],
    ) -> Float[Tensor, "episodes queries ways"]:
        """`compare` of every episode, through one pass that needs no mapping."""
        return networks.relation(support.sum(2), query)


def _require_maps(embedding: Any, shape: tuple[int, int, int]) -> None:
    """Refuses backbones that the relation module cannot stand on."""
    found = getattr(embedding, "map_shape", None)
    if found is None:
        raise UserError(
            "Relation networks compare feature maps, and this backbone gives feature vectors; "
            "choose the backbone conv4, or one whose module has a map_shape."
        )
    _, rows, columns = found
    if min(rows, columns) < _SMALLEST:
        raise UserError(
            f"Relation networks need feature maps of {_SMALLEST} x {_SMALLEST} or more, but images "
            f"of {shape[1]} x {shape[2]} pixels give {rows} x {columns} here; set pools to a "
            "smaller number or take larger images."
        )
