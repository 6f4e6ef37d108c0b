"""Steps by hand in plain PyTorch; teachers that are kept, asked, frozen; students in train mode."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_lessons import CLASSES, NOISY, PLAIN, SHAPE, Lessons, assert_close, same_bits, tiny
from torch import Tensor, nn

from tlresearch.backbones.classifier import Classifier
from tlresearch.backbones.mlp import MLP
from tlresearch.distillation import protocol, teaching
from tlresearch.distillation.batches import TaughtBatches
from tlresearch.distillation.dkd import DKD
from tlresearch.distillation.fitnets import FitNets
from tlresearch.distillation.frozen_teacher import FrozenTeacher, TeacherChanged
from tlresearch.distillation.kd import KD
from tlresearch.distillation.method import DistillationMethod
from tlresearch.distillation.mutual import MutualLearning
from tlresearch.distillation.pruned import Pruned
from tlresearch.distillation.settings import TeacherSettings
from tlresearch.distillation.student import StudentAlone
from tlresearch.functional import random

WIDE = {"name": "mlp", "hidden": [16]}
TEACHER = TeacherSettings(backbone=WIDE, train={"steps": 3})
BY_HAND: dict[str, Any] = {"steps": 2, "clip": 0.0}


@pytest.fixture
def lessons(monkeypatch, tmp_path):
    return Lessons(monkeypatch, tmp_path)


def classifier(hidden: int) -> Classifier:
    """From torch's generator."""
    return Classifier(MLP(hidden=(hidden,)).build(SHAPE), CLASSES)


