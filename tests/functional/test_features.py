"""What all losses on features must have in common, and the functions that they share."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, vmap

from tlresearch.functional.attention_transfer import attention_transfer_loss
from tlresearch.functional.contrastive_distillation import contrastive_loss
from tlresearch.functional.features import length, pooled_alike, prepared, scaled, unit
from tlresearch.functional.hints import hint_loss
from tlresearch.functional.probability_transfer import probability_transfer_loss
from tlresearch.functional.relations import angle_loss, distance_loss, relational_loss
from tlresearch.functional.similarity import similarity_loss

F64 = torch.float64
POSITIVE = torch.tensor([2, 0, 3, 1])
NEGATIVES = torch.tensor([[0, 1, 3], [1, 1, 2], [0, 1, 2], [3, 0, 2]])


def contrastive(student: Tensor, teacher: Tensor) -> Tensor:
    """CRD with the teacher's features as the memory."""
    s, t = student.flatten(1), teacher.flatten(1)
    return contrastive_loss(s, t, POSITIVE, NEGATIVES, 1.0, 0.5)


LOSSES = {
    "hints": hint_loss,
    "hints of the paper": lambda s, t: hint_loss(s, t, "paper"),
    "attention": attention_transfer_loss,
    "attention of the paper": lambda s, t: attention_transfer_loss(s, t, form="paper"),
    "attention, third power": lambda s, t: attention_transfer_loss(s, t, 3.0),
    "similarity": similarity_loss,
    "distances": distance_loss,
    "angles": angle_loss,
    "relations": relational_loss,
    "probabilities": probability_transfer_loss,
    "probabilities of the paper": lambda s, t: probability_transfer_loss(s, t, "paper"),
    "contrastive": contrastive,
}
MATCHING = [name for name in LOSSES if name != "contrastive"]
SCALE_FREE = [name for name in LOSSES if not name.startswith(("hints", "contrastive"))]


