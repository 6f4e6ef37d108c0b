"""Deep CORAL: its loss from its parts, and that covariances come together."""

from dataclasses import replace

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
    trained,
)

from tlresearch.adaptation.checks import check
from tlresearch.adaptation.deep_coral import DeepCORAL
from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.errors import UserError
from tlresearch.functional.schedules import reversal_strength
from tlresearch.training.settings import Train

STRONG = DeepCORAL(strength=20.0, layers=("features", "logits"))


@pytest.mark.parametrize("schedule", ["constant", "rising"])
def test_the_loss_is_the_sum_of_its_parts(schedule):
    """Cross-entropy + λ(p) Σ ‖cov − cov‖² / 4d², with torch's covariance, d = 8 and 3."""
    method = replace(STRONG, schedule=schedule)
    networks, batch = method.networks(PLAIN, (1, 4, 4), 3, 0).double(), domain_batch(step=3)
    z = [networks.backbone(x) for x in (batch.source_x, batch.target_x)]
    logits = [networks.head(part) for part in z]
    expected = sum(
        (torch.cov(a.T) - torch.cov(b.T)).square().sum() / (4 * d**2)
        for (a, b), d in ((z, 8), (logits, 3))
    )
    scale = 20.0 * (reversal_strength(0.6) if schedule == "rising" else 1.0)
    found = method.loss(networks, {}, batch)
    value = F.cross_entropy(logits[0], batch.source_y)
    torch.testing.assert_close(found.total, value + scale * expected)
    torch.testing.assert_close(found.terms["coral"], expected)


def test_the_covariances_come_together():
    """Of a target twice as wide: less than half of what source-only training leaves."""
    train = replace(TRAIN, steps=60, optimizer="adam", lr=0.01)
    left = []

    def wide(seed: int, step: int):
        batch = domain_batch(seed, step, source=20, target=20)
        return batch._replace(target_x=2 * batch.target_x)

    for method in (SourceOnly(), STRONG):
        networks = networks_of(trained(method, PLAIN, [0], train, wide))
        left.append(STRONG.loss(networks, {}, wide(0, 99)).terms["coral"])
    assert left[1] < 0.5 * left[0]


def test_no_strength_is_source_only_bit_for_bit():
    method = DeepCORAL(strength=0.0, batch_norm="separate")
    ours, other = (trained(m, NOISY).stack.params for m in (method, SourceOnly()))
    assert all(torch.equal(ours[name], value) for name, value in other.items())


@pytest.mark.usefixtures("without_shape_checks")  # of settings: strengths are tensors
@pytest.mark.parametrize("batch_norm", ["joint", "separate", "domain_specific"])
def test_a_stack_is_separate_runs(batch_norm):
    method = replace(STRONG, batch_norm=batch_norm)
    assert_stack_equals_runs(method, fields={"strength": [0.0, 0.5, 2.0]})


def test_it_differs_from_source_only():
    assert_differs_from_source_only(STRONG)


def test_a_batch_of_one_has_no_covariance():
    with pytest.raises(UserError, match=r"train\.batch_size: coral compares .* at least 2"):
        benchmark = AdaptationSettings("mnist5k", "optdigits")
        check(benchmark, DeepCORAL(), "coral", Train(batch_size=1))
