"""The `benchmark:` section of an experiment of domain adaptation."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tlresearch.data.counts import Counts
from tlresearch.settings import Bounds
from tlresearch.training.settings import Count, Fraction


@dataclass(frozen=True)
class AdaptationSettings:
    """Which domains, what of them is used, and what methods are measured on."""

    source: str
    """Name of the labelled domain; docs/adaptation.md lists them."""
    target: str
    """Name of the domain that is adapted to; of its training part only the inputs are used. With
    the source's name, its training part is cut in halves that have no sample in common."""
    size: Annotated[int, Bounds(ge=1)] | None = None
    """Rows and columns that images of both are resized to; null: as they are."""
    channels: Literal[1, 3] | None = None
    """Grey or colour, for images of both; null: as they are."""
    normalise: Literal["unit", "half", "mean", "none"] = "unit"
    """Of both domains alike: pixels in [0, 1]; in [-1, 1]; in [0, 1] less the mean of the training
    inputs of both domains, place by place; or as they are. Features are as they are, and with
    `mean` less that mean."""
    counts: Counts | None = None
    """What is made of a domain of counts (Amazon, SURF), of both alike: the counts; 1 where there
    is one; tf-idf, rows of length 1; rows that sum to 1, then z-scores of each column by the
    domain's own training inputs. null: what is usual for the domain."""
    rotation: Annotated[float, Bounds(ge=-180, le=180)] = 0.0
    """Degrees by which the target's inputs, images or points, are turned counter-clockwise."""
    label_shift: Annotated[float, Bounds(ge=1)] = 1.0
    """How many times as frequent the first class is in the target as the last, at least 1; between
    them frequencies fall by equal factors. Both parts of the target are drawn from accordingly."""
    source_samples: Count | None = None
    """Training samples of the source, drawn per seed and class in equal parts; null: all."""
    target_samples: Count | None = None
    """Training inputs of the target, drawn per seed; null: all."""
    validation: Fraction = 0.1
    """Fraction of the source's training samples that is held out, drawn per seed and class: for
    `train.checkpoint: selected` and for the scores that choose a model."""
    evaluate: Literal["test", "training", "selectors", "oracle"] = "test"
    """What accuracy is measured on: the target's test part; its training part, all of it even
    where `target_samples` adapts to fewer (transductive); nothing of the target's labels, only the
    scores that choose a model; the test part under the name `oracle`, for a selection that may be
    told so."""
    reverse: bool = False
    """Whether reverse validation is scored too, which trains each run a second time."""
    drawn_seed: Annotated[int, Bounds(ge=0)] = 0
    """Seed whose runs keep points for the figures of features and decision boundary."""
    embedding: Literal["pca", "tsne", "none"] = "pca"
    """How features become two numbers for a figure: by principal components; by t-SNE, which takes
    seconds; not at all."""
