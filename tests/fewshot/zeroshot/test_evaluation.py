"""What is measured, and that nothing of a test reaches what was learned."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tlresearch.data.zero_shot import ZeroShotData, ZeroShotSplit, classes_in
from tlresearch.fewshot.zeroshot import METHODS
from tlresearch.fewshot.zeroshot.evaluation import METRICS, Task, evaluate, fit
from tlresearch.fewshot.zeroshot.features import scaled
from tlresearch.fewshot.zeroshot.method import ZeroShotMethod
from tlresearch.functional import random
from tlresearch.training import tree


def task_of(data: ZeroShotData) -> Task:
    features = scaled(data.inputs.flatten(1).double(), data.split.train, "standard")
    return Task(features, data.labels, data.attributes, data.split)


@dataclass(frozen=True)
class Oracle(ZeroShotMethod):
    """Knows the classes of the images, whose first feature is the label; attributes are one-hot."""

    bias: float = 0.0
    """Added to the score of classes 0 … 2."""

    def fit(self, features: Tensor, labels: Tensor, attributes: Tensor, seed: int) -> Any:
        return attributes.sum(0)  # 1 for each seen class

    def scores(self, fitted: Any, features: Tensor, attributes: Tensor) -> Tensor:
        truth = torch.nn.functional.one_hot(features[:, 0].long(), attributes.shape[1]).double()
        return (truth + self.bias * fitted) @ attributes.T


def known(wrong: int = 0) -> Task:
    """Classes 0 … 2 seen, 3 and 4 unseen, with 2 and 8 test images; `wrong` of the 8 lie."""
    labels = torch.tensor([0, 1, 2, 0, 1, 2, *[3] * 2, *[4] * 8])
    features = labels.double().unsqueeze(1)
    if wrong:
        features[-wrong:, 0] = 3
    split = ZeroShotSplit(torch.arange(3), torch.arange(3, 6), torch.arange(6, 16))
    return Task(features, labels, torch.eye(5, dtype=torch.float64), split)


def test_a_perfect_method_has_only_ones():
    found = evaluate(Oracle(), known(), 0)
    by_class = found.pop("by_class")
    assert found == dict.fromkeys(METRICS, 1.0)
    assert by_class == {"test_seen": [1] * 3, "test_unseen": [1] * 2}


def test_accuracy_is_a_mean_over_classes():
    """Class 3 all right, class 4 for 2 of 8: (1 + .25) / 2; over samples it would be .4."""
    found = evaluate(Oracle(), known(wrong=6), 0)
    assert found["acc"] == found["acc_unseen"] == 0.625
    assert found["acc_samples"] == pytest.approx(0.4)
    assert found["acc_harmonic"] == pytest.approx(2 * 0.625 / 1.625)


def test_the_two_settings_differ_in_who_competes():
    """With seen classes 2 ahead, no unseen one is chosen among all, and acc does not notice."""
    found = evaluate(Oracle(bias=2), known(), 0)
    assert (found["acc"], found["acc_seen"], found["acc_unseen"]) == (1, 1, 0)
    assert (found["acc_harmonic"], found["ausuc"]) == (0, 1)


@pytest.mark.parametrize(("constant", "seen", "unseen"), [(0.0, 1, 0), (2.0, 1, 1), (4.0, 0, 1)])
def test_calibration_acts_in_the_generalised_setting(constant, seen, unseen):
    """A seen image has 3 against 0, an unseen one 2 against 1: constants 1 to 3 set both right."""
    found = evaluate(Oracle(bias=2, calibration=constant), known(), 0)
    assert (found["acc"], found["acc_seen"], found["acc_unseen"]) == (1, seen, unseen)


def test_the_ceiling_is_that_of_unseen_classes():
    task = known()
    attributes = task.attributes.clone()
    attributes[4] = attributes[3]
    found = evaluate(Oracle(), replace(task, attributes=attributes), 0)
    assert found["acc"] == found["acc_ceiling"] == 0.5


def test_labels_are_rows_of_the_attributes_that_a_method_is_given(toy):
    """Seen classes that are not the first ones: each image's row is its own class's."""
    task = task_of(toy)
    chosen = task.split.train[task.labels[task.split.train] % 2 == 1]
    given: dict[str, Tensor] = {}

    @dataclass(frozen=True)
    class Watching(ZeroShotMethod):
        def fit(self, features: Tensor, labels: Tensor, attributes: Tensor, seed: int) -> Any:
            given.update(labels=labels, attributes=attributes, features=features)

    fit(Watching(), replace(task, split=task.split._replace(train=chosen)), 0)
    assert torch.equal(given["attributes"][given["labels"]], task.attributes[task.labels[chosen]])
    assert torch.equal(given["features"], task.features[chosen])


@pytest.mark.parametrize("method", METHODS.values())
def test_unseen_classes_cannot_change_what_was_learned(toy, method):
    """Other images, labels and attributes of everything but the training part: the same bits."""
    task = task_of(toy)
    before = tree.tensors(fit(method(), task, 0))
    outside = torch.ones(len(task.labels), dtype=torch.bool)
    outside[task.split.train] = False
    features, labels, attributes = (
        t.clone() for t in (task.features, task.labels, task.attributes)
    )
    unseen = classes_in(labels, task.split.test_unseen)
    features[outside] = random.normal(random.make_key(1, "a"), (int(outside.sum()), 16)).double()
    labels[task.split.test_unseen] = labels[task.split.test_unseen].flip(0)
    attributes[unseen] = 100 + attributes[unseen]
    after = tree.tensors(fit(method(), Task(features, labels, attributes, task.split), 0))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("method", METHODS.values())
def test_methods_beat_chance_on_classes_that_they_never_saw(toy, method):
    """Three unseen classes whose pixels are a linear map of their attributes."""
    assert evaluate(method(), task_of(toy), 0)["acc"] > 0.8


@pytest.mark.parametrize("method", METHODS.values())
def test_the_order_of_classes_and_images_does_not_matter(toy, method):
    task = task_of(toy)
    place = random.permutation(random.make_key(2, "classes"), len(task.attributes))
    attributes = torch.empty_like(task.attributes)
    attributes[place] = task.attributes
    split = ZeroShotSplit(*(part.flip(0) for part in task.split))
    turned = Task(task.features, place[task.labels], attributes, split)
    found, expected = (evaluate(method(), t, 0) for t in (turned, task))
    for name in METRICS:
        assert found[name] == pytest.approx(expected[name], abs=1e-9)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(FloatingPointError, match="a score was not finite"):
        evaluate(Oracle(bias=float("nan")), known(), 0)
