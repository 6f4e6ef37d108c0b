"""MobileNet v1 as a function: by hand, against timm, on real photographs."""

import math
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tlresearch.data import domain_tables, office_features
from tlresearch.functional.mobilenet import BLOCKS, _same, mobilenet_features


def random_weights(width: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    """Of a network whose first layer has `width` channels, by timm's names."""
    rng = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        scale = (2 / math.prod(shape[1:])) ** 0.5  # He's: signals neither grow nor die
        return torch.randn(*shape, dtype=dtype, generator=rng) * scale

    def norm(name: str, channels: int) -> dict[str, torch.Tensor]:
        centres = {"weight": 1.0, "running_var": 0.7, "bias": 0.0, "running_mean": 0.0}
        spread = torch.rand(4, channels, dtype=dtype, generator=rng) - 0.5
        rows = zip(centres.items(), spread, strict=True)
        return {f"{name}.{key}": centre + 0.4 * row for (key, centre), row in rows}

    found = {"conv_stem.weight": normal(width, 3, 3, 3), **norm("bn1", width)}
    inputs = width
    for stage, pairs in enumerate(BLOCKS):
        outputs = 2 * width * 2**stage
        for pair in range(pairs):
            name = f"blocks.{stage}.{pair}"
            found[f"{name}.conv_dw.weight"] = normal(inputs, 1, 3, 3)
            found[f"{name}.conv_pw.weight"] = normal(outputs, inputs, 1, 1)
            found |= norm(f"{name}.bn1", inputs) | norm(f"{name}.bn2", outputs)
            inputs = outputs
    return found


def test_a_first_layer_by_hand():
    """All later weights 0: what is left is relu6(β) of the last norm, the same for all."""
    weights = {k: torch.zeros_like(v) for k, v in random_weights().items()}
    last = f"blocks.{len(BLOCKS) - 1}.{BLOCKS[-1] - 1}.bn2.bias"
    weights[last] += torch.linspace(-3, 9, len(weights[last])).double()
    features = mobilenet_features(weights, torch.zeros(2, 3, 33, 40, dtype=torch.float64))
    expected = weights[last].clamp(0, 6).expand(2, -1)
    torch.testing.assert_close(features, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("size", "first"), [(6, 0), (7, -1)])
def test_padding_same_puts_the_odd_pixel_behind(size: int, first: int):
    """Of 6 rows with stride 2, kernel rows begin at 0, 2, 4; of 7 at -1, 1, 3, 5."""
    x = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    kernel = torch.arange(9.0).view(1, 1, 3, 3)
    found = _same(x, kernel, 2)
    places = range(first, size - 1, 2)
    assert found.shape[2:] == (len(places), len(places))
    for i, row in enumerate(places):
        for j, column in enumerate(places):
            expected = sum(
                kernel[0, 0, a, b] * x[0, 0, row + a, column + b]
                for a in range(3)
                for b in range(3)
                if 0 <= row + a < size and 0 <= column + b < size
            )
            torch.testing.assert_close(found[0, 0, i, j], torch.as_tensor(expected))


@pytest.mark.parametrize("side", [32, 45])
def test_timm_has_the_same_features(side: int):
    """Its own module, with padding `same` and ε = 1e-3, in float64."""
    timm = pytest.importorskip("timm.models.efficientnet")
    weights = random_weights(8)
    net = timm._gen_mobilenet_v1(
        "mobilenetv1_100",
        channel_multiplier=0.25,
        fix_stem_head=False,
        pretrained=False,
        pad_type="same",
        bn_eps=1e-3,
        num_classes=0,
    ).double()
    counters = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    net.load_state_dict(weights | counters)
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, side, side + 6, dtype=torch.float64, generator=rng) * 2 - 1
    with torch.no_grad():
        expected = net.eval()(x)
    torch.testing.assert_close(mobilenet_features(weights, x), expected, atol=1e-10, rtol=1e-10)
    assert (expected[0] - expected[1]).abs().max() > 0.01  # the input matters


def test_pixels_are_taken_to_minus_one_and_one():
    images = torch.tensor([0, 255]).byte().view(2, 1, 1, 1).expand(2, 3, 32, 32).contiguous()
    weights = random_weights()
    ends = torch.tensor([-1.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 3, 32, 32)
    expected = mobilenet_features(weights, ends)
    torch.testing.assert_close(office_features.features(weights, images), expected)


@pytest.mark.needs_data("office_mobilenet_dslr")
def test_pretrained_features_tell_the_objects_apart():
    """40 photographs of dslr, leave-one-out 1-NN: far above chance (10 %), and random weights."""
    root = Path(os.environ["TLRESEARCH_DATA"])
    data = domain_tables.read("office_dslr", root).train
    some = torch.arange(0, 157, 4)
    labels = data.labels[some]

    def accuracy(weights: dict[str, torch.Tensor]) -> float:
        z = F.normalize(office_features.features(weights, data.images[some]).float())
        nearest = torch.cdist(z, z).fill_diagonal_(torch.inf).argmin(1)
        return (labels[nearest] == labels).double().mean().item()

    assert accuracy(office_features.read_weights(root)) > 0.8
    assert accuracy(random_weights(8, torch.float32)) < 0.6
