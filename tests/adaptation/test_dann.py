"""DANN: the reversal within its loss, an adversary that learns, λ = 0, unequal domains."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
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
    networks_of,
    prepare,
    stacked,
    trained,
    weights,
)
from torch import Tensor

from tlresearch.adaptation.adversary import domain_loss
from tlresearch.adaptation.cdan import CDAN
from tlresearch.adaptation.dann import DANN
from tlresearch.adaptation.method import DomainBatch
from tlresearch.adaptation.passes import both
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.mlp import MLP
from tlresearch.functional.schedules import reversal_strength
from tlresearch.launch.plan import numeric_fields
from tlresearch.training.loop import fit

SMALL = DANN(discriminator=(8,))


def fresh(method: DANN, backbone: MLP = PLAIN) -> Any:
    return method.networks(backbone, (1, 4, 4), 3, 0).double()


def parts(networks: Any, batch: DomainBatch) -> tuple[Tensor, Tensor]:
    """Cross-entropy and domain loss as autograd sees them, nothing reversed."""
    z = [networks.backbone(x) for x in (batch.source_x, batch.target_x)]
    loss = domain_loss(*(networks.discriminator(part) for part in z))
    return F.cross_entropy(networks.head(z[0]), batch.source_y), loss


@pytest.mark.parametrize("batch_norm", ["joint", "separate"])
@pytest.mark.parametrize(("schedule", "step"), [("constant", 0), ("rising", 0), ("rising", 3)])
@pytest.mark.parametrize("strength", [0.0, 1.0, 6.0])
def test_the_gradients_are_those_of_the_paper(strength, schedule, step, batch_norm):
    """Backbone: ∂L_y − λ ∂L_d; head: ∂L_y; discriminator: ∂L_d, with 1 and not λ; eqs. 13-15."""
    method = replace(SMALL, strength=strength, schedule=schedule, batch_norm=batch_norm)
    networks, batch = fresh(method), domain_batch(step=step)
    method.loss(networks, {}, batch).total.backward()
    value, domain = parts(networks, batch)
    scale = strength * (reversal_strength(step / TRAIN.steps) if schedule == "rising" else 1.0)
    named = dict(networks.named_parameters())
    of_value = dict(zip(named, _grads(value, named), strict=True))
    of_domain = dict(zip(named, _grads(domain, named), strict=True))
    for name, parameter in named.items():
        factor = 1.0 if name.startswith("discriminator.") else -scale
        expected = of_value[name] + factor * of_domain[name]
        torch.testing.assert_close(parameter.grad, expected, atol=1e-13, rtol=1e-12, msg=name)
    assert of_domain["discriminator.0.weight"].norm() > 1e-3
    assert of_domain["backbone.layers.0.weight"].norm() > 1e-3


def _grads(loss: Tensor, named: Mapping[str, Tensor]) -> list[Tensor]:
    parameters = list(named.values())
    grads = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return [
        torch.zeros_like(p) if g is None else g for p, g in zip(named.values(), grads, strict=True)
    ]


def test_the_discriminator_learns_on_separable_domains_and_reaches_the_features():
    """With λ = 0 its accuracy goes to 1; its reversed gradient then is not 0 in any layer."""
    train = replace(TRAIN, steps=80, optimizer="adam", lr=0.01)
    apart = partial(domain_batch, shift=2.0, source=20, target=20)
    training = trained(replace(SMALL, strength=0.0), PLAIN, [0], train, apart)
    networks, batch = networks_of(training), apart(step=99)
    loss = SMALL.loss(networks, {}, batch)
    assert loss.terms["domain_accuracy"] > 0.99
    assert loss.terms["domain"] < 0.2
    gradients = torch.autograd.grad(
        (loss.total - loss.terms["cross_entropy"]), list(networks.backbone.parameters())
    )
    assert all(gradient.norm() > 1e-6 for gradient in gradients)


def test_an_adversary_takes_the_domain_out_of_the_features():
    """Trained against each other, the discriminator is right less often than by itself."""
    train = replace(TRAIN, steps=80, optimizer="adam", lr=0.01)
    found = []
    for strength in (0.0, 1.0):
        method = replace(SMALL, strength=strength)
        networks = networks_of(trained(method, PLAIN, [0], train))
        terms = [method.loss(networks, {}, domain_batch(step=90 + i)).terms for i in range(5)]
        found.append(torch.stack([term["domain_accuracy"] for term in terms]).mean())
    assert found[1] < found[0] - 0.15


@pytest.mark.parametrize("schedule", ["rising", "constant"])
@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_no_strength_is_source_only_bit_for_bit(optimizer, seeds, schedule):
    """Through the real loop, in float32, with dropout, batch norm and accumulated passes."""
    momentum = 0.9 if optimizer == "sgd" else 0.0
    train = replace(TRAIN, precision="fp32", accumulate=2, optimizer=optimizer, momentum=momentum)
    dann = replace(SMALL, strength=0.0, schedule=schedule, dropout=0.2, batch_norm="separate")
    ends = []
    for method in (dann, SourceOnly()):
        training = prepare(method, NOISY, seeds, train)
        batches = stacked(seeds, domain_batch)

        def in_float32(step, batches=batches):
            return tuple(
                t.float() if t is not None and t.is_floating_point() else t for t in batches(step)
            )

        fit(training, in_float32, train.steps)
        ends.append(training)
    for name in ends[1].stack.params:
        assert torch.equal(ends[0].stack.params[name], ends[1].stack.params[name]), name


def test_domains_of_unequal_size_count_the_same():
    """Each target sample four times over: the same loss and gradients."""
    networks, batch = fresh(SMALL), domain_batch(source=8, target=3, step=2)
    found = []
    for x in (batch.target_x, batch.target_x.repeat(4, 1, 1, 1)):
        loss = SMALL.loss(networks, {}, batch._replace(target_x=x)).total
        found.append([loss, *torch.autograd.grad(loss, list(networks.parameters()))])
    for few, many in zip(*found, strict=True):
        torch.testing.assert_close(few, many, atol=1e-13, rtol=1e-12)


@pytest.mark.parametrize("batch_norm", ["joint", "separate", "domain_specific"])
def test_no_two_samples_share_a_mask(batch_norm):
    """The same inputs as source and as target have other features in training with dropout."""
    method = replace(SMALL, batch_norm=batch_norm)
    networks = method.networks(MLP(hidden=(40,), norm="batch", dropout=0.5), (1, 4, 4), 3, 0)
    batch = domain_batch()
    batch = batch._replace(source_x=batch.source_x.float(), target_x=batch.source_x.float())
    source, target = both(networks, batch, batch_norm)
    off = [(z == 0) & (source.z.abs() + target.z.abs() > 0) for z in (source.z, target.z)]
    assert off[0].any() and off[1].any()
    assert not torch.equal(source.z, target.z)


def test_separate_passes_are_one_pass_without_batch_norm():
    """With equal sizes masks and loss are the same."""
    networks, batch = fresh(SMALL, MLP(hidden=(12,), dropout=0.5)), domain_batch(target=8)
    joint, separate = (
        replace(SMALL, batch_norm=name).loss(networks, {}, batch).total
        for name in ("joint", "separate")
    )
    torch.testing.assert_close(joint, separate, atol=1e-14, rtol=0)


@pytest.mark.usefixtures("without_shape_checks")  # of settings: strengths are tensors
@pytest.mark.parametrize("batch_norm", ["joint", "separate", "domain_specific"])
def test_a_stack_is_separate_runs(batch_norm):
    """With strengths that differ within it."""
    method = replace(SMALL, dropout=0.2, batch_norm=batch_norm)
    assert_stack_equals_runs(method, fields={"strength": [0.0, 0.5, 2.0]})


def test_a_stack_of_convolutions_is_separate_runs():
    """Conv-4 of two channels, whose batch norm is of images."""
    method = replace(SMALL, batch_norm="domain_specific")
    train = replace(TRAIN, steps=2)
    assert_stack_equals_runs(method, Conv4(channels=2, pools=2), train=train)


def test_it_differs_from_source_only():
    assert_differs_from_source_only(SMALL)
    with pytest.raises(AssertionError, match="as source-only does"):
        assert_differs_from_source_only(replace(SMALL, strength=0.0))


def test_weights_begin_as_those_of_source_only():
    """Whatever the discriminator and the norms are."""
    plain = weights(prepare(SourceOnly(), NOISY, [0]))
    for method in (SMALL, DANN(discriminator=())):
        ours = weights(prepare(method, NOISY, [0]))
        assert all(torch.equal(ours[name], value) for name, value in plain.items())


@pytest.mark.parametrize("kind", [DANN, CDAN])
def test_dropout_is_no_number_of_a_stack(kind):
    """Layers of dropout are made once for a stack: seeds that differ in it are not stacked."""
    assert "strength" in numeric_fields(kind()) and "dropout" not in numeric_fields(kind())
