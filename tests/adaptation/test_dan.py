"""DAN: its loss from its parts, its settings, and that the discrepancy falls."""

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
from tlresearch.adaptation.dan import DAN
from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.errors import UserError
from tlresearch.functional import kernels
from tlresearch.functional.schedules import reversal_strength
from tlresearch.training.settings import Train

ALL = DAN(layers=("features", "logits", "probabilities"))


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize("bandwidth", ["median", "mean"])
@pytest.mark.parametrize("schedule", ["constant", "rising"])
def test_the_loss_is_the_sum_of_its_parts(schedule, bandwidth, estimator):
    """Cross-entropy + λ(p) Σ MMD² of three layers, each with a bandwidth of its own."""
    method = replace(ALL, strength=0.7, schedule=schedule, bandwidth=bandwidth, estimator=estimator)
    networks, batch = method.networks(PLAIN, (1, 4, 4), 3, 0).double(), domain_batch(step=3)
    z = [networks.backbone(x) for x in (batch.source_x, batch.target_x)]
    logits = [networks.head(part) for part in z]
    expected = torch.zeros((), dtype=torch.float64)
    for pair in (z, logits, [q.softmax(1) for q in logits]):
        gamma = getattr(kernels, f"{bandwidth}_bandwidth")(*pair)
        mmd = getattr(kernels, f"{estimator}_mmd")
        expected = expected + mmd(*pair, gamma, (0.25, 0.5, 1.0, 2.0, 4.0))
    scale = 0.7 * (reversal_strength(0.6) if schedule == "rising" else 1.0)
    found = method.loss(networks, {}, batch)
    torch.testing.assert_close(found.terms["mmd"], expected)
    value = F.cross_entropy(logits[0], batch.source_y)
    torch.testing.assert_close(found.total, value + scale * expected)


def test_the_discrepancy_falls():
    """After 60 steps it is less than half of what source-only training leaves."""
    train = replace(TRAIN, steps=60, optimizer="adam", lr=0.01)
    left = []
    for method in (SourceOnly(), DAN()):
        networks = networks_of(trained(method, PLAIN, [0], train))
        batch = domain_batch(step=99, source=60, target=60)
        left.append(DAN(estimator="biased").loss(networks, {}, batch).terms["mmd"])
    assert left[1] < 0.5 * left[0]


def test_no_strength_is_source_only_bit_for_bit():
    method = DAN(strength=0.0, batch_norm="separate")
    ours, other = (trained(m, NOISY).stack.params for m in (method, SourceOnly()))
    assert all(torch.equal(ours[name], value) for name, value in other.items())


@pytest.mark.usefixtures("without_shape_checks")  # of settings: strengths are tensors
@pytest.mark.parametrize("batch_norm", ["joint", "separate", "domain_specific"])
def test_a_stack_is_separate_runs(batch_norm):
    method = replace(ALL, batch_norm=batch_norm)
    assert_stack_equals_runs(method, fields={"strength": [0.0, 0.5, 2.0]})


def test_it_differs_from_source_only():
    assert_differs_from_source_only(DAN())


def test_it_compares_in_float32_under_autocast():
    """Pixels as features, which autocast leaves alone: the same MMD² to the last bit."""
    method = DAN(layers=("features",))
    networks = method.networks(replace(PLAIN, hidden=()), (1, 4, 4), 3, 0)
    batch = domain_batch()
    batch = batch._replace(source_x=batch.source_x.float(), target_x=batch.target_x.float())
    alone = method.loss(networks, {}, batch).terms["mmd"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = method.loss(networks, {}, batch).terms["mmd"]
    assert torch.equal(alone, inside)


@pytest.mark.parametrize(
    ("method", "train", "sentence"),
    [
        (DAN(layers=()), Train(), r"methods\.dan\.layers: expected some of features"),
        (DAN(layers=("logits", "logits")), Train(), r"methods\.dan\.layers: .* each once"),
        (DAN(factors=()), Train(), r"methods\.dan\.factors: expected at least one factor"),
        (DAN(), Train(batch_size=1), r"train\.batch_size: dan compares .* at least 2"),
    ],
)
def test_impossible_settings_are_refused(method, train, sentence):
    with pytest.raises(UserError, match=sentence):
        check(AdaptationSettings("mnist5k", "optdigits"), method, "dan", train)
