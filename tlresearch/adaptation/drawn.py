"""The arrays that figures are drawn from: features and decision boundary of one seed.

Points are few and rounded, so that records stay small, and of the one seed that a benchmark names.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.adaptation.trained import Trained, probabilities
from tlresearch.data.domains import Labelled

POINTS = 250
"""Most samples of a domain in a figure."""
SIDE = 60
"""Points of the grid of a decision boundary, on each side."""
MARGIN = 0.1
"""Of a decision boundary beyond the samples, as a fraction of their range."""


def drawings(
    trained: Trained, benchmark: AdaptationSettings, source: Labelled, target: Labelled
) -> dict[str, Any]:
    """Arrays by name; none for the seeds that are not drawn.

    Args:
        trained: final.
        benchmark: says which seed is drawn, and how features become two numbers.
        source: samples of the source with their labels.
        target: samples of the target with their labels, which only colour points.

    Returns:
        `embedding`, (n, 4): two numbers of a sample's features, its domain (0: source) and class.
        For inputs of two numbers `inputs` likewise, and with two classes `boundary`, rows from
        bottom to top: P(class 1) on a grid over `boundary_box` = [left, right, bottom, top].
    """
    if trained.data.pair.seeds[trained.data.place] != benchmark.drawn_seed:
        return {}
    parts = [_few(trained, part, name) for name, part in (("source", source), ("target", target))]
    arrays: dict[str, Any] = {}
    if benchmark.embedding != "none":
        features = _features(trained, parts)
        found = principal(features) if benchmark.embedding == "pca" else _neighbours(features)
        arrays["embedding"] = _rows(found, parts)
    if trained.data.pair.source.images[0].numel() == 2:
        inputs = torch.cat([part.images.flatten(1) for part in parts]).double()
        arrays["inputs"] = _rows(inputs, parts)
        if trained.data.pair.classes == 2:
            arrays |= _boundary(trained, inputs)
    return arrays


def _few(trained: Trained, part: Labelled, name: str) -> Labelled:
    places = torch.arange(len(part.images), device=part.images.device)
    places = trained.drawn(places, POINTS, f"drawn, {name}")
    return Labelled(part.images[places], part.labels[places])


def _features(trained: Trained, parts: list[Labelled]) -> Float[Tensor, "samples width"]:
    """z of source and target, in float64."""
    source, target = (part.images for part in parts)
    both = [trained.features(source, "source"), trained.features(target, "target")]
    return torch.cat(both).double()


def _rows(points: Float[Tensor, "samples 2"], parts: list[Labelled]) -> list[list[float | int]]:
    """[x, y, domain, class] of each point, to three digits."""
    domain = torch.cat([torch.full_like(part.labels, i) for i, part in enumerate(parts)])
    labels = torch.cat([part.labels for part in parts])
    rows = zip(points.tolist(), domain.tolist(), labels.tolist(), strict=True)
    return [[*(float(f"{value:.3g}") for value in point), d, y] for point, d, y in rows]


def principal(
    features: Float[Tensor, "samples width"],
) -> Float[Tensor, "samples 2"]:
    """(z − mean) [v₁ v₂], v the eigenvectors of the covariance with the largest eigenvalues.

    Of each, the entry that is largest in size is positive, so that signs are no accident. With a
    single feature the second number is 0.

    Args:
        features: z of all samples.
    """
    centred = features - features.mean(0)
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    points = centred @ (directions * torch.where(largest < 0, -1.0, 1.0)).T
    return torch.nn.functional.pad(points, (0, 2 - points.shape[1]))


def _neighbours(features: Float[Tensor, "samples width"]) -> Float[Tensor, "samples 2"]:
    """t-SNE (van der Maaten and Hinton, JMLR 2008) from the principal components, seed 0."""
    from sklearn.manifold import TSNE

    model = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), init="pca", random_state=0)
    return torch.from_numpy(model.fit_transform(features.cpu().numpy())).double()


def _boundary(trained: Trained, points: Float[Tensor, "samples 2"]) -> dict[str, Any]:
    """P(class 1) on a grid around the points, to three digits."""
    low, high = points.amin(0), points.amax(0)
    low, high = low - MARGIN * (high - low), high + MARGIN * (high - low)
    across, up = (torch.linspace(low[i], high[i], SIDE, dtype=torch.float64) for i in (0, 1))
    grid = torch.stack(torch.meshgrid(across, up, indexing="xy"), -1).view(SIDE * SIDE, 2)
    images = trained.data.pair.source.images
    inputs = grid.to(images).view(-1, *images.shape[1:])
    likely = probabilities(trained.target_scores(inputs))[:, 1].view(SIDE, SIDE)
    return {
        "boundary": [[round(value, 3) for value in row] for row in likely.tolist()],
        "boundary_box": [float(f"{v:.4g}") for v in (low[0], high[0], low[1], high[1])],
    }
