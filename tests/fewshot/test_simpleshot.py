"""SimpleShot: scikit-learn's nearest centroid on features transformed by hand."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid
from small_episodes import (
    F64,
    assert_maps,
    assert_stack_equals_runs,
    assert_symmetric,
    close,
    features,
    generator,
)
from torch import Tensor, nn

from tlresearch.backbones.mlp import MLP
from tlresearch.fewshot.simpleshot import SimpleShot, Transform
from tlresearch.training.method import Labelled

NOTHING = nn.Identity()
MEAN = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0], dtype=F64)


def by_hand(x: np.ndarray, transform: Transform) -> np.ndarray:
    if transform == "CL2N":
        x = x - MEAN.numpy()
    return x if transform == "UN" else x / np.sqrt((x * x).sum(-1, keepdims=True))


@pytest.mark.parametrize("transform", ["UN", "L2N", "CL2N"])
def test_predicts_as_scikit_learns_nearest_centroid(transform):
    """And its scores are minus the squared distances to the centroids."""
    support, query = features(ways=5, shots=3, queries=200)
    method = SimpleShot(transform=transform)
    scores = method.compare(NOTHING, {"mean": MEAN}, support, query)
    x, queries = (by_hand(z.numpy(), transform) for z in (support.flatten(0, 1), query))
    model = NearestCentroid().fit(x, np.arange(15) // 3)
    assert scores.argmax(1).tolist() == model.predict(queries).tolist()
    centroids = [x[3 * c : 3 * c + 3].mean(0) for c in range(5)]
    squares = [[((q - c) ** 2).sum() for c in centroids] for q in queries]
    close(scores, -torch.tensor(np.array(squares)))


class Images:
    """Training data whose mean feature is asked for, in chunks of unequal size."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.weights = x, []

    def batches(self, samples: int | None = None, multiple: int = 1) -> Iterator[Any]:
        for chunk in self.x.split([6, 2]):
            yield chunk, torch.zeros(len(chunk), dtype=torch.int64), None

    def places(self, samples: int | None = None, multiple: int = 1) -> range:
        return range(len(self.x))

    def key(self, purpose: str) -> Tensor:
        return torch.zeros((), dtype=torch.int64)

    def average(self, tree: Any, weight: float, /) -> Any:
        self.weights.append(weight)
        return tree


class NoImages(Images):
    """The part of a process that has none."""

    def batches(self, samples: int | None = None, multiple: int = 1) -> Iterator[Any]:
        return iter(())


def trained() -> tuple[SimpleShot, Any]:
    """With batch norm and dropout, which a mean in training mode would show."""
    method = SimpleShot()
    backbone = MLP(hidden=(6,), norm="batch", dropout=0.5)
    net = method.networks(backbone, (1, 4, 4), 3, seed=0).double().train()
    with torch.no_grad():
        net(torch.randn(30, 1, 4, 4, dtype=F64, generator=generator(3)))
    return method, net


def test_mean_is_that_of_the_training_images_in_evaluation_mode():
    """Every image counts once, chunks of any size; modes and weights stay as they were."""
    method, net = trained()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    data: Any = Images(torch.rand(8, 1, 4, 4, dtype=F64, generator=generator(1)))
    state = method.after_task(net, method.init(net), data)
    assert all(module.training for module in net.modules()) and data.weights == [8]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    net.eval()
    close(state["mean"], torch.stack([net.features(x[None])[0] for x in data.x]).mean(0).detach())
    assert not state["mean"].requires_grad


def test_a_process_without_images_has_no_say_in_the_mean():
    method, net = trained()
    data: Any = NoImages(torch.empty(0))
    assert method.after_task(net, {}, data)["mean"].tolist() == [0.0] * 6
    assert data.weights == [0]


def test_a_common_shift_and_scale_of_all_features_do_not_matter():
    """Of training and test features together: so CL2N sees no offset, and L2N no length."""
    support, query = features()
    method = SimpleShot()
    state = {"mean": MEAN}
    scores = method.compare(NOTHING, state, support, query)
    moved = [3 * x + 5 for x in (support, query)]
    close(method.compare(NOTHING, {"mean": 3 * MEAN + 5}, *moved), scores)
    lengths = [3 * x for x in (support, query)]
    flat = SimpleShot(transform="L2N")
    close(flat.compare(NOTHING, state, *lengths), flat.compare(NOTHING, state, support, query))


def test_finite_with_features_of_500_and_of_0():
    support, query = (500 * x.float().sign() for x in features())
    query[0] = 0
    scores = SimpleShot().compare(NOTHING, {"mean": torch.zeros(5)}, support, query)
    assert scores.isfinite().all()


def test_symmetries():
    method, state = SimpleShot(), {"mean": MEAN}
    assert_symmetric(lambda s, q: method.compare(NOTHING, state, s, q), *features())


def test_maps_over_episodes():
    assert_maps(SimpleShot(), NOTHING, {"mean": MEAN})


def labelled(seed: int) -> Labelled:
    rng = generator(seed)
    x = torch.rand(8, 1, 4, 4, dtype=F64, generator=rng)
    return Labelled(x, torch.randint(3, (8,), generator=rng))


def test_stack_equals_separate_runs():
    assert_stack_equals_runs(SimpleShot(), MLP(hidden=(6,), norm="batch"), labelled)
