"""Two half-moons: geometry, and the published code's sample as a second opinion."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from known_domains import CPU, F64
from sklearn.datasets import make_moons
from sklearn.linear_model import LogisticRegression

from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.data.domains import Frozen
from tlresearch.data.moons import NOISE, TEST, TRAIN, moons, read
from tlresearch.data.pairs import load_pair
from tlresearch.functional.random import make_key

SETTINGS = AdaptationSettings(
    "moons", "moons", rotation=35.0, source_samples=300, target_samples=300, validation=0.0
)


def test_points_lie_on_their_moon_up_to_noise():
    """Undoubled and moved back: a half circle about (0, 0) above, one about (1, ½) below."""
    points, labels = moons(make_key(1, "test"), 20_000)
    found = points / 2 + points.new_tensor([0.5, 0.25])
    for label, centre, sign in ((0, (0.0, 0.0), 1), (1, (1.0, 0.5), -1)):
        arm = found[labels == label] - found.new_tensor(centre)
        radius = arm.norm(dim=1)
        assert abs(radius.mean() - 1 - NOISE**2 / 2) < 2e-3 and abs(radius.std() - NOISE) < 2e-3
        assert (sign * arm[:, 1] > -5 * NOISE).all()
        inner = arm[(radius - 1).abs() < NOISE]  # angles are uniform: a tenth in each tenth of π
        angle = torch.atan2(sign * inner[:, 1], inner[:, 0])
        tenths = (angle / math.pi * 10).long().clamp(0, 9).bincount() / len(inner)
        assert (tenths - 0.1).abs().max() < 0.012
    assert points.mean(0).abs().max() < 0.03


def test_moments_are_those_of_the_published_recipe():
    """Scikit-learn's moons, centred and doubled: means and covariances of each class."""
    drawn: Any = make_moons(20_000, noise=0.05, random_state=0)
    theirs, y = (torch.from_numpy(array) for array in drawn)
    theirs = 2 * (theirs - theirs.mean(0))
    ours, labels = moons(make_key(0, "test"), 20_000)
    for label in (0, 1):
        a, b = ours[labels == label], theirs[y == label]
        torch.testing.assert_close(a.mean(0), b.mean(0), atol=0.05, rtol=0)
        torch.testing.assert_close(a.T.cov(), b.T.cov(), atol=0.05, rtol=0)


def test_a_seed_has_150_points_a_class_of_its_own():
    pair, sealed = load_pair(SETTINGS, [0, 1], CPU, F64)
    assert pair.shape == (1, 1, 2) and pair.classes == 2
    for pool in pair.source_pools:
        assert pair.source.labels[pool].bincount().tolist() == [150, 150]
    assert [len(pool) for pool in pair.target_pools] == [300, 300]
    for pools in (pair.source_pools, pair.target_pools):
        assert len(set(pools[0].tolist()) & set(pools[1].tolist())) < 60  # 18 by chance
    assert len(sealed.open(Frozen({"w": torch.ones(1)})).test.labels) == TEST


def test_the_target_is_another_draw_turned_by_35_degrees():
    """Turned back, no point of the target is one of the source's, and the moons are the same."""
    pair, sealed = load_pair(SETTINGS, [0], CPU, F64)
    turn = math.radians(-35)
    back = torch.tensor([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    target, source = pair.target.images.flatten(1) @ back, pair.source.images.flatten(1)
    assert len(target) == len(source) == TRAIN // 2
    assert torch.cdist(target[:1000], source).min() > 1e-6
    labels = sealed.open(Frozen({"w": torch.ones(1)})).training_labels[0]
    for label in (0, 1):
        a, b = target[pair.target_pools[0]][labels == label], source[pair.source.labels == label]
        torch.testing.assert_close(a.mean(0), b.mean(0), atol=0.2, rtol=0)


def test_the_same_in_every_run():
    assert torch.equal(read(None).train.images, read(None).train.images)
    longer, _ = moons(make_key(0, "moons", 0), TRAIN + 2)
    # A longer draw begins with the shorter one, as every draw of our generator.
    torch.testing.assert_close(longer[:TRAIN].float().view(-1, 1, 1, 2), read(None).train.images)


def test_a_rule_of_the_source_fails_on_the_target():
    """The paper's code gives the same: a line is right at 89 % of the source, 72 % of the target;
    the nearest neighbour suffers from a turn counter-clockwise, and less from one clockwise."""
    accuracy = {}
    for turn in (0.0, 35.0, -35.0):
        pair, sealed = load_pair(replace(SETTINGS, rotation=turn), [0], CPU, F64)
        pool, test = pair.source_pools[0], sealed.open(Frozen({"w": torch.ones(1)})).test
        x, z = pair.source.images[pool].flatten(1), test.images.flatten(1)
        line = LogisticRegression().fit(x.numpy(), pair.source.labels[pool].numpy())
        nearest = pair.source.labels[pool][torch.cdist(z, x).argmin(1)]
        right = (nearest == test.labels).double().mean().item()
        accuracy[turn] = line.score(z.numpy(), test.labels.numpy()), right
    assert accuracy[0.0] == (pytest.approx(0.89, abs=0.02), pytest.approx(1, abs=0.002))
    assert accuracy[35.0] == (pytest.approx(0.72, abs=0.03), pytest.approx(0.90, abs=0.05))
    assert accuracy[-35.0] == (pytest.approx(0.80, abs=0.03), pytest.approx(0.97, abs=0.03))