def maps(seed: int, dtype: torch.dtype = F64, side: int = 2) -> Tensor:
    """Features of four samples, three channels."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, side, side, dtype=F64, generator=rng).to(dtype)


@pytest.mark.parametrize("name", LOSSES)
def test_no_gradient_flows_to_the_teacher(name: str):
    """And one flows to the student."""
    s, t = maps(0).requires_grad_(), maps(1).requires_grad_()
    LOSSES[name](s, t).backward()
    assert t.grad is None
    assert s.grad is not None and s.grad.abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_the_finite_difference(name: str):
    s, t = maps(0).requires_grad_(), maps(1)
    assert torch.autograd.gradcheck(lambda s: LOSSES[name](s, t), (s,))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_map_over_seeds(name: str):
    """As one after the other."""
    s = torch.stack([maps(i) for i in range(3)])
    t = torch.stack([maps(9 + i) for i in range(3)])
    for function in (LOSSES[name], grad(LOSSES[name])):
        alone = torch.stack([function(a, b) for a, b in zip(s, t, strict=True)])
        mapped = vmap(function, randomness="error")(s, t)
        torch.testing.assert_close(mapped, alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["attention", "hints"])
def test_maps_of_different_size_map_over_seeds(name: str):
    s = torch.stack([maps(i, side=4) for i in range(2)])
    t = torch.stack([maps(9 + i) for i in range(2)])
    for function in (LOSSES[name], grad(LOSSES[name])):
        alone = torch.stack([function(a, b) for a, b in zip(s, t, strict=True)])
        torch.testing.assert_close(vmap(function)(s, t), alone, atol=1e-12, rtol=0)


def extremes(dtype: torch.dtype) -> dict[str, Tensor]:
    x = maps(2, dtype)
    one_zero = x.clone()
    one_zero[1] = 0
    coinciding = x.clone()
    coinciding[1] = coinciding[0]
    return {
        "zero": torch.zeros_like(x),
        "large": 1e4 * x,
        "small": 1e-12 * x,
        "one zero": one_zero,
        "coinciding": coinciding,
        "all equal": torch.ones_like(x),
        "opposite": x * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=dtype)[:, None, None, None],
    }


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", LOSSES)
def test_finite_at_the_extremes(name: str, dtype: torch.dtype):
    """Value and gradient, whichever of the two networks is there, or both."""
    plain = maps(3, dtype)
    for strange in extremes(dtype).values():
        for s, t in ((strange, plain), (plain, strange), (strange, strange)):
            s = s.clone().requires_grad_()
            value = LOSSES[name](s, t)
            (gradient,) = torch.autograd.grad(value, s)
            assert value.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_feature_of_zeros_does_not_explode(name: str):
    """A direction of zeros has no gradient: none of a thousand and more, by a small divisor."""
    s = extremes(torch.float32)["one zero"].requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES[name](s, maps(3, torch.float32)), s)
    assert gradient.abs().max() < 1e3


@pytest.mark.parametrize("name", MATCHING)
def test_equal_features_give_the_least(name: str):
    """0, and gradient 0."""
    s = maps(0).requires_grad_()
    value = LOSSES[name](s, maps(0))
    (gradient,) = torch.autograd.grad(value, s)
    assert value.abs() < 1e-14 and gradient.abs().max() < 1e-12
    assert LOSSES[name](maps(1), maps(0)) > 0


@pytest.mark.parametrize("name", SCALE_FREE)
def test_the_scale_of_either_network_has_no_effect(name: str):
    loss, s, t = LOSSES[name], maps(0), maps(1)
    torch.testing.assert_close(loss(1e4 * s, t), loss(s, t), atol=1e-12, rtol=0)
    torch.testing.assert_close(loss(s, 1e-9 * t), loss(s, t), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", MATCHING)
def test_the_order_of_the_batch_has_no_effect(name: str):
    loss, s, t, order = LOSSES[name], maps(0), maps(1), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(loss(s[order], t[order]), loss(s, t), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_in_float32_under_autocast(name: str):
    """Half precision would overflow, and round the rest; so would bfloat16 products."""
    s, t = maps(0, torch.float32), maps(1, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        value = LOSSES[name](s, t)
    torch.testing.assert_close(value, LOSSES[name](s, t), atol=0, rtol=0)
    half = LOSSES[name](s.half(), t.half())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, LOSSES[name](s.half().float(), t.half().float()))


def test_prepared_and_scaled():
    s, t = prepared(maps(0, torch.float16), maps(1).requires_grad_())
    assert s.dtype == torch.float32 and t.dtype == F64 and not t.requires_grad
    x = torch.tensor([[1.0, -4.0], [0.0, 0.0]])
    assert scaled(x).tolist() == [[0.25, -1.0], [0.0, 0.0]]
    assert scaled(2 * x[[1, 0]], each=True).tolist() == [[0.0, 0.0], [0.25, -1.0]]


def test_directions_and_lengths():
    """PyTorch's, from 1e-18 to 1e30 without overflow; of 0 they are 0 with gradient 0."""
    x = maps(0).flatten(1)
    torch.testing.assert_close(unit(x), F.normalize(x, dim=1), atol=1e-14, rtol=0)
    torch.testing.assert_close(length(x), torch.linalg.vector_norm(x, dim=1))
    for scale in (1e-18, 1e30):
        wild = unit((scale * x).float())
        torch.testing.assert_close(wild, F.normalize(x, dim=1).float())
    for function in (lambda x: unit(x).sum(), lambda x: length(x).sum()):
        zero = torch.zeros(2, 3, requires_grad=True)
        value = function(zero)
        (gradient,) = torch.autograd.grad(value, zero)
        assert value == 0 and gradient.abs().max() == 0
    assert torch.autograd.gradcheck(unit, (x.requires_grad_(),))
    assert torch.autograd.gradgradcheck(unit, (x.requires_grad_(),))


def test_the_larger_map_is_averaged_by_hand():
    """2 x 4 and 1 x 2: cells of 2 x 2; rows and columns each for themselves."""
    x = torch.arange(8.0).view(1, 1, 2, 4)
    small = torch.zeros(1, 2, 1, 2)
    first, second = pooled_alike(x, small)
    assert first.tolist() == [[[[2.5, 4.5]]]] and second is small
    first, second = pooled_alike(torch.ones(1, 1, 3, 1), x)
    assert first.shape == (1, 1, 2, 1) and second.flatten().tolist() == [1.5, 5.5]
