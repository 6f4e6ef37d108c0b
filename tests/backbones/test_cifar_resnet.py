"""The residual networks: shortcut and initialisation by hand, checkpoints, published error."""

import math
import os
from pathlib import Path

import pytest
import torch

from tlresearch.backbones import build
from tlresearch.backbones.cifar_resnet import (
    CHECKPOINT_MEAN,
    CHECKPOINT_STD,
    Block,
    ResNet20,
    ResNet32,
    load_checkpoint,
)
from tlresearch.errors import UserError

DATA = os.environ.get("TLRESEARCH_DATA")


def resnet20(classes=10, seed=0):
    return build(ResNet20(), (3, 32, 32), classes, seed=seed)


def published_form(net):
    """A file's content: the names of the checkpoints, without the counters of batch norm."""
    tensors = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    names = {
        k: k.replace("backbone.", "module.").replace("head.", "module.linear.") for k in tensors
    }
    return {"state_dict": {names[k]: v for k, v in tensors.items()}, "best_prec1": 90.0}


def test_option_a_shortcut():
    """2 → 4 channels: the old two between a zero channel on each side, every second pixel."""
    x = torch.arange(32.0).view(1, 2, 4, 4)
    short = Block(2, 4, 2).shortcut(x)
    kept = torch.tensor([[[0.0, 2.0], [8.0, 10.0]], [[16.0, 18.0], [24.0, 26.0]]])
    assert torch.equal(short[0], torch.cat([torch.zeros(1, 2, 2), kept, torch.zeros(1, 2, 2)]))
    assert Block(2, 2, 1).shortcut(x) is x


def test_block_without_its_branch_is_the_shortcut():
    """With γ of the second batch norm 0, a block is relu(shortcut(x))."""
    block, x = Block(4, 8, 2), torch.randn(3, 4, 6, 6)
    torch.nn.init.zeros_(block.bn2.weight)
    torch.testing.assert_close(block(x), block.shortcut(x).relu(), atol=0, rtol=0)


def test_stages_halve_and_double():
    backbone = ResNet20().build((3, 32, 32))
    shapes = [tuple(z.shape) for z in backbone.stages(torch.zeros(2, 3, 32, 32))]
    assert shapes == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]


def test_weights_have_the_variance_of_he():
    """Var W = 2 / fan-in for convolutions and the head, within 5 standard errors."""
    net = resnet20(classes=100)
    for weight in [*(p for p in net.backbone.parameters() if p.ndim == 4), net.head.weight]:
        ratio = weight.square().mean().item() * weight[0].numel() / 2
        assert abs(ratio - 1) < 5 * math.sqrt(2 / weight.numel())


def test_checkpoint_restores_the_network(tmp_path):
    source, target = resnet20(seed=0), resnet20(seed=1)
    source.train()(torch.randn(8, 3, 32, 32))
    torch.save(published_form(source), tmp_path / "resnet.th")
    load_checkpoint(target, tmp_path / "resnet.th")
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(source.eval()(x), target.eval()(x))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.th is not there"):
        load_checkpoint(resnet20(), tmp_path / "absent.th")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken"])
def test_broken_file_is_named(tmp_path, content):
    (tmp_path / "broken.th").write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.th cannot be read"):
        load_checkpoint(resnet20(), tmp_path / "broken.th")


@pytest.mark.parametrize(
    "content",
    [{"model": {}}, [1, 2], {"state_dict": torch.zeros(2)}, {"state_dict": {"conv1.weight": 3}}],
)
def test_file_without_weights_is_named(tmp_path, content):
    torch.save(content, tmp_path / "other.th")
    with pytest.raises(UserError, match=r"other\.th cannot be read"):
        load_checkpoint(resnet20(), tmp_path / "other.th")


def test_other_depth_names_the_first_keys(tmp_path):
    torch.save(published_form(build(ResNet32(), (3, 32, 32), 10, seed=0)), tmp_path / "deep.th")
    with pytest.raises(UserError, match=r"deep.th .*layer1.3.conv1.weight is not part.* 5\d more"):
        load_checkpoint(resnet20(), tmp_path / "deep.th")
    torch.save(published_form(resnet20()), tmp_path / "shallow.th")
    with pytest.raises(UserError, match=r"backbone\.layer1\.3\.conv1\.weight is missing"):
        load_checkpoint(build(ResNet32(), (3, 32, 32), 10, seed=0), tmp_path / "shallow.th")


def test_other_head_is_refused_and_nothing_changes(tmp_path):
    torch.save(published_form(resnet20(seed=0)), tmp_path / "ten.th")
    net = resnet20(classes=7, seed=1)
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(UserError, match=r"head.weight has shape \(10, 64\) where \(7, 64\)"):
        load_checkpoint(net, tmp_path / "ten.th")
    assert all(map(torch.equal, net.parameters(), before))


@pytest.mark.needs_data("cifar10")
def test_published_error_on_cifar10():
    """8.27 % of the 10,000 test images, the number of the checkpoint's authors."""
    from tlresearch.data.catalogue import load

    test = load("cifar10").test
    net = resnet20().eval().to(memory_format=torch.channels_last)
    load_checkpoint(net, Path(str(DATA)) / "weights/cifar10_resnet/resnet20-12fca82f.th")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CHECKPOINT_MEAN, CHECKPOINT_STD))
    errors = 0
    with torch.inference_mode():
        for x, y in zip(test.images.split(500), test.labels.split(500), strict=True):
            errors += int((net((x / 255 - mean) / std).argmax(1) != y).sum())
    assert abs(errors - 827) <= 2  # a tie of rounding may fall the other way on other hardware
