"""The types: labels of the target are out of reach of training."""

import gc
from types import CellType, FunctionType, ModuleType
from typing import Any

import pytest
import torch
from known_domains import domain, pair_of, part
from torch import Tensor

from tlresearch.adaptation.batches import RoundBatches, SeedData
from tlresearch.adaptation.method import Round
from tlresearch.data.domains import Frozen, Pair, Sealed, Unlabelled
from tlresearch.errors import UserError
from tlresearch.training.settings import Train

TARGET = domain("right", part((5, 9, 7), 40), part((4, 3, 6), 100))
"""21 + 13 samples, sizes that nothing else has."""


def reachable(*starts: Any) -> list[Tensor]:
    """Every tensor that attributes, items, bound methods and closures lead to."""
    found: list[Tensor] = []
    seen: set[int] = set()
    todo = list(starts)
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, type | ModuleType):
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            found.append(one)
            todo.append(one._base)
            todo += list(vars(one).values())
        elif isinstance(one, FunctionType):
            todo += [*(one.__closure__ or ()), *(one.__defaults__ or ()), vars(one)]
        elif isinstance(one, CellType):
            todo.append(one.cell_contents)
        else:
            todo += gc.get_referents(one)
    return found


def has_labels(tensors: list[Tensor], labels: Tensor) -> bool:
    """Whether one of them is these labels, also as a part of a larger storage."""
    for tensor in tensors:
        whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
        if tensor.dtype == labels.dtype and len(whole) >= len(labels):
            windows = whole.unfold(0, len(labels), 1)
            if bool((windows == labels).all(1).any()):
                return True
    return False


def training_sees() -> tuple[list[Any], Sealed]:
    """All that the protocol hands to loops, methods and selectors."""
    pair, sealed = pair_of(target=TARGET)
    batches = RoundBatches(pair, 0, Round(3), [None, None], Train(steps=3, batch_size=4))
    data = SeedData(pair, 1, 0)
    hooks = [data.target, data.source, data.held_out, data.key]
    return [pair, batches, data, *hooks, [hook() for hook in hooks[:3]], batches.batch(1)], sealed


def test_target_labels_are_unreachable_from_all_that_training_sees():
    seen, sealed = training_sees()
    found = reachable(*seen)
    assert TARGET.test is not None
    assert not has_labels(found, TARGET.train.labels)
    of_pools = [TARGET.train.labels[pool] for pool in seen[0].target_pools]
    for labels in (*of_pools, TARGET.test.labels):
        assert not has_labels(found, labels)
        assert has_labels(reachable(*seen, sealed), labels)  # this test would notice
    assert any(tensor is seen[0].target.images for tensor in found)


def test_batches_of_a_plain_round_have_no_target_labels():
    seen, _ = training_sees()
    source_x, source_y, target_x, target_y, progress = seen[-1]
    assert target_y is None and source_x.shape == target_x.shape == (2, 4, 1, 2, 2)
    assert source_y.shape == (2, 4) and progress.tolist() == pytest.approx([1 / 3] * 2)


@pytest.mark.parametrize(
    "handed",
    [
        TARGET.train,
        (TARGET.train.images, TARGET.train.labels),
        {"images": TARGET.train.images, "labels": TARGET.train.labels},
        torch.utils.data.TensorDataset(TARGET.train.images, TARGET.train.labels),
    ],
    ids=lambda handed: type(handed).__name__,
)
@pytest.mark.usefixtures("without_shape_checks")
def test_a_target_with_labels_is_refused_by_the_type(handed: Any):
    """As users are, who have no shape checks."""
    with pytest.raises(UserError, match=f"inputs alone.*{type(handed).__name__}.*images only"):
        Unlabelled(handed)
    pair, _ = pair_of(target=TARGET)
    fields = {name: getattr(pair, name) for name in vars(pair)}
    with pytest.raises(UserError, match=f"Unlabelled.*{type(handed).__name__}"):
        Pair(**fields | {"target": handed})


def test_labels_have_no_place_in_an_unlabelled_set():
    target = Unlabelled(TARGET.train.images)
    with pytest.raises(AttributeError):
        target.labels = TARGET.train.labels  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        Unlabelled(TARGET.train.images, TARGET.train.labels)  # type: ignore[call-arg]


class Pretender:
    """Looks like a Frozen."""

    digest = "0" * 64


@pytest.mark.parametrize("key", [None, True, "frozen", Frozen, {"w": torch.ones(1)}, Pretender()])
@pytest.mark.usefixtures("without_shape_checks")
def test_a_seal_opens_for_a_frozen_alone(key: Any):
    _, sealed = pair_of(target=TARGET)
    with pytest.raises(TypeError, match="sealed until a Frozen"):
        sealed.open(key)
    opened = sealed.open(Frozen({"w": torch.ones(1)}))
    assert TARGET.test is not None and torch.equal(opened.test.labels, TARGET.test.labels)


def test_a_frozen_is_the_digest_of_its_weights():
    one, same, other = (
        Frozen({"b": torch.full((2,), value), "a": torch.zeros(1)}).digest for value in (1, 1, 2)
    )
    assert one == same != other


def test_a_seal_shows_nothing_of_its_contents():
    _, sealed = pair_of(target=TARGET)
    assert "tensor" not in repr(sealed)
    values = [getattr(sealed, name) for name in dir(sealed) if not name.startswith("__")]
    assert not any(isinstance(value, Tensor) or hasattr(value, "labels") for value in values)
