"""What is measured, against loops; last and selected weights; shifts of absent classes."""

import math
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.optimize import minimize_scalar
from small_lessons import MAPS, NOISY, PLAIN, SETTINGS, SHAPE, Lessons, changed
from torch import Tensor

from tlresearch.backbones import build
from tlresearch.distillation import protocol, report
from tlresearch.distillation.batches import TaughtBatches
from tlresearch.distillation.course import Course
from tlresearch.distillation.frozen_teacher import FrozenTeacher
from tlresearch.distillation.kd import KD
from tlresearch.distillation.mutual import MutualLearning
from tlresearch.distillation.networks import Student
from tlresearch.distillation.settings import TeacherSettings
from tlresearch.distillation.student import StudentAlone
from tlresearch.distillation.teacher import TeacherItself
from tlresearch.training.settings import Train

F64 = torch.float64
TEACHER = TeacherSettings(backbone={"name": "mlp", "hidden": [16]}, train={"steps": 3})


@pytest.fixture
def lessons(monkeypatch, tmp_path):
    return Lessons(monkeypatch, tmp_path)


def rows(logits: Tensor) -> list[list[float]]:
    """Probabilities, by Python."""
    found = []
    for row in logits.tolist():
        terms = [math.exp(z - max(row)) for z in row]
        found.append([term / sum(terms) for term in terms])
    return found


def ece_of(probabilities: list[list[float]], labels: list[int]) -> float:
    """15 bins, sample by sample."""
    total = 0.0
    for m in range(15):
        gaps = [
            (row.index(max(row)) == y) - max(row)
            for row, y in zip(probabilities, labels, strict=True)
            if m / 15 < max(row) <= (m + 1) / 15
        ]
        total += abs(sum(gaps))
    return total / len(labels)


def nll_of(logits: Tensor, labels: list[int]) -> float:
    picked = [math.log(row[y]) for row, y in zip(rows(logits), labels, strict=True)]
    return -sum(picked) / len(picked)


def test_measures_by_hand(lessons):
    """Of one run: every number of its record from the weights that it keeps."""
    (found,) = lessons.run(KD(teacher=TEACHER), [0], NOISY, steps=10)
    student = Student(NOISY.build(SHAPE), 4).double().eval()
    student.requires_grad_(False).load_state_dict(found.weights)
    teacher = lessons.teachers[0].training.stack.one(0).eval().requires_grad_(False)
    images = lessons.images()
    z, v = student(images.test), teacher(images.test)
    y, p, q = images.test_labels.tolist(), rows(v), rows(z)
    best = [row.index(max(row)) for row in q]
    errors = sum(a != b for a, b in zip(best, y, strict=True))
    kl = sum(
        a * math.log(a / b) for r, s in zip(p, q, strict=True) for a, b in zip(r, s, strict=True)
    )
    agree = [row.index(max(row)) == b for row, b in zip(p, best, strict=True)]
    held_out, its = student(images.train[images.held_out]), images.labels[images.held_out].tolist()
    fitted: Any = minimize_scalar(
        lambda t: nll_of(held_out / math.exp(t), its), bounds=(-7, 7), method="bounded",
        options={"xatol": 1e-12},
    )  # fmt: skip
    scale = math.exp(fitted.x)
    expected = {
        "errors": errors,
        "acc": 1 - errors / 24,
        "nll": nll_of(z, y),
        "ece": ece_of(q, y),
        "agreement": sum(agree) / 24,
        "kl_teacher": kl / 24,
        "parameters": 16 * 12 + 2 * 12 + 12 * 8 + 2 * 8 + 8 * 4 + 4,
        "flops": 2 * (16 * 12 + 12 * 8 + 8 * 4),
    }
    assert {k: found.metrics[k] for k in expected} == pytest.approx(expected, abs=1e-10)
    assert found.metrics["temperature"] == pytest.approx(scale, rel=1e-5)
    temperature = found.metrics["temperature"]
    assert found.metrics["nll_scaled"] == pytest.approx(nll_of(z / temperature, y), abs=1e-10)
    assert found.metrics["ece_scaled"] == pytest.approx(ece_of(rows(z / temperature), y), abs=1e-10)
    assert found.metrics.keys() == expected.keys() | set(report.CALIBRATED)


