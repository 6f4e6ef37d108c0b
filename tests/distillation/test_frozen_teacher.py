"""A teacher that is never changed, and answers for each row alone."""

from typing import Any

import pytest
import torch
from torch import nn

from tlresearch.distillation.frozen_teacher import FrozenTeacher, TeacherChanged
from tlresearch.errors import UserError


def network(seed: int = 0, units: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, units), nn.BatchNorm1d(units), nn.ReLU(), nn.Dropout(), nn.Linear(units, 3)
    )


def inputs(rows: int = 10) -> torch.Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(1))


def test_a_teacher_in_train_mode_is_put_in_evaluation_mode():
    """Batch norm's statistics stay, dropout drops nothing, and nothing asks for a gradient."""
    net = network().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    teacher, digest = FrozenTeacher(net), FrozenTeacher(network()).state_digest()
    net.train()  # as a parent's train() would do
    x = inputs().requires_grad_()
    logits = teacher.logits(x)
    assert not logits.requires_grad and not any(p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not any(m.training for m in net.modules())
    torch.testing.assert_close(logits, network().eval()(x).detach())
    teacher.unchanged()
    assert teacher.state_digest() == digest


@pytest.mark.parametrize("name", ["0.weight", "1.running_mean", "1.num_batches_tracked", "4.bias"])
def test_a_changed_tensor_is_named(name):
    """To the byte: −0 for 0 counts, although they are equal."""
    net: Any = network()
    nn.init.zeros_(net[4].bias)
    teacher = FrozenTeacher(net)
    digest = teacher.state_digest()
    with torch.no_grad():
        if name == "4.bias":
            net[4].bias[1] = -0.0
        else:
            net.state_dict()[name].add_(1)
    with pytest.raises(TeacherChanged, match=f"'{name}' changed"):
        teacher.unchanged()
    assert teacher.state_digest() != digest
    assert issubclass(TeacherChanged, AssertionError)


def test_several_changed_tensors_are_counted():
    teacher = FrozenTeacher(net := network())
    net.train()
    net(inputs())
    with pytest.raises(TeacherChanged, match=r"'1.running_mean' and 2 more changed"):
        teacher.unchanged()


def test_digests_tell_states_types_and_architectures_apart():
    same = FrozenTeacher(network()), FrozenTeacher(network())
    assert same[0].state_digest() == same[1].state_digest()
    assert same[0].digest() == same[1].digest()
    relu, gelu = network(), network()
    gelu[2] = nn.GELU()
    assert FrozenTeacher(relu).state_digest() == FrozenTeacher(gelu).state_digest()
    others = [gelu, network(1), network(units=7), network().double(), network().bfloat16()]
    digests = {FrozenTeacher(net).digest() for net in [relu, *others]}
    assert len(digests) == 6


@pytest.mark.parametrize("kind", ["mlp", "convolutions"])
def test_an_answer_depends_on_its_row_alone(kind):
    """To the bit in float32, whatever the batch: Hinton's teacher, a small convolutional network.

    Without the fixed chunk the first differs for 1 row and for 128 (measured, torch 2.14).
    """
    torch.manual_seed(0)
    if kind == "mlp":
        net = nn.Sequential(
            *(nn.Flatten(), nn.Linear(784, 1200), nn.ReLU(), nn.Linear(1200, 1200), nn.ReLU()),
            nn.Linear(1200, 10),
        )
    else:
        net = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(4)),
            *(nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(400, 10)),
        )
    teacher, x = FrozenTeacher(net), torch.randn(150, 1, 28, 28)
    logits = teacher.logits(x)
    order = torch.randperm(150)
    assert torch.equal(teacher.logits(x[order]), logits[order])
    for rows in ([3], [149, 3], list(range(5, 20))):
        assert torch.equal(teacher.logits(x[rows]), logits[rows])
    torch.testing.assert_close(logits, net(x), rtol=1e-5, atol=1e-6)


def test_where_a_chunk_lies_in_memory_is_nothing_to_its_bits():
    """Every chunk of a larger batch begins as a batch of its own would; rows of 40 bytes here."""
    torch.manual_seed(0)
    teacher, x = FrozenTeacher(nn.Linear(10, 4)), torch.randn(150, 10)
    addresses = []
    teacher.network.register_forward_pre_hook(lambda _, args: addresses.append(args[0].data_ptr()))
    logits = teacher.logits(x, 17)
    assert {address % 64 for address in addresses} == {0}
    alone = [teacher.logits(part.clone(), 17) for part in x.split(17)]
    assert torch.equal(torch.cat(alone), logits)


def test_features_come_with_the_logits():
    net = network().eval()
    x = inputs(11)
    logits, features = FrozenTeacher(net).outputs(x, ["0", "2"], chunk=4)
    assert list(features) == ["0", "2"] and logits.shape == (11, 3)
    torch.testing.assert_close(features["0"], net[0](x))
    torch.testing.assert_close(features["2"], net[:3](x))
    with pytest.raises(UserError, match="no module '9'"):
        FrozenTeacher(net).outputs(x, ["9"])


def test_autocast_of_the_student_is_not_the_teachers():
    teacher, x = FrozenTeacher(network()), inputs()
    alone = teacher.logits(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(teacher.logits(x), alone)
