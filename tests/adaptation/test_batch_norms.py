"""Whose statistics batch norm uses and keeps, for each option."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_domains import TRAIN, domain_batch, networks_of, trained, weights
from small_rounds import Bench
from torch import Tensor, nn

from tlresearch.adaptation.dann import DANN
from tlresearch.adaptation.norms import DomainNorm, passing, separate_norms
from tlresearch.adaptation.passes import BatchNorms, both
from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.layers import Dropout
from tlresearch.backbones.mlp import MLP
from tlresearch.errors import UserError
from tlresearch.training.stack import stack_networks

WIDE = MLP(hidden=(5,), norm="batch")
ONE_STEP = replace(TRAIN, steps=1)


def inputs_of_the_norm(networks: Any, x: Tensor) -> Tensor:
    return networks.backbone.layers[0](x.flatten(1))


def after_one_step(batch_norm: BatchNorms) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Weights and statistics, and what came into the norm from source and target."""
    method = DANN(discriminator=(), batch_norm=batch_norm)
    before = method.networks(WIDE, (1, 4, 4), 3, 0).double()
    batch = domain_batch()
    source, target = (inputs_of_the_norm(before, x) for x in (batch.source_x, batch.target_x))
    return weights(trained(method, WIDE, [0], ONE_STEP)), source, target


def moved(mean: Tensor, x: Tensor) -> Tensor:
    return 0.9 * mean + 0.1 * x.mean(0)


def test_joint_statistics_are_of_both_domains_together():
    """0.1 times the mean of all 14 samples."""
    found, source, target = after_one_step("joint")
    expected = moved(torch.zeros(5, dtype=torch.float64), torch.cat([source, target]))
    torch.testing.assert_close(found["backbone.layers.1.running_mean"], expected)
    assert found["backbone.layers.1.num_batches_tracked"] == 1


def test_separate_statistics_follow_both_domains_in_turn():
    """0.9 · 0.1 times the source's mean + 0.1 times the target's."""
    found, source, target = after_one_step("separate")
    expected = moved(moved(torch.zeros(5, dtype=torch.float64), source), target)
    torch.testing.assert_close(found["backbone.layers.1.running_mean"], expected)
    assert found["backbone.layers.1.num_batches_tracked"] == 2


def test_domain_specific_statistics_are_of_one_domain_each():
    """And so are scale and shift."""
    found, source, target = after_one_step("domain_specific")
    for domain, x in (("source", source), ("target", target)):
        expected = moved(torch.zeros(5, dtype=torch.float64), x)
        torch.testing.assert_close(found[f"backbone.layers.1.{domain}.running_mean"], expected)
    scales = [found[f"backbone.layers.1.{domain}.weight"] for domain in ("source", "target")]
    assert not torch.equal(*scales)


def test_a_batch_is_normalised_by_the_statistics_of_the_option():
    """In training the target's features are standardised by themselves, but jointly not."""
    backbone, batch = MLP(hidden=(5,), norm="batch"), domain_batch()
    means = {}
    for name in ("joint", "separate", "domain_specific"):
        networks: Any = DANN(batch_norm=name).networks(backbone, (1, 4, 4), 3, 0).double()
        networks.backbone.layers[2] = nn.Identity()  # no ReLU: the norm's output
        means[name] = [passed.z.mean(0) for passed in both(networks, batch, name)]
    zero = torch.zeros(5, dtype=torch.float64)
    for name in ("separate", "domain_specific"):
        for mean in means[name]:
            torch.testing.assert_close(mean, zero, atol=1e-12, rtol=0)
    assert means["joint"][1].abs().max() > 0.1
    both_means = 8 * means["joint"][0] + 6 * means["joint"][1]
    torch.testing.assert_close(both_means, zero, atol=1e-12, rtol=0)


def test_a_domain_is_predicted_with_its_own_norms():
    """The target by itself; the source within `passing`."""
    method = DANN(discriminator=(), batch_norm="domain_specific")
    networks = networks_of(trained(method, WIDE, [0])).eval()
    x = domain_batch().source_x
    before = inputs_of_the_norm(networks, x)

    def by(norm: nn.Module) -> Tensor:
        return networks.head(norm(before).relu())

    layer = networks.backbone.layers[1]
    assert isinstance(layer, DomainNorm)
    torch.testing.assert_close(method.predict(networks, {}, x, None), by(layer.target))
    with passing(networks, "source"):
        torch.testing.assert_close(method.predict(networks, {}, x, None), by(layer.source))
    torch.testing.assert_close(method.predict(networks, {}, x, None), by(layer.target))
    assert not torch.allclose(by(layer.source), by(layer.target), atol=1e-3)


def test_passing_leaves_everything_as_it_was():
    """Also where something goes wrong inside."""
    networks = nn.Sequential(nn.BatchNorm1d(2), Dropout(0.5))
    separate_norms(networks, "this")
    with pytest.raises(RuntimeError), passing(networks, "source"):
        assert networks[0].domain == "source"
        raise RuntimeError
    with passing(networks, "target"):
        assert networks[1].part == 1
    assert networks[0].domain == "target"
    assert networks[1].part == 0


def test_norms_begin_equal_and_keep_the_other_weights():
    """A copy of scale, shift and statistics for each domain; nothing else has another name."""
    plain, ours = (
        DANN(batch_norm=name).networks(Conv4(channels=2), (1, 16, 16), 3, 0).state_dict()
        for name in ("separate", "domain_specific")
    )
    for name, value in plain.items():
        for domain in ("source.", "target."):
            layer, _, last = name.rpartition(".")
            own = f"{layer}.{domain}{last}"
            assert torch.equal(ours[own if own in ours else name], value)
    assert len(ours) == len(plain) + 4 * 5


def test_domains_and_stacks_share_no_memory():
    """Of 2 seeds × 2 domains each statistic is its own."""
    method = DANN(batch_norm="domain_specific")
    stack = stack_networks([method.networks(WIDE, (1, 4, 4), 3, seed) for seed in range(2)])
    places = [stack.buffers[f"backbone.layers.1.{d}.running_mean"] for d in ("source", "target")]
    places[0][1] += 1
    assert places[1].eq(0).all() and places[0][0].eq(0).all()


@pytest.mark.parametrize("backbone", [MLP(hidden=(5,)), Conv4(channels=2, statistics="batch")])
def test_a_backbone_without_running_statistics_is_refused(backbone):
    with pytest.raises(UserError, match="batch_norm: domain_specific needs a backbone with batch"):
        DANN(batch_norm="domain_specific").networks(backbone, (1, 16, 16), 3, 0)


def test_a_batch_of_one_sample_is_refused(monkeypatch, tmp_path):
    """Before any work, and not by torch's error in the first step."""
    bench = Bench(monkeypatch, tmp_path)
    with pytest.raises(UserError, match=r"train\.batch_size: batch norm needs at least 2 samples"):
        bench.run(DANN(batch_norm="separate"), backbone=WIDE, batch_size=1)
