"""CRD by hand, against the quotients of eqs. (18) and (19), its memory and its negatives."""

import math

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from tlresearch.functional import random
from tlresearch.functional.contrastive_distillation import (
    Projections,
    contrastive_loss,
    draw_negatives,
    estimate_log_partition,
    new_memory,
    remembered,
)
from tlresearch.functional.features import unit

F64 = torch.float64
KEY = random.make_key(0, "test")


def rows(count: int, dim: int = 3, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return unit(torch.randn(count, dim, dtype=F64, generator=rng))


ANCHOR, MEMORY = rows(2), rows(6, seed=1)
POSITIVE = torch.tensor([4, 1])
NEGATIVES = torch.tensor([[0, 2, 5], [3, 3, 0]])


def test_by_hand():
    """One anchor with scores 1 and 0, K = 1, N = 2, Z = 1: h = e / (e + ½) and 1 / (1 + ½)."""
    one = torch.tensor([[1.0, 0.0]], dtype=F64)
    memory = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=F64)
    first, second = torch.tensor([1]), torch.tensor([[0]])
    ours = contrastive_loss(one, memory, first, second, 0.0, 1.0).item()
    right = math.log(math.e / (math.e + 0.5)) + math.log(0.5 / 1.5)
    assert ours == pytest.approx(-right, abs=1e-12)
    ours = estimate_log_partition(one, memory, first, second, 1.0).item()
    assert ours == pytest.approx(math.log(2 * (math.e + 1) / 2), abs=1e-12)


@pytest.mark.parametrize("partition", [1.0, 40.0])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_is_the_plain_loop(partition: float, temperature: float):
    """One decision at a time; duplicates among the negatives count twice."""
    total = 0.0

    def score(b: int, index: int) -> float:
        product = sum(
            p * q for p, q in zip(ANCHOR[b].tolist(), MEMORY[index].tolist(), strict=True)
        )
        return math.exp(product / temperature) / partition

    for b in range(2):
        p = score(b, int(POSITIVE[b]))
        total += math.log(p / (p + 3 / 6))
        for index in NEGATIVES[b].tolist():
            p = score(b, index)
            total += math.log((3 / 6) / (p + 3 / 6))
    arguments = (ANCHOR, MEMORY, POSITIVE, NEGATIVES, math.log(partition), temperature)
    assert contrastive_loss(*arguments).item() == pytest.approx(-total / 2, abs=1e-10)


def test_the_partition_is_that_of_the_mean_score():
    """N times the mean of exp(a·m/τ) over positives and negatives; no gradient goes through it."""
    anchor = ANCHOR.clone().requires_grad_()
    scores = [
        math.exp((ANCHOR[b] @ MEMORY[i]).item() / 0.2)
        for b in range(2)
        for i in [int(POSITIVE[b]), *NEGATIVES[b].tolist()]
    ]
    ours = estimate_log_partition(anchor, MEMORY, POSITIVE, NEGATIVES, 0.2)
    assert ours.item() == pytest.approx(math.log(6 * sum(scores) / 8), abs=1e-12)
    assert not ours.requires_grad


def test_the_memory_has_no_gradient_and_the_anchor_has():
    anchor, memory = ANCHOR.clone().requires_grad_(), MEMORY.clone().requires_grad_()
    contrastive_loss(anchor, memory, POSITIVE, NEGATIVES, 1.0).backward()
    assert memory.grad is None and anchor.grad is not None
    assert torch.autograd.gradcheck(
        lambda a: contrastive_loss(a, MEMORY, POSITIVE, NEGATIVES, 1.0, 0.3),
        (ANCHOR.clone().requires_grad_(),),
    )


def test_the_gradient_pulls_to_the_positive_and_away_from_negatives():
    """∂/∂a = [−(1 − h⁺) m⁺ + Σ hₖ mₖ] / Bτ, h the critic's probabilities."""
    anchor, tau, z = ANCHOR.clone().requires_grad_(), 0.5, 2.0
    value = contrastive_loss(anchor, MEMORY, POSITIVE, NEGATIVES, z, tau)
    (ours,) = torch.autograd.grad(value, anchor)
    for b in range(2):
        h = (MEMORY @ ANCHOR[b] / tau - z - math.log(3 / 6)).sigmoid()
        own = POSITIVE[b]
        expected = -(1 - h[own]) * MEMORY[own]
        expected = expected + sum(h[k] * MEMORY[k] for k in NEGATIVES[b])
        torch.testing.assert_close(ours[b], expected / (2 * tau), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("temperature", [1e-3, 0.07])
def test_no_temperature_overflows(dtype: torch.dtype, temperature: float):
    """exp(1 / .001) is beyond float64; and at ordinary ones the log-form is the quotient."""
    anchor = ANCHOR.to(dtype).requires_grad_()
    memory = MEMORY.to(dtype)
    z = estimate_log_partition(anchor, memory, POSITIVE, NEGATIVES, temperature)
    value = contrastive_loss(anchor, memory, POSITIVE, NEGATIVES, z, temperature)
    assert z.isfinite() and value.isfinite()
    assert torch.autograd.grad(value, anchor)[0].isfinite().all()


def test_maps_over_seeds():
    """Loss, gradient, partition, memory and draws, as one after the other."""
    anchors = torch.stack([rows(2, seed=i) for i in range(3)])
    memories = torch.stack([rows(6, seed=9 + i) for i in range(3)])
    keys = random.make_key(torch.arange(3), "test")
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    where = torch.stack([torch.tensor(pair) for pair in ([0, 5], [3, 1], [2, 4])])

    def all_of(anchor: Tensor, memory: Tensor, key: Tensor, positive: Tensor) -> tuple:
        negatives = draw_negatives(key, positive, 4, 6, labels)
        z = estimate_log_partition(anchor, memory, positive, negatives)
        slope = grad(contrastive_loss)(anchor, memory, positive, negatives, z)
        made = new_memory(random.fold(key, 1), 6, 3)
        others = draw_negatives(key, positive, 4, 6)
        return negatives, others, z, slope, remembered(memory, positive, anchor), made

    mapped = vmap(all_of, randomness="error")(anchors, memories, keys, where)
    for i in range(3):
        alone = all_of(anchors[i], memories[i], keys[i], where[i])
        for ours, other in zip(mapped, alone, strict=True):
            torch.testing.assert_close(ours[i], other, atol=1e-12, rtol=0)


def test_memory_by_hand():
    """½ (1, 0) + ½ (0, 1) to length 1; the other rows and the old memory stay."""
    memory = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=F64)
    before = memory.clone()
    fresh = torch.tensor([[0.0, 1.0]], dtype=F64, requires_grad=True)
    after = remembered(memory, torch.tensor([0]), fresh)
    assert after[0].tolist() == pytest.approx([math.sqrt(0.5)] * 2, abs=1e-12)
    assert torch.equal(after[1:], memory[1:]) and torch.equal(memory, before)
    assert not after.requires_grad
    slow = remembered(memory, torch.tensor([0]), fresh, 0.75)
    assert slow[0].tolist() == pytest.approx(
        [0.75 / math.hypot(0.75, 0.25), 0.25 / math.hypot(0.75, 0.25)]
    )
    assert torch.equal(remembered(memory, torch.tensor([1]), fresh, 1.0), memory)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
