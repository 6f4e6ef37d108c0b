"""CST: the closed form of the inner classifier, the gradient through it, and the whole loss."""

from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import Ridge
from small_domains import (
    CLASSES,
    F64,
    PLAIN,
    SHAPE,
    assert_differs_from_source_only,
    assert_stack_equals_runs,
    domain_batch,
)

from tlresearch.adaptation.cycle_self_training import CycleSelfTraining, cycle_loss
from tlresearch.functional.schedules import reversal_strength


def features(seed: int = 0):
    rng = torch.Generator().manual_seed(seed)
    source, target = (torch.randn(n, 5, dtype=F64, generator=rng) for n in (8, 6))
    y, guessed = (torch.randint(CLASSES, (n,), generator=rng) for n in (8, 6))
    return source, y, target, guessed


def test_the_cycle_is_a_ridge_classifier_of_the_target_judged_on_the_source():
    source, y, target, guessed = features()
    unit = [z / z.norm(dim=1, keepdim=True) for z in (source, target)]
    codes = torch.eye(CLASSES, dtype=F64) - 1 / CLASSES
    fitted = Ridge(alpha=0.2, fit_intercept=False).fit(unit[1].numpy(), codes[guessed].numpy())
    error = torch.as_tensor(fitted.predict(unit[0].numpy())) - codes[y]
    found = cycle_loss(source, y, target, guessed, CLASSES, 0.2)
    assert found.item() == pytest.approx((error**2).sum().item() / 8)


def test_its_gradient_reaches_both_domains_and_the_ridge():
    """Finite differences through the inner solution, not past it."""
    source, y, target, guessed = features()
    ridge = torch.tensor(0.2, dtype=F64)
    for tensor in (source, target, ridge):
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s, t, r: cycle_loss(s, y, t, guessed, CLASSES, r), (source, target, ridge)
    )
    loss = cycle_loss(source, y, target, guessed, CLASSES, ridge)
    assert torch.autograd.grad(loss, target)[0].abs().max() > 1e-3


def test_right_pseudo_labels_of_separate_classes_cost_little():
    """And wrong ones much: that is what the cycle tells apart."""
    z = torch.eye(CLASSES, dtype=F64).repeat(4, 1)
    y = torch.arange(CLASSES).repeat(4)
    right = cycle_loss(z, y, z, y, CLASSES, 1e-6)
    wrong = cycle_loss(z, y, z, (y + 1) % CLASSES, CLASSES, 1e-6)
    assert right < 1e-9 and wrong.item() == pytest.approx(2)


def test_the_scale_of_features_has_no_effect():
    source, y, target, guessed = features()
    scaled = cycle_loss(9 * source, y, 0.1 * target, guessed, CLASSES, 0.3)
    torch.testing.assert_close(scaled, cycle_loss(source, y, target, guessed, CLASSES, 0.3))


@pytest.mark.parametrize("rising", [True, False])
def test_the_loss_is_the_sum_of_its_terms(rising):
    method = CycleSelfTraining(strength=0.7, entropy=0.2, rising=rising)
    networks = method.networks(PLAIN, SHAPE, CLASSES, 0).double()
    batch = domain_batch(step=2)
    loss = method.loss(networks, {}, batch)
    factor = reversal_strength(2 / 5) if rising else 1
    terms = loss.terms
    expected = terms["cross_entropy"] + factor * (0.7 * terms["cycle"] + 0.2 * terms["tsallis"])
    torch.testing.assert_close(loss.total, expected)
    z = networks.features(batch.target_x)
    p = networks.head(z).softmax(-1)
    tsallis = ((1 - p.pow(1.9).sum(1)) / 0.9).mean()
    torch.testing.assert_close(terms["tsallis"], tsallis)
    cycle = cycle_loss(
        networks.features(batch.source_x), batch.source_y, z, p.argmax(1), CLASSES, 0.1
    )
    torch.testing.assert_close(terms["cycle"], cycle)


@pytest.mark.usefixtures("without_shape_checks")  # of settings: strengths are tensors
@pytest.mark.parametrize("batch_norm", ["joint", "separate"])
def test_a_stack_equals_runs(batch_norm):
    fields = {"strength": [0.0, 1.0, 2.0], "order": [1.0, 1.5, 2.0], "ridge": [0.1, 1.0, 3.0]}
    assert_stack_equals_runs(CycleSelfTraining(batch_norm=batch_norm), fields=fields)


def test_it_is_not_source_only_and_each_term_counts():
    for method in (CycleSelfTraining(entropy=0.0), CycleSelfTraining(strength=0.0, entropy=1.0)):
        assert_differs_from_source_only(method)
    with pytest.raises(AssertionError, match="as source-only does"):
        assert_differs_from_source_only(
            replace(CycleSelfTraining(), strength=0.0, entropy=0.0, batch_norm="separate")
        )
