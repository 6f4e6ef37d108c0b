"""AdaBN: the target's statistics, layer by layer, and the source's beside them."""

from functools import partial
from typing import Any

import pytest
import torch
from small_domains import NOISY, assert_stack_equals_runs, domain_batch, networks_of, trained
from torch import Tensor, nn

from tlresearch.adaptation.adabn import AdaBN, adapt_statistics
from tlresearch.adaptation.norms import DomainNorm, passing
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.layers import BatchNorm1d
from tlresearch.backbones.mlp import MLP
from tlresearch.errors import UserError

DEEP = MLP(hidden=(12, 8), norm="batch")
F64 = torch.float64


class Pool:
    """A target pool as a method sees it, in chunks of unequal size."""

    def __init__(self, shape: tuple[int, int, int] = (1, 4, 4)) -> None:
        self.x = domain_batch(target=20, shape=shape).target_x

    def target(self) -> list[Tensor]:
        return list(self.x.split([7, 12, 1]))

    def other(self, *_: Any) -> Any:
        raise AssertionError("the target's inputs are all that it may ask for")

    source = held_out = previous = key = other


def adapted(backbone: Any, shape: tuple[int, int, int] = (1, 4, 4)) -> tuple[AdaBN, Any, Pool]:
    """Method, trained networks in evaluation mode, and their pool."""
    method, pool = AdaBN(), Pool(shape)
    data: Any = pool
    of_seed = partial(domain_batch, shape=shape)
    networks = networks_of(trained(method, backbone, [0], of_seed=of_seed, shape=shape)).eval()
    method.after_training(networks, {}, data)
    return method, networks, pool


@pytest.mark.parametrize(
    ("backbone", "shape"),
    [(DEEP, (1, 4, 4)), (Conv4(channels=2), (1, 16, 16))],
    ids=["mlp", "conv"],
)
def test_predictions_are_those_of_the_whole_pool_as_one_batch(backbone, shape):
    """Batch norm in training mode uses just those statistics; ours came in three chunks."""
    method, networks, pool = adapted(backbone, shape)
    ours = method.predict(networks, {}, pool.x, None)
    networks.train()
    torch.testing.assert_close(ours, networks(pool.x), atol=1e-10, rtol=0)


def test_the_source_is_predicted_as_without_it():
    """Its weights are source-only's bit for bit, and so are its predictions."""
    _, networks, pool = adapted(NOISY)
    plain = networks_of(trained(SourceOnly(), NOISY, [0])).eval()
    with passing(networks, "source"):
        assert torch.equal(networks(pool.x), plain(pool.x))
    assert not torch.allclose(networks(pool.x), plain(pool.x), atol=1e-3)


def test_scale_and_shift_are_those_that_the_source_learned():
    """Which training moved."""
    _, networks, _ = adapted(DEEP)
    norms: list[Any] = [m for m in networks.modules() if isinstance(m, DomainNorm)]
    assert len(norms) == 2
    for norm in norms:
        assert torch.equal(norm.target.weight, norm.source.weight)
        assert torch.equal(norm.target.bias, norm.source.bias)
        assert not norm.source.weight.eq(1).all()


def test_each_layer_lies_behind_adapted_ones():
    """Statistics of the second norm with the first adapted, by hand, and not without."""
    _, networks, pool = adapted(DEEP)
    linear, norm, relu, _, second, last = list(networks.backbone.layers)[:6]
    layer = norm.target
    first = linear(pool.x.flatten(1))
    normal = (first - first.mean(0)) / (first.var(0, correction=0) + layer.eps).sqrt()
    expected = second(relu(normal * layer.weight + layer.bias))
    torch.testing.assert_close(last.target.running_mean, expected.mean(0))
    torch.testing.assert_close(last.target.running_var, expected.var(0, correction=0))
    unadapted = second(relu(norm.source(first)))
    assert not torch.allclose(last.target.running_mean, unadapted.mean(0), atol=1e-3)


def test_a_norm_that_is_not_on_the_way_stays():
    """It cannot be adapted, and nothing waits for it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = BatchNorm1d(3).double(), BatchNorm1d(3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    net: Any = Net().eval()
    x = torch.randn(9, 3, dtype=F64) + 4
    adapt_statistics(net, {net.used, net.unused}, [x])
    torch.testing.assert_close(net.used.running_mean, x.mean(0).detach())
    assert net.unused.running_mean.eq(0).all()


def test_a_backbone_without_batch_norm_is_refused():
    with pytest.raises(UserError, match="adabn needs a backbone with batch norm"):
        AdaBN().networks(MLP(hidden=(4,)), (1, 4, 4), 3, 0)


def test_a_stack_is_separate_runs():
    assert_stack_equals_runs(AdaBN(), NOISY)
