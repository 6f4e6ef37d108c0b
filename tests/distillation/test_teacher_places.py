"""Kept and asked answers are equal to the bit also where bits depend on a row's place."""

import pytest
import torch
from small_lessons import Lessons, same_bits
from torch import Tensor, nn

from tlresearch.backbones import build
from tlresearch.backbones.mlp import MLP
from tlresearch.data.catalogue import ImageData
from tlresearch.data.formats import Split
from tlresearch.distillation.fitnets import FitNets
from tlresearch.distillation.frozen_teacher import FrozenTeacher
from tlresearch.distillation.live_teacher import LiveTeacher
from tlresearch.distillation.settings import TeacherSettings
from tlresearch.distillation.teacher_cache import kept
from tlresearch.distillation.views import Views
from tlresearch.functional import random


class Placed(nn.Module):
    """Its last digits depend on a row's place, by the period of rows of 10 numbers in memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        late = torch.arange(len(x)) % 2
        return x * (1 + 1e-6 * late).view(-1, *(1,) * (x.ndim - 1))


class Last(nn.Module):
    """The last row's are others, as where a loop over the rows has a rest."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:-1], x[-1:] * (1 + 1e-6)])


@pytest.mark.parametrize("kind", [Placed, Last])
def test_it_is_found_out_whether_the_place_matters(kind):
    """To the logits, or to a feature alone; elementwise operations on numbers do not."""
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    plain = FrozenTeacher(nn.Sequential(nn.ReLU(), nn.Identity()))
    assert not plain.place_matters(x) and not plain.place_matters(x, ["0"])
    assert FrozenTeacher(nn.Sequential(nn.ReLU(), kind())).place_matters(x)
    hidden = FrozenTeacher(nn.Sequential(kind(), nn.Threshold(torch.inf, 0.0)))
    assert hidden.place_matters(x, ["0"]) and not hidden.place_matters(x)


def noise(keys: Tensor, x: Tensor) -> Tensor:
    return x + random.uniform(keys, tuple(x.shape[1:]))


def live(net: nn.Module, count: int = 1, taps: tuple[str, ...] = ()) -> LiveTeacher:
    """On 30 images of 3 x 4, by chunks of 8; of several views with noise."""
    pixels = torch.rand(30, 1, 3, 4, generator=torch.Generator().manual_seed(2))
    augment = noise if count > 1 else None
    views = Views(pixels, "noise", augment=augment, recipe="tried", count=count)
    return LiveTeacher(FrozenTeacher(net), views, taps, 8)


BATCHES = {
    "in order": torch.arange(30),
    "backwards": torch.arange(30).flip(0),
    "as many as a chunk": torch.tensor([8, 1, 2, 11, 12, 29, 6, 15]),
    "the same places": torch.arange(5, 30, 8),
    "repeated": torch.tensor([[3, 29, 3], [0, 3, 12]]),
    "one": torch.tensor([29]),
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("kind", [Placed, Last])
def test_where_the_place_matters_each_sample_has_its_own(kind, batch, tmp_path, capsys):
    """So that live and kept answers are equal to the bit on a machine of any habits."""
    net = nn.Sequential(nn.Flatten(), kind(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    teacher = live(net, 2, ("1",))
    assert teacher.by_place
    found, indices = kept(teacher, tmp_path), BATCHES[batch]
    assert found is not teacher
    for view in (0, 1, indices % 2):
        ours, asked = found.outputs(indices, view), teacher.outputs(indices, view)
        assert torch.equal(ours.logits, asked.logits)
        assert torch.equal(ours.features["1"], asked.features["1"])
        assert torch.equal(teacher.logits(indices, view), asked.logits)
    assert capsys.readouterr().err == ""


def test_where_the_place_is_nothing_a_batch_is_one_pass():
    """As it comes: four passes to find that out, then one for a batch."""
    net, asked = nn.Sequential(nn.Flatten(), nn.ReLU()), []
    net.register_forward_pre_hook(lambda module, args: asked.append(args[0]))
    teacher = live(net)
    for batch in (BATCHES["as many as a chunk"], 8 * torch.arange(3)):
        teacher.logits(batch)
        assert torch.equal(asked[-1][: len(batch)], teacher.views.inputs(batch))
    assert not teacher.by_place and len(asked) == 6


@pytest.mark.parametrize("side, hidden", [(8, 30), (28, 30), (8, 10), (8, 31)])
def test_small_networks_answer_the_same_kept_and_asked(side, hidden, tmp_path):
    """Linear layers of 10, 30 and 31 inputs, whose last digits are a matter of the place here."""
    pixels = torch.rand(300, 1, side, side, generator=torch.Generator().manual_seed(2))
    frozen = FrozenTeacher(build(MLP(hidden=(hidden,)), (1, side, side), 10, 1))
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    for chunk in (16, 50, 128):
        teacher = LiveTeacher(frozen, Views(pixels, "noise"), chunk=chunk)
        found = kept(teacher, tmp_path)
        for batch in order.split(chunk):
            assert torch.equal(found.logits(batch), teacher.logits(batch))


@pytest.fixture
def lessons(monkeypatch, tmp_path) -> Lessons:
    """On images of 8 x 8 of ten classes."""
    lessons = Lessons(monkeypatch, tmp_path)
    generator = torch.Generator().manual_seed(0)

    def split(rows: int) -> Split:
        pixels = torch.randint(0, 256, (rows, 1, 8, 8), dtype=torch.uint8, generator=generator)
        return Split(pixels, torch.arange(rows) % 10)

    lessons.data = ImageData("tiny", split(200), split(20), tuple("abcdefghij"), "here", "1")
    return lessons


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("units", [10, 30])
def test_small_teachers_make_the_same_student_kept_and_live(units, threads, lessons, request):
    """Whole runs in float32, on logits and features of a teacher of 10 or 30 units."""
    before = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(before))
    torch.set_num_threads(threads)
    teacher = TeacherSettings(backbone={"name": "mlp", "hidden": [units, units]})
    method = FitNets(alpha=0.5, weight=1.0, teacher=teacher)
    more = {"batch_size": 32, "precision": "fp32", "steps": 6}
    kept, asked = (
        lessons.run(method, [0], MLP(hidden=(units,)), cache=cache, **more)[0].weights
        for cache in (True, False)
    )
    assert len(list(lessons.folder.rglob("logits.npy"))) == 1
    assert same_bits(kept, asked)