def test_a_sample_that_is_in_a_batch_more_than_once(momentum: float):
    """Its row is renewed once, from what it was, with its last embedding; by a plain loop, and as
    if the last ones alone were in the batch."""
    memory, fresh, where = rows(5), rows(6, seed=2), torch.tensor([3, 0, 3, 1, 0, 3])
    after = remembered(memory, where, fresh, momentum)
    expected = memory.clone()
    for index, embedding in zip(where.tolist(), fresh, strict=True):
        mixed = momentum * memory[index] + (1 - momentum) * embedding
        expected[index] = mixed / mixed.norm()
    torch.testing.assert_close(after, expected, atol=1e-12, rtol=0)
    alone = remembered(memory, torch.tensor([1, 0, 3]), fresh[3:], momentum)
    assert torch.equal(after, alone)


def test_what_is_written_to_a_row_twice_are_the_same_bits(monkeypatch: pytest.MonkeyPatch):
    """So that a device which writes in any order has one result; also mapped over seeds."""
    where = torch.tensor([3, 0, 3, 1, 0, 3])
    written, copied = [], torch.Tensor.index_copy

    def writing(self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
        written.append(source)
        return copied(self, dim, index, source)

    monkeypatch.setattr(torch.Tensor, "index_copy", writing)
    memory, fresh = rows(5, 40).float(), rows(6, 40, seed=2).float()
    after = remembered(memory, where, fresh)
    (each,) = written
    assert torch.equal(each, after[where])
    monkeypatch.undo()
    turned = torch.stack([where, where.flip(0)])
    mapped = vmap(remembered, in_dims=(None, 0, 0))(memory, turned, torch.stack([fresh] * 2))
    for ours, indices in zip(mapped, turned, strict=True):
        torch.testing.assert_close(ours, remembered(memory, indices, fresh), atol=1e-6, rtol=0)


def test_a_new_memory_is_of_length_1_and_has_no_direction():
    memory = new_memory(KEY, 4000, 8)
    torch.testing.assert_close(memory.square().sum(1), torch.ones(4000))
    assert memory.mean(0).abs().max() < 0.03
    torch.testing.assert_close(memory.T @ memory / 4000, torch.eye(8) / 8, atol=0.01, rtol=0)


def test_negatives_are_all_others_equally_often():
    """Of six samples the five others, each a fifth of 6,000 draws."""
    drawn = draw_negatives(KEY, torch.tensor([0, 3, 5]), 6000, 6)
    for row, own in zip(drawn, (0, 3, 5), strict=True):
        share = row.bincount(minlength=6) / 6000
        assert share[own] == 0
        assert (share[torch.arange(6) != own] - 0.2).abs().max() < 0.02


def test_negatives_of_other_classes():
    """Never of the anchor's own, and all others equally often."""
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    drawn = draw_negatives(KEY, torch.tensor([0, 1, 3]), 6000, 6, labels)
    for row, own in zip(drawn, (0, 1, 2), strict=True):
        share = row.bincount(minlength=6) / 6000
        others = labels != own
        assert share[~others].sum() == 0
        assert (share[others] - 1 / others.sum()).abs().max() < 0.03


def test_heads():
    """A linear layer each, to length 1; both learn, the teacher's feature does not."""
    heads = Projections(12, 5, 4)
    s, t = torch.randn(3, 3, 2, 2, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    of_s, of_t = heads(s, t)
    torch.testing.assert_close(of_s, unit(heads.student(s.flatten(1))))
    torch.testing.assert_close(of_t.square().sum(1), torch.ones(3))
    (of_s[:, 0] + of_t[:, 0]).sum().backward()
    assert s.grad is not None and t.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in heads.parameters())
    assert Projections(2, 3)(torch.ones(1, 2), torch.ones(1, 3))[0].shape == (1, 128)
