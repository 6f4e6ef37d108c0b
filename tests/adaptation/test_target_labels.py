"""Labels of the target reach neither training nor any choice: tests that try."""

import types
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from small_rounds import Bench, relabelled, same_bits
from torch import Tensor

from tlresearch.adaptation import METHODS
from tlresearch.adaptation.batches import SeedData
from tlresearch.adaptation.method import AdaptationMethod, Round
from tlresearch.adaptation.scores import UNLABELLED
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.data.domains import Sealed


@pytest.fixture
def bench(monkeypatch, tmp_path):
    return Bench(monkeypatch, tmp_path)


FEWER = {"tca": {"dim": 3}, "subspace_alignment": {"dim": 3}}
"""Settings where the usual ones do not fit inputs of 16 numbers."""


WAYS = {
    "plain": {},
    "selected": {"checkpoint": "selected", "evaluate_every": 2},
    "fewer targets": {"target_samples": 20},
    "mean subtracted": {"normalise": "mean"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if not kind.oracle])
def test_target_labels_reach_no_weight(bench, name, way):
    """All labels of the target replaced by others: the same weights and scores to the byte."""
    method = METHODS[name](**FEWER.get(name, {}))
    more: dict[str, Any] = {"seeds": [0, 1], "steps": 8} | WAYS[way]
    true = bench.run(method, **more)
    sound = bench.domains["right"]
    bench.domains["right"] = relabelled(sound)
    for ours, others in zip(bench.run(method, **more), true, strict=True):
        assert same_bits(ours.weights, others.weights)
        seen, before = ({k: one.metrics.get(k) for k in UNLABELLED} for one in (ours, others))
        assert seen == before and seen["dev"] is not None
    assert ours.metrics["acc"] != others.metrics["acc"]


def test_the_oracle_does_learn_from_them(bench):
    """The test above can fail."""
    (true,) = bench.run(METHODS["oracle"]())
    bench.domains["right"] = relabelled(bench.domains["right"])
    (other,) = bench.run(METHODS["oracle"]())
    assert not same_bits(true.weights, other.weights)


@dataclass(frozen=True)
class Thief(AdaptationMethod):
    """Keeps all that it is handed."""

    def parts(self, train):
        return (Round(train.steps), Round(train.steps))

    def loss(self, networks, state, batch):
        LOOT.append(batch)
        return SourceOnly.loss(self, networks, state, batch)  # type: ignore[arg-type]

    def before_round(self, networks, state, number, data):
        LOOT.append([self, networks, state, data, data.target(), data.source(), data.previous()])
        return state, None

    def after_training(self, networks, state, data):
        LOOT.append([networks, state, data])
        return state

    def predict_all(self, networks, state, count, inputs):
        LOOT.append([networks, state, inputs])
        return super().predict_all(networks, state, count, inputs)


LOOT: list[Any] = []


def reachable(root: Any) -> list[Tensor]:
    """All tensors that attributes, items, fields and closures lead to, but for those of a seal."""
    seen, found, stack = set(), list[Tensor](), [root]
    while stack:
        one = stack.pop()
        if id(one) in seen or isinstance(one, Sealed | types.ModuleType | type | str | bytes):
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            found.append(one)
        elif isinstance(one, dict):
            stack += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set):
            stack += list(one)
        else:
            stack += list(getattr(one, "__dict__", {}).values())
            stack += [getattr(one, "__self__", None), getattr(one, "__func__", None)]
            stack += [cell.cell_contents for cell in getattr(one, "__closure__", None) or ()]
    return found


def test_nothing_that_a_method_is_handed_leads_to_target_labels(bench):
    """Neither the labels of its test set nor those of its pool, whole or in part."""
    LOOT.clear()
    bench.run(Thief(), steps=3)
    pair, sealed = bench.pair()
    right = bench.domains["right"]
    assert right.test is not None
    secrets = [right.train.labels, right.train.labels[pair.target_pools[0]], right.test.labels]
    tensors = reachable([LOOT, SeedData(pair, 0, 0), pair, sealed, bench.trainings])
    assert len(tensors) > 40  # it does find what is there
    assert any(torch.equal(t, bench.domains["left"].train.labels) for t in tensors)
    for tensor in tensors:
        for secret in secrets:
            assert not (tensor.shape == secret.shape and torch.equal(tensor.long(), secret))
    assert any(torch.equal(t, secrets[1]) for t in reachable(vars(sealed))), "the walk is blind"
