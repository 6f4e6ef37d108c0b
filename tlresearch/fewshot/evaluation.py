"""How well a stack's networks do on episodes, the same ones for every method and seed."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import vmap

from tlresearch.data.episodes import Episodes, Pool, labels
from tlresearch.fewshot.method import FewShotMethod, MetricMethod
from tlresearch.training.loop import Training
from tlresearch.training.tree import Tree, take

CHUNK = 500
"""Images that are embedded at once, a matter of memory, not of results."""


@dataclass(frozen=True)
class ImageEpisodes:
    """Episodes as indices into the images of a pool."""

    pool: Pool
    indices: Int64[Tensor, "episodes ways samples"]
    """Of shots, then queries."""
    shots: int
    scale: Float[Tensor, ""]
    regression = False

    def __len__(self) -> int:
        return len(self.indices)

    def chunk(self, part: slice) -> Episodes:
        """Some of them."""
        images = self.pool.gather(self.indices[part], self.scale)
        return Episodes(images[:, :, : self.shots], images[:, :, self.shots :])

    @property
    def identity(self) -> str:
        """A short hash of which images they show; equal for equal episodes."""
        words = self.indices.cpu().numpy().tobytes() + str(self.shots).encode()
        return hashlib.sha256(words + self.pool.images[:1000].cpu().numpy().tobytes()).hexdigest()[
            :12
        ]


@dataclass(frozen=True)
class DrawnEpisodes:
    """Episodes of a regression, held whole."""

    episodes: Episodes
    regression = True

    def __len__(self) -> int:
        return len(self.episodes.support_x)

    def chunk(self, part: slice) -> Episodes:
        """Some of them."""
        return self.episodes.take(part)

    @property
    def identity(self) -> str:
        """A short hash of their values; equal for equal episodes, whatever a method is told."""
        found = (self.episodes.support_y, self.episodes.query_y)
        words = b"".join(t.cpu().numpy().tobytes() for t in found if t is not None)
        return hashlib.sha256(words).hexdigest()[:12]


EvaluationSet = ImageEpisodes | DrawnEpisodes


@torch.no_grad()
def evaluate(training: Training, episodes: EvaluationSet) -> Float[Tensor, "seeds episodes rows"]:
    """Accuracy, or mean squared error, of each seed on each episode after 0, 1, … inner steps.

    Seed by seed, in evaluation mode and without autocast; a method without an inner loop has one
    row. float64. NaN for a seed that failed, and where a prediction is NaN, which has no largest
    score.
    """
    training.stack.train(False)
    scores: dict[int, Tensor] = {}
    for place, failure in enumerate(training.failures):
        if failure is not None:  # its weights may be no numbers, which not every method can take
            continue
        method, networks = training.one(place)
        state = take(training.state, place)
        assert isinstance(method, FewShotMethod)
        if isinstance(method, MetricMethod):
            found = _metric(method, networks, state, episodes)
        else:
            found = _episodes(method, networks, state, episodes)
        scores[place] = torch.cat(list(found)).cpu()
    rows = next(iter(scores.values()), torch.empty(len(episodes), 1, dtype=torch.float64))
    nothing = torch.full_like(rows, torch.nan)
    return torch.stack([scores.get(place, nothing) for place in range(len(training.seeds))])


def _metric(
    method: MetricMethod, networks: nn.Module, state: Tree, episodes: EvaluationSet
) -> Iterator[Tensor]:
    """Every image is embedded once; episodes compare what was embedded."""
    assert isinstance(episodes, ImageEpisodes)
    features = embed_all(lambda x: method.embed(networks, x), episodes)
    shots = episodes.shots
    for part in _parts(len(episodes), method.chunk):
        z = features[episodes.indices[part]]
        z = z if z.dtype == torch.float64 else z.float()
        support, query = z[:, :, :shots], z[:, :, shots:].flatten(1, 2)
        scores = method.compare_all(networks, state, support, query)
        yield _accuracy(scores.unsqueeze(1), z.shape[1])


def _episodes(
    method: FewShotMethod, networks: nn.Module, state: Tree, episodes: EvaluationSet
) -> Iterator[Tensor]:
    """Episodes as they are, several at once."""
    for part in _parts(len(episodes), method.chunk):
        chunk = episodes.chunk(part)
        found = _predict(method, networks, state, chunk)
        if episodes.regression:
            assert chunk.query_y is not None
            truth = chunk.query_y.flatten(1, 2).unsqueeze(1)
            yield (found - truth).double().square().flatten(2).mean(2)
        else:
            yield _accuracy(found, chunk.query_x.shape[1])


def _predict(
    method: FewShotMethod, networks: nn.Module, state: Tree, chunk: Episodes
) -> Float[Tensor, "episodes rows queries outputs"]:
    """`predict_episode` of every episode, mapped or one by one.

    Adapted filters are each episode's own: mapped they are a grouped convolution, which a CPU does
    several times more slowly than one convolution after the other.
    """
    convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in networks.modules())
    if convolves and chunk.support_x.device.type == "cpu":
        singles = (chunk.take(place) for place in range(len(chunk.support_x)))
        return torch.stack([method.predict_episode(networks, state, one) for one in singles])
    given = [t for t in chunk if t is not None]

    def one(*tensors: Tensor) -> Tensor:
        names = [name for name, t in zip(chunk._fields, chunk, strict=True) if t is not None]
        one_episode = Episodes(**dict(zip(names, tensors, strict=True)))
        return method.predict_episode(networks, state, one_episode)

    return vmap(one, randomness="error")(*given)


def _accuracy(
    scores: Float[Tensor, "episodes rows queries ways"], ways: int
) -> Float[Tensor, "episodes rows"]:
    """Fraction of queries, ordered class by class, whose highest score is at their class.

    NaN where a score is: `argmax` would name a class all the same.
    """
    y = labels(ways, scores.shape[2] // ways, scores.device)
    found = (scores.argmax(-1) == y).double().mean(-1)
    return found.masked_fill(scores.isnan().flatten(2).any(-1), torch.nan)


def embed_all(embed: Callable[[Tensor], Tensor], episodes: ImageEpisodes) -> Tensor:
    """Features of every image that the episodes show, in a table with a row for each image.

    Rows of images that are not shown are zeros.
    """
    shown = torch.zeros(len(episodes.pool.images), dtype=torch.bool, device=episodes.indices.device)
    shown[episodes.indices.flatten()] = True
    places = shown.nonzero().squeeze(1)
    found = [embed(episodes.pool.gather(some, episodes.scale)) for some in places.split(CHUNK)]
    table = found[0].new_zeros(len(shown), found[0].shape[1])
    table[places] = torch.cat(found)
    return table


def _parts(total: int, size: int) -> Iterator[slice]:
    for first in range(0, total, size):
        yield slice(first, min(total, first + size))