def test_what_a_method_adds_is_not_counted(lessons):
    """Peers are not the student; nor are they kept."""
    (alone,), (mutual,) = (lessons.run(m, [0], MAPS) for m in (StudentAlone(), MutualLearning()))
    for name in report.SIZES:
        assert mutual.metrics[name] == alone.metrics[name]
    sizes = 9 * 2 * 1 + 3 * 9 * 2 * 2 + 4 * (2 + 2 * 2) + (8 * 4 + 4)
    assert alone.metrics["parameters"] == sizes
    operations = 2 * (9 * 2 * 16 + 3 * 9 * 2 * 2 * 4 + 8 * 4)
    assert alone.metrics["flops"] == operations
    assert mutual.weights.keys() == alone.weights.keys()


def test_without_a_held_out_part_nothing_is_calibrated(lessons):
    (found,) = lessons.run(StudentAlone(), validation=0.0)
    assert found.metrics.keys() == {*report.FITS, *report.SIZES}
    assert len(lessons.images(validation=0.0).kept) == 80


def test_what_is_measured_on(lessons):
    """The held-out part where a selection asks; its size is 16, the test's 24."""
    found = {
        evaluate: lessons.run(StudentAlone(), evaluate=evaluate)[0].metrics
        for evaluate in ("test", "validation")
    }
    for evaluate, count in (("test", 24), ("validation", 16)):
        metrics = found[evaluate]
        assert metrics["acc"] == 1 - metrics["errors"] / count
    assert found["test"]["nll"] != found["validation"]["nll"]


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_last_and_selected_side_by_side(lessons, average, monkeypatch):
    """`acc` is of the last weights, which the record keeps, as with `checkpoint: last`;
    `acc_selected` of those that were best on the held-out part."""
    more: dict[str, Any] = {"steps": 9, "average": average, "seeds": [0, 1]}
    script = iter([torch.tensor(s, dtype=F64) for s in ([0.5, 0.1], [0.4, 0.9], [0.3, 0.2])])
    monkeypatch.setattr("tlresearch.distillation.course.Course._scores", lambda self: next(script))
    both = lessons.run(StudentAlone(), checkpoint="selected", evaluate_every=3, **more)
    last = lessons.run(StudentAlone(), **more)
    cut = [
        lessons.run(StudentAlone(), steps=steps, average=average, seeds=[seed])[0]
        for seed, steps in ((0, 3), (1, 6))
    ]
    for ours, end, best in zip(both, last, cut, strict=True):
        for name in ("acc", "errors", "nll", "ece"):
            assert ours.metrics[name] == pytest.approx(end.metrics[name], abs=1e-10)
            assert ours.metrics[f"{name}_selected"] == pytest.approx(best.metrics[name], abs=1e-10)
        assert ours.metrics["nll"] != pytest.approx(ours.metrics["nll_selected"], abs=1e-6)
        assert all(torch.allclose(ours.weights[k], v, atol=1e-10) for k, v in end.weights.items())


CLASSES_SEEN = [(0, 1, 3), (1, 2)]


@pytest.mark.parametrize("seen", CLASSES_SEEN)
def test_shifts_by_trying_all(lessons, seen):
    """The oracle's has the fewest errors of any; the other makes the mean mass on held-out images,
    whose labels nobody asks, the part that the classes have of the training images."""
    away = [c for c in range(4) if c not in seen]
    moved = away if len(away) <= len(seen) else list(seen)
    (found,) = lessons.run(StudentAlone(), [0], PLAIN, transfer_classes=seen, steps=30)
    metrics, images = found.metrics, lessons.images()
    student = Student(PLAIN.build(SHAPE), 4).double().eval()
    student.requires_grad_(False).load_state_dict(found.weights)
    z, y = student(images.test), images.test_labels
    of_away = torch.isin(y, torch.tensor(away))

    def right(amount: float, logits: Tensor = z) -> Tensor:
        moved_logits = logits.clone()
        moved_logits[:, moved] += amount
        return moved_logits.argmax(-1) == y

    assert metrics["errors"] == (~right(0.0)).sum()
    assert metrics["errors_absent"] == (~right(0.0) & of_away).sum()
    assert metrics["acc_absent"] == right(0.0)[of_away].double().mean()
    for name in ("", "_oracle"):
        now = right(metrics[f"shift{name}"])
        assert metrics[f"errors_shifted{name}"] == (~now).sum()
        assert metrics[f"acc_absent_shifted{name}"] == now[of_away].double().mean()
    gaps = (z.unsqueeze(2) - z.unsqueeze(1)).flatten().unique()
    tried = [right(float(gap) + e).sum() for gap in gaps for e in (-1e-7, 1e-7)]
    assert metrics["errors_shifted_oracle"] == 24 - max(tried)
    held_out = student(images.train[images.held_out])
    held_out[:, moved] += metrics["shift"]
    prior = torch.isin(images.labels[images.kept], torch.tensor(moved)).double().mean()
    mass = held_out.softmax(-1)[:, moved].sum(-1).mean()
    torch.testing.assert_close(mass, prior, atol=1e-9, rtol=0)
    assert metrics["errors_shifted_oracle"] <= min(metrics["errors"], metrics["errors_shifted"])