def batches(lessons: Lessons, seed: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Of 8 of the images that are not held out, in the seed's order; pixels / 255."""
    kept = lessons.images().kept
    order = random.permutation(random.make_key(seed, "batches of distillation", 0), len(kept))
    for step in range(steps):
        places = kept[order[8 * step : 8 * step + 8]]
        yield lessons.data.train.images[places].double() / 255, lessons.data.train.labels[places]


def trained(lessons: Lessons, seed: int, steps: int, networks: list[nn.Module], loss: Any) -> None:
    """By torch's SGD."""
    parameters = [p for network in networks for p in network.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    for x, y in batches(lessons, seed, steps):
        optimizer.zero_grad()
        loss(x, y).backward()
        optimizer.step()


def drawn(seed: int, *makers: Callable[[], nn.Module]) -> list[nn.Module]:
    """Networks in float64, drawn one after the other."""
    torch.manual_seed(seed)
    return [make().double() for make in makers]


def teacher_by_hand(lessons: Lessons, seed: int) -> Any:
    """Three steps on labels."""
    (network,) = drawn(seed, lambda: classifier(16))
    trained(lessons, seed, 3, [network], lambda x, y: F.cross_entropy(network(x), y))
    return network.eval()


def softened(logits: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    log_q = (logits / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(log_q, probabilities, reduction="batchmean")


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_soft_targets_by_hand(lessons, alpha, copies):
    """(1 − α) · cross-entropy + α T² KL to the mean of the copies' probabilities at T."""
    its = [teacher_by_hand(lessons, 1_000_000 + 1000 * m) for m in range(copies)]
    (student,) = drawn(0, lambda: classifier(8))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            p = torch.stack([(teacher(x) / 3).softmax(-1) for teacher in its]).mean(0)
        z = student(x)
        return (1 - alpha) * F.cross_entropy(z, y) + alpha * softened(z, p, 3.0)

    trained(lessons, 0, 2, [student], loss)
    method = KD(alpha=alpha, temperature=3.0, teacher=replace(TEACHER, copies=copies))
    (found,) = lessons.run(method, [0], PLAIN, **BY_HAND)
    assert_close(found.weights, student.state_dict(), 1e-12)


def test_several_teachers_of_dkd_by_hand(lessons):
    """Both parts with weight 1 and the doubt in front are KL: of the mean probabilities at T."""
    its = [teacher_by_hand(lessons, 1_000_000 + 1000 * m) for m in range(2)]
    (student,) = drawn(0, lambda: classifier(8))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            p = torch.stack([(teacher(x) / 4).softmax(-1) for teacher in its]).mean(0)
        z, of_label = student(x), F.one_hot(y, CLASSES).double()
        q = (z / 4).softmax(-1)
        both = [(d * of_label).sum(-1) for d in (p, q)]
        pairs = [torch.stack([b, 1 - b], -1) for b in both]
        target = (pairs[0] * (pairs[0] / pairs[1]).log()).sum(-1)
        hats = [
            d * (1 - of_label) / (1 - b).unsqueeze(-1) for d, b in zip((p, q), both, strict=True)
        ]
        others = (hats[0] * ((hats[0] + of_label) / (hats[1] + of_label)).log()).sum(-1)
        return F.cross_entropy(z, y) + 16 * (target + 2 * others).mean()

    trained(lessons, 0, 2, [student], loss)
    method = DKD(beta=2.0, teacher=replace(TEACHER, copies=2))
    (found,) = lessons.run(method, [0], PLAIN, **BY_HAND)
    assert_close(found.weights, student.state_dict(), 1e-12)


def test_hints_by_hand(lessons):
    """Cross-entropy, and 2 times the mean squared error of a regressor of the feature."""
    teacher = teacher_by_hand(lessons, 1_000_000)
    student, regressor = drawn(0, lambda: classifier(8), lambda: nn.Linear(8, 16))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        hint = teacher.backbone(x).detach()
        mine: Any = student
        error = F.mse_loss(regressor(mine.backbone(x)), hint)
        return F.cross_entropy(student(x), y) + 2 * error

    trained(lessons, 0, 2, [student, regressor], loss)
    (found,) = lessons.run(
        FitNets(weight=2.0, batch_norm=False, teacher=TEACHER), [0], PLAIN, **BY_HAND
    )
    assert_close(found.weights, student.state_dict(), 1e-12)
    extras = lessons.students[-1].training.stack.one(0).extras["regressor_1"]  # type: ignore[union-attr]
    assert_close(extras.state_dict(), regressor.state_dict(), 1e-12)


@pytest.mark.parametrize("cache", [False, True])
def test_two_layers_learn_from_one_by_hand(lessons, cache):
    """Each of the student's features has a regressor of its own to the same feature."""
    teacher = teacher_by_hand(lessons, 1_000_000)
    (student, *regressors) = drawn(
        0, lambda: classifier(8), lambda: nn.Linear(8, 16), lambda: nn.Linear(CLASSES, 16)
    )

    def loss(x: Tensor, y: Tensor) -> Tensor:
        hint, mine = teacher.backbone(x).detach(), student(x)
        errors = [
            F.mse_loss(regressor(feature), hint)
            for regressor, feature in zip(regressors, (student.backbone(x), mine), strict=True)  # type: ignore[operator]
        ]
        return F.cross_entropy(mine, y) + 2 * sum(errors, torch.zeros(()))

    trained(lessons, 0, 2, [student, *regressors], loss)
    method = FitNets(
        student=("backbone", "head"), of_teacher=("backbone", "backbone"), weight=2.0,
        batch_norm=False, teacher=TEACHER,
    )  # fmt: skip
    (found,) = lessons.run(method, [0], PLAIN, cache=cache, **BY_HAND)
    assert_close(found.weights, student.state_dict(), 1e-12)


def test_mutual_learning_by_hand(lessons):
    """Both networks' cross-entropy and each one's divergence from the other, which is constant."""
    first, second = drawn(0, lambda: classifier(8), lambda: classifier(8))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        z = [first(x), second(x)]
        total = F.cross_entropy(z[0], y) + F.cross_entropy(z[1], y)
        p = [one.detach().softmax(-1) for one in z]
        return total + 0.5 * (softened(z[0], p[1], 1.0) + softened(z[1], p[0], 1.0))

    trained(lessons, 0, 2, [first, second], loss)
    (found,) = lessons.run(MutualLearning(weight=0.5), [0], PLAIN, **BY_HAND)
    assert_close(found.weights, first.state_dict(), 1e-12)


def test_the_ramp_rises_with_the_steps(lessons):
    """Half of eight steps: weights 0, ¼, ½, ¾, then 1."""
    method, seen = DKD(teacher=TEACHER, ramp=0.5), []
    lessons.run(method, [0], PLAIN, steps=1)
    networks: Any = lessons.students[-1].training.stack.module
    for step in range(8):
        logits = torch.zeros(2, CLASSES, dtype=torch.float64)
        progress = torch.tensor(step / 8, dtype=torch.float64)
        y = torch.arange(2)
        batch = method.Batch(torch.zeros(2, *SHAPE), y, logits.unsqueeze(0), y, progress)
        seen.append(float(method.terms(networks, logits, [], batch)["dkd"].weight))
    assert seen == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]


METHODS = {
    "kd": KD(teacher=TEACHER),
    "taps": FitNets(alpha=0.5, teacher=TEACHER),
    "pruned": Pruned(ratio=0.4),
}
VIEWS: dict[str, dict[str, Any]] = {
    "images": {},
    "views": {"shift": 1, "flip": True, "views": 2},
    "few": {"transfer_samples": 12, "precision": "fp64"},
}


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("name", METHODS)
def test_a_kept_teacher_is_the_live_one_to_the_bit(lessons, name, views):
    """And the second time it is read and not made."""
    more = {"precision": "fp32", "seeds": [0, 1]} | VIEWS[views]
    live = lessons.run(METHODS[name], cache=False, **more)
    made = sorted(lessons.folder.glob("cache/**/*.npy"))
    assert made == []
    for _ in range(2):
        kept = lessons.run(METHODS[name], cache=True, **more)
        assert all(same_bits(a.weights, b.weights) for a, b in zip(live, kept, strict=True))
        now = {p: p.stat().st_mtime_ns for p in lessons.folder.glob("cache/**/*.npy")}
        assert now and made in ([], now)
        made = now


def test_kept_answers_are_not_confused(lessons):
    """Of another teacher, data set, part of it, view or number of views, each against the live."""
    cases: list[tuple[Any, dict[str, Any]]] = [
        (KD(teacher=TEACHER), {}),
        (KD(teacher=replace(TEACHER, seed=5)), {}),
        (KD(teacher=TEACHER), {"samples": 40}),
        (KD(teacher=TEACHER), {"shift": 1, "views": 1}),
        (KD(teacher=TEACHER), {"shift": 1, "views": 3}),
        (KD(teacher=TEACHER), {"shift": 2, "views": 1}),
        (KD(teacher=TEACHER), {"flip": True, "views": 1}),
        (KD(teacher=TEACHER), {"normalise": "standard"}),
    ]
    datasets = [tiny(), replace(tiny(21), fingerprint="2")]
    ends = []
    for cache in (True, False):
        for data in datasets:
            lessons.data = data
            runs = [lessons.run(m, cache=cache, precision="fp32", **more)[0] for m, more in cases]
            ends.append([run.weights for run in runs])
    for kept, live in zip(ends[0] + ends[1], ends[2] + ends[3], strict=True):
        assert same_bits(kept, live)
    plain = [weights["backbone.layers.0.weight"] for weights in ends[0] + ends[1]]
    assert not any(torch.equal(a, b) for i, a in enumerate(plain) for b in plain[:i])


@pytest.mark.parametrize("views", [0, 3])
def test_a_student_sees_what_its_teacher_answers_for(lessons, views, monkeypatch):
    """Step t sees view t where views are fresh; of K one for each image, drawn by the seed."""
    asked, seen = [], []
    outputs, batch = FrozenTeacher.outputs, TaughtBatches.batch

    def asking(self, x, taps=(), chunk=128):
        asked.append(x)
        return outputs(self, x, taps, chunk)

    def seeing(self, step):
        found = batch(self, step)
        if self.teachers[0]:
            seen.append((self, step, found))
        return found

    monkeypatch.setattr(FrozenTeacher, "outputs", asking)
    monkeypatch.setattr(TaughtBatches, "batch", seeing)
    more: dict[str, Any] = {"cache": False} if views else {}
    lessons.run(KD(teacher=TEACHER), [4], PLAIN, shift=1, flip=True, views=views, **more)
    assert len(seen) == 4
    images, all_views = lessons.images(), set()
    for x, (batches, step, (student_x, y, said, positions, progress)) in zip(
        asked, seen, strict=False
    ):
        places = images.kept[positions]
        assert torch.equal(x, student_x[0]) and progress.tolist() == [step / 4]
        assert torch.equal(y[0], images.labels[places[0]])
        which: Any = step
        if views:
            which = random.integers(random.make_key(4, "which view", step), views, (8,))
            all_views |= set(which.tolist())
        own = images.views(1, True, 4, max(views, 1))
        assert torch.equal(student_x[0], own.inputs(places[0], which))
        teacher = batches.teachers[0][0].teacher.network
        torch.testing.assert_close(said[0, 0], teacher(x), atol=1e-12, rtol=0)
    assert len(all_views) == views


STRICT = TeacherSettings(backbone={"name": "conv4", "channels": 4, "pools": 2})
DROPPING = TeacherSettings(
    backbone={"name": "mlp", "hidden": [12], "norm": "batch", "dropout": 0.5}
)


@pytest.mark.parametrize("views", [{}, {"shift": 1}], ids=["images", "fresh"])
@pytest.mark.parametrize("teacher", [STRICT, DROPPING], ids=["conv4", "mlp"])
def test_modes_and_the_teachers_bytes(lessons, teacher, views, monkeypatch):
    """A teacher with batch norm and dropout answers in evaluation mode and keeps every byte, and
    the student is in train mode at every step, with evaluations in between."""
    students, teachers, digests = [], [], []
    loss, chunk, trained = DistillationMethod.loss, FrozenTeacher._chunk, teaching.School._trained

    def student_loss(self, networks, state, batch):
        students.append([self, {module.training for module in networks.modules()}])
        return loss(self, networks, state, batch)

    def teacher_chunk(self, *args):
        teachers.append({module.training for module in self.network.modules()})
        return chunk(self, *args)

    def kept(self, *args):
        network = trained(self, *args)
        digests.append((network, FrozenTeacher(network).state_digest()))
        return network

    monkeypatch.setattr(DistillationMethod, "loss", student_loss)
    monkeypatch.setattr(FrozenTeacher, "_chunk", teacher_chunk)
    monkeypatch.setattr(teaching.School, "_trained", kept)
    method = FitNets(alpha=0.5, teacher=teacher)
    lessons.run(
        method, [0], NOISY, steps=5, checkpoint="selected", evaluate_every=2, cache=False, **views
    )
    assert [kind for kind, _ in students].count(method) == 5
    assert all(modes == {True} for _, modes in students)
    assert teachers and all(modes == {False} for modes in teachers)
    ((network, before),) = digests
    assert FrozenTeacher(network).state_digest() == before


def test_a_teacher_that_changes_is_no_teacher(lessons, monkeypatch):
    """Whoever changes it: the run ends with its tensor's name and no record."""
    batch = TaughtBatches.batch

    def spoiling(self, step):
        if self.teachers[0]:
            self.teachers[0][0].teacher.network.backbone.layers[1].running_mean += 1e-12
        return batch(self, step)

    monkeypatch.setattr(TaughtBatches, "batch", spoiling)
    with pytest.raises(TeacherChanged, match=r"backbone\.layers\.1\.running_mean"):
        lessons.run(KD(teacher=DROPPING), [0], PLAIN, cache=False)


def test_a_teacher_is_no_part_of_its_student(lessons):
    """Not in its record, nor in what the optimiser steps."""
    (found,) = lessons.run(KD(teacher=DROPPING), [0], PLAIN)
    (plain,) = lessons.run(StudentAlone(), [0], PLAIN)
    assert found.weights.keys() == plain.weights.keys()
    assert lessons.students[0].training.stack.leaves.keys() == plain.weights.keys()
    assert protocol.ONE_PROCESS
