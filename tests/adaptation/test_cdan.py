"""CDAN: its map, its weights, and where gradients go."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_domains import (
    NOISY,
    PLAIN,
    TRAIN,
    assert_differs_from_source_only,
    assert_stack_equals_runs,
    domain_batch,
    trained,
)
from torch import Tensor

from tlresearch.adaptation.adversary import domain_loss
from tlresearch.adaptation.cdan import CDAN, RandomMaps, certainty_weights, multilinear
from tlresearch.adaptation.method import DomainBatch
from tlresearch.adaptation.source_only import SourceOnly

F64 = torch.float64
SMALL = CDAN(discriminator=(8,), dropout=0.0, schedule="constant")


def test_the_multilinear_map_by_hand():
    """p ⊗ z = (p₁z₁, p₁z₂, p₂z₁, p₂z₂)."""
    z, p = torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0, 7.0]])
    assert multilinear(z, p).tolist() == [[10.0, 15.0, 14.0, 21.0]]


def test_products_of_maps_are_products_of_products():
    """⟨p ⊗ z, p′ ⊗ z′⟩ = ⟨z, z′⟩ ⟨p, p′⟩; of random maps in the mean over many dimensions."""
    rng = torch.Generator().manual_seed(0)
    z, p = torch.randn(2, 4, dtype=F64, generator=rng), torch.rand(2, 3, dtype=F64, generator=rng)
    expected = (z @ z.T) * (p @ p.T)
    joined = multilinear(z, p)
    torch.testing.assert_close(joined @ joined.T, expected)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        maps = RandomMaps(4, 3, 40_000).double()
    joined = maps(z, p)
    torch.testing.assert_close(joined @ joined.T, expected, atol=0.2, rtol=0.05)
    assert not list(maps.parameters())


def test_the_weights_by_hand():
    """1 + 1/3 where three classes are alike, 2 where one is certain, 1 + e^(−log 2) for two."""
    logits = torch.tensor([[1.0, 1, 1], [99, 0, 0], [5, 5, -90]], dtype=F64)
    expected = torch.tensor([4 / 3, 2.0, 1.5], dtype=F64)
    torch.testing.assert_close(certainty_weights(logits), expected, atol=1e-12, rtol=0)


def fresh(method: CDAN) -> Any:
    return method.networks(PLAIN, (1, 4, 4), 3, 0).double()


def plain(networks: Any, batch: DomainBatch, weights: bool) -> tuple[Tensor, Tensor]:
    """Cross-entropy and domain loss; nothing reversed, the predictions in the map held constant."""
    z = [networks.backbone(x) for x in (batch.source_x, batch.target_x)]
    logits = [networks.head(part) for part in z]
    constants = [part.detach().softmax(1) for part in logits]
    seen = [networks.discriminator(multilinear(a, b)) for a, b in zip(z, constants, strict=True)]
    entropies = [-(q.softmax(1) * q.log_softmax(1)).sum(1) for q in logits]
    first, second = (1 + (-entropy).exp() for entropy in entropies)
    loss = domain_loss(seen[0], seen[1], (first, second) if weights else None)
    return F.cross_entropy(logits[0], batch.source_y), loss


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_the_gradients(strength, entropy):
    """∂L_y − λ ∂L_d for backbone and head; the head's has a second part with entropy alone.

    The discriminator's is ∂L_d.
    """
    method = replace(SMALL, strength=strength, entropy=entropy)
    networks, batch = fresh(method), domain_batch()
    found = method.loss(networks, {}, batch)
    found.total.backward()
    value, domain = plain(networks, batch, entropy)
    torch.testing.assert_close(found.terms["domain"], domain)
    for name, parameter in networks.named_parameters():
        of_value, of_domain = (
            torch.autograd.grad(loss, parameter, retain_graph=True, allow_unused=True)[0]
            for loss in (value, domain)
        )
        if name.startswith("head."):
            assert (of_domain is not None) == entropy
        factor = 1.0 if name.startswith("discriminator.") else -strength
        expected = sum(
            (w * g for w, g in ((1.0, of_value), (factor, of_domain)) if g is not None),
            torch.zeros_like(parameter),
        )
        torch.testing.assert_close(parameter.grad, expected, atol=1e-13, rtol=1e-12, msg=name)


def test_entropy_conditioning_makes_predictions_more_certain():
    """The weights are larger after a step down the gradient that the entropy has in the loss."""
    method = replace(SMALL, entropy=True, strength=1.0)
    networks, batch = fresh(method), domain_batch()
    without = replace(method, entropy=False)
    own, other = (
        torch.autograd.grad(m.loss(networks, {}, batch).total, networks.head[0].weight)[0]
        for m in (method, without)
    )
    before = certainty_weights(networks(batch.target_x)).mean()
    with torch.no_grad():
        networks.head[0].weight -= 10 * (own - other)
    assert certainty_weights(networks(batch.target_x)).mean() > before + 0.002


@pytest.mark.parametrize(("widest", "inputs", "random"), [(24, 24, False), (23, 6, True)])
def test_wide_products_are_projected(widest, inputs, random):
    """8 · 3 = 24 products: seen one by one, or as 6 random ones."""
    method = replace(SMALL, widest=widest, projections=6)
    networks = fresh(method)
    assert networks.discriminator[0].in_features == inputs
    assert hasattr(networks, "maps") == random
    method.loss(networks, {}, domain_batch()).total.backward()
    again = fresh(method)
    if random:
        assert torch.equal(networks.maps.of_z, again.maps.of_z)


def test_the_defaults_are_the_papers():
    """Up to 4096 products one by one; 500-500-1."""
    assert CDAN().widest == 4096
    networks = fresh(CDAN())
    sizes = [layer.out_features for layer in networks.discriminator if hasattr(layer, "weight")]
    assert sizes == [500, 500, 1]
    assert math.isclose(networks.discriminator[2].p, 0.5)


@pytest.mark.parametrize("entropy", [False, True])
def test_no_strength_is_source_only_bit_for_bit(entropy):
    method = replace(SMALL, strength=0.0, entropy=entropy, batch_norm="separate", dropout=0.5)
    ours, other = (trained(m, NOISY).stack.params for m in (method, SourceOnly()))
    assert all(torch.equal(ours[name], value) for name, value in other.items())


@pytest.mark.usefixtures("without_shape_checks")  # of settings: strengths are tensors
@pytest.mark.parametrize(
    "method",
    [
        replace(SMALL, dropout=0.5, batch_norm="domain_specific"),
        replace(SMALL, entropy=True, schedule="rising", batch_norm="separate"),
        replace(SMALL, entropy=True, widest=4, projections=6),
    ],
    ids=["cdan", "cdan+e", "projected"],
)
def test_a_stack_is_separate_runs(method):
    assert_stack_equals_runs(method, fields={"strength": [0.0, 0.5, 2.0]})


@pytest.mark.parametrize("entropy", [False, True])
def test_it_differs_from_source_only(entropy):
    assert_differs_from_source_only(replace(SMALL, entropy=entropy))


def test_conditioning_matters():
    """CDAN+E, CDAN and projections end elsewhere."""
    methods = [SMALL, replace(SMALL, entropy=True), replace(SMALL, widest=4, projections=24)]
    train = replace(TRAIN, steps=2)
    ends = [trained(m, PLAIN, [0], train).stack.params["backbone.layers.0.weight"] for m in methods]
    assert not torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])