def test_the_metrics_that_a_run_can_have(lessons):
    """What `possible_metrics` says is what there is."""

    class Config:
        def __init__(self, method: Any, **changes: Any) -> None:
            self.method, self.train = method, changed(Train(), changes)
            self.benchmark = changed(SETTINGS, changes)

    for method in (StudentAlone(), KD(teacher=TEACHER), TeacherItself(teacher=TEACHER)):
        for more in ({}, {"validation": 0.0}, {"transfer_classes": (0, 1, 2)}, SELECTED):
            (found,) = lessons.run(method, steps=4, **more)
            possible = protocol.possible_metrics(Config(method, **more))
            assert found.metrics.keys() == possible - {"steps_per_second"}


def test_a_teacher_of_many_rows_is_measured_once(lessons, monkeypatch):
    """What it says of the test images is kept for all its students; of others it is asked."""
    teacher = FrozenTeacher(build(PLAIN, SHAPE, 4, 5).double())
    asked = []
    ask = report.logits_of
    monkeypatch.setattr(report, "logits_of", lambda net, x: asked.append(len(x)) or ask(net, x))
    images = lessons.images()
    for _ in range(2):
        (test,) = report.copies_of([teacher], images, "test")
        assert torch.equal(test, ask(teacher.network, images.test))
    (held_out,) = report.copies_of([teacher], images, "validation")
    assert torch.equal(held_out, ask(teacher.network, images.train[images.held_out]))
    (fewer,) = report.copies_of([teacher], lessons.images(validation=0.1), "validation")
    assert len(fewer) == 8 and asked == [24, 16, 8]
    other = FrozenTeacher(build(PLAIN, SHAPE, 4, 6).double())
    assert not torch.equal(report.copies_of([other], images, "test")[0], test)


def test_steps_per_second(lessons, monkeypatch):
    """Of all seeds of a stack; a teacher's are those of its training, also if it is taken."""
    both = TeacherItself(teacher=replace(TEACHER, copies=2))
    for speed in (1.5, 9.0):  # the second time the teachers are taken
        monkeypatch.setattr(Course, "elapsed", property(lambda self, speed=speed: speed))
        lessons.run(both, seeds=[0, 1], steps=6)
        assert lessons.speeds == [2 * 3 / (2 * 1.5)] * 2
    lessons.run(StudentAlone(), seeds=[0, 1], steps=6)
    assert lessons.speeds == [2 * 6 / 9.0] * 2


def test_speed_is_that_of_training_alone(lessons, monkeypatch):
    """What measuring takes is none of it, so all seeds of a stack have the same."""
    now, measure = [0.0], report.measured

    def slow(*args: Any) -> Any:
        now[0] += 1000.0
        return measure(*args)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(report, "measured", slow)
    batch = TaughtBatches.batch

    def ticking(self: Any, step: int) -> Any:
        now[0] += 0.5
        return batch(self, step)

    monkeypatch.setattr(TaughtBatches, "batch", ticking)
    found = lessons.run(KD(teacher=TEACHER), seeds=[0, 1], steps=6)
    assert lessons.speeds == [2 * 6 / 3.0] * 2
    assert [one.details["stack_seconds"] for one in found] == [3.0, 3.0]


SELECTED = {"checkpoint": "selected", "evaluate_every": 2}


def test_which_weights_a_table_names(lessons):
    """Those of `acc`: the students' last; the teachers' as they were kept to teach."""

    class Config:
        backbone, train = PLAIN, Train(checkpoint="selected")

        def __init__(self, method: Any) -> None:
            self.method = method

    plain = TeacherSettings(train={"checkpoint": "last", "evaluate_every": 200})
    for method, expected in (
        (StudentAlone(), "last"),
        (KD(), "last"),
        (TeacherItself(), "selected"),
        (TeacherItself(teacher=plain), "last"),
    ):
        assert protocol.measured_checkpoint(Config(method)) == expected
