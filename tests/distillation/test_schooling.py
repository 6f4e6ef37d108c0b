"""Where teachers come from: trained once, resumed, chained, and never on what is held out."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_lessons import MAPS, NOISY, PLAIN, SETTINGS, Lessons, same_bits
from small_runs import lines_of
from torch import Tensor

from tlresearch.backbones.mlp import MLP
from tlresearch.distillation.batches import TaughtBatches
from tlresearch.distillation.born_again import BornAgain
from tlresearch.distillation.fitnets import FitNets
from tlresearch.distillation.kd import KD
from tlresearch.distillation.pruned import Pruned
from tlresearch.distillation.settings import TeacherSettings
from tlresearch.distillation.student import StudentAlone
from tlresearch.distillation.teacher import TeacherItself
from tlresearch.distillation.teacher_assistant import TeacherAssistant
from tlresearch.distillation.teaching import School, TeacherFailed
from tlresearch.training import observer

WIDE = {"name": "mlp", "hidden": [16], "norm": "batch", "dropout": 0.2}
TEACHER = TeacherSettings(backbone=WIDE, train={"steps": 3})


@pytest.fixture
def lessons(monkeypatch, tmp_path):
    return Lessons(monkeypatch, tmp_path)


@pytest.fixture
def learned(monkeypatch) -> list[int]:
    """Seeds of the teachers that were trained, and not taken."""
    seeds, learn = [], School._learn

    def counted(self, training, networks, key, its):
        seeds.append(its.seed)
        return learn(self, training, networks, key, its)

    monkeypatch.setattr(School, "_learn", counted)
    return seeds


def test_a_teacher_is_trained_once_for_all_rows(lessons, learned):
    """Of a seed; rows that differ in the student's training, images or method share it."""
    lessons.run(TeacherItself(teacher=TEACHER), [0, 1])
    assert learned == [1_000_000, 1_000_001]
    lessons.run(KD(teacher=TEACHER), [1, 0], MLP(hidden=(6,)))
    lessons.run(FitNets(teacher=TEACHER), [0], shift=1, transfer_samples=9)
    lessons.run(KD(teacher=TEACHER), [0], transfer_classes=(0, 1), stack=1)
    assert len(learned) == 2
    lessons.run(KD(teacher=TEACHER), [2])
    assert learned[2:] == [1_000_002]


OTHERS: dict[str, tuple[TeacherSettings, dict[str, Any]]] = {
    "backbone": (replace(TEACHER, backbone=WIDE | {"hidden": [6]}), {}),
    "steps": (replace(TEACHER, train={"steps": 2}), {}),
    "rate of the row": (TEACHER, {"lr": 0.03}),
    "method": (replace(TEACHER, method={"name": "label_smoothing"}), {}),
    "shift": (replace(TEACHER, shift=1), {}),
    "flip": (replace(TEACHER, flip=True), {}),
    "samples": (TEACHER, {"samples": 60}),
    "held-out part": (TEACHER, {"validation": 0.3}),
    "pixels": (TEACHER, {"normalise": "standard"}),
    "precision": (TEACHER, {"precision": "fp32"}),
}


def test_other_teachers_are_not_taken_for_it(lessons, learned):
    """Whatever a training depends on has another key; and other data."""
    lessons.run(TeacherItself(teacher=TEACHER))
    for name, (teacher, changes) in OTHERS.items():
        lessons.run(TeacherItself(teacher=teacher), **changes)
        assert len(learned) == 2, name
        learned.pop()
    lessons.data = replace(lessons.data, fingerprint="2")
    lessons.run(TeacherItself(teacher=TEACHER))
    assert len(learned) == 2


def test_a_teacher_that_was_taken_is_the_one_that_was_trained(lessons):
    """The students' bits are the same; and those of its row in another stack."""
    fresh = lessons.run(KD(teacher=TEACHER), [0, 1])
    taken = lessons.run(KD(teacher=TEACHER), [0, 1])
    assert all(same_bits(a.weights, b.weights) for a, b in zip(fresh, taken, strict=True))
    rows = lessons.run(TeacherItself(teacher=TEACHER), [1, 0])
    assert not same_bits(rows[0].weights, rows[1].weights)
    trained = lessons.teachers[1].training.stack.one(0).state_dict()
    assert all(torch.equal(rows[0].weights[k], trained[k]) for k in rows[0].weights)


def test_one_teacher_of_a_seed_of_its_own_for_all(lessons, learned):
    runs = lessons.run(TeacherItself(teacher=replace(TEACHER, seed=7)), [0, 1])
    assert learned == [7] and same_bits(runs[0].weights, runs[1].weights)


@pytest.mark.parametrize("seed", [None, 7])
def test_copies_differ_and_answer_by_their_mean_probability(lessons, learned, seed):
    teacher = replace(TEACHER, copies=2, seed=seed)
    (together,) = lessons.run(TeacherItself(teacher=teacher))
    first = 1_000_000 if seed is None else 7
    assert learned == [first, first + 1000] and together.weights == {}
    networks: list[Any] = [begun.training.stack.one(0).eval() for begun in lessons.teachers]
    x, y = lessons.images().test, lessons.images().test_labels
    logits = [network(x) for network in networks]
    assert not torch.equal(*logits)
    mean = torch.stack([z.softmax(-1) for z in logits]).mean(0)
    assert together.metrics["errors"] == (mean.argmax(-1) != y).sum()
    nll = -mean[torch.arange(len(y)), y].log().mean()
    assert together.metrics["nll"] == pytest.approx(nll.item(), abs=1e-12)
    one = lessons.run(TeacherItself(teacher=replace(teacher, copies=1)))[0].metrics
    assert together.metrics["parameters"] == 2 * one["parameters"]
    assert together.metrics["flops"] == 2 * one["flops"]


def sizes_of(lessons: Lessons) -> list[int]:
    """Of the first layers of the teachers, in the order in which they were begun."""
    stacks = [begun.training.stack.params for begun in lessons.teachers]
    return [params["backbone.layers.0.weight"].shape[1] for params in stacks]


def test_generations_are_a_chain(lessons, learned):
    """The third's teacher is taught by one that is taught by one that learns labels; each has a
    seed of its own, and the second generation is plain distillation from the first."""
    lessons.run(BornAgain(generations=3), [0], PLAIN)
    assert learned == [3_000_000, 2_000_000, 1_000_000]
    assert [type(begun.method) for begun in lessons.teachers] == [KD, KD, StudentAlone]
    assert sizes_of(lessons) == [8, 8, 8]
    assert {begun.method.temperature for begun in lessons.teachers[:2]} == {1.0}
    first = lessons.run(BornAgain(), [0], PLAIN)[0].weights
    plain = lessons.run(KD(temperature=1.0), [0], PLAIN)[0].weights
    second = lessons.run(BornAgain(generations=2), [0], PLAIN)[0].weights
    assert same_bits(first, plain) and not same_bits(first, second)


def test_assistants_are_a_chain(lessons, learned):
    """From the teacher's side to the student's, the teacher of the first being the large one."""
    assistants = ({"name": "mlp", "hidden": [12]}, {"name": "mlp", "hidden": [10]})
    method = TeacherAssistant(assistants=assistants, teacher=TEACHER, temperature=2.0, alpha=0.5)
    (found,) = lessons.run(method, [0], PLAIN)
    assert learned == [3_000_000, 2_000_000, 1_000_000] and sizes_of(lessons) == [10, 12, 16]
    methods = [begun.method for begun in lessons.teachers]
    assert [(m.alpha, m.temperature) for m in methods[:2]] == [(0.5, 2.0)] * 2
    assert type(methods[2]) is StudentAlone
    steps = [begun.training.train.steps for begun in lessons.teachers]
    assert steps == [4, 4, 3], "settings of the teacher's training are its own"
    (direct,) = lessons.run(TeacherAssistant(teacher=TEACHER), [0], PLAIN)
    (plain,) = lessons.run(KD(teacher=TEACHER), [0], PLAIN)
    assert same_bits(direct.weights, plain.weights)
    assert not same_bits(direct.weights, found.weights)
    assert len(learned) == 3, "the large teacher is that of the other rows"


def test_copies_of_an_assistant_have_teachers_of_their_own(lessons, learned):
    """And so have a run and one whose assistant has the seed that was counted for it."""
    taught = {"name": "kd", "teacher": {"backbone": WIDE, "train": {"steps": 3}}}
    assistant = TeacherSettings(backbone={"name": "mlp", "hidden": [6]}, method=taught)
    lessons.run(KD(teacher=replace(assistant, copies=2)), [0], PLAIN)
    assert learned == [2_000_000, 1_000_000, 2_001_000, 1_001_000]
    lessons.run(KD(teacher=replace(assistant, seed=2_000_000)), [0], PLAIN)
    assert learned[4:] == [2_000_000, 3_000_000], "its teacher is another one"


def test_nothing_of_the_held_out_part_is_trained_on(lessons, monkeypatch):
    """By nobody of a chain, and it is the same for all seeds; students see their transfer set."""
    seen: list[tuple[bool, Tensor]] = []
    batch = TaughtBatches.batch

    def seeing(self, step):
        found: Any = batch(self, step)
        rows = zip(self.pools, found[3], strict=True)
        seen.append((len(self.seeds) == 2, torch.stack([pool[at] for pool, at in rows])))
        return found

    monkeypatch.setattr(TaughtBatches, "batch", seeing)
    chain = replace(TEACHER, method={"name": "kd", "teacher": {"backbone": WIDE, "shift": 1}})
    more: dict[str, Any] = {"steps": 9, "transfer_classes": (1, 3), "shift": 1}
    lessons.run(KD(teacher=chain), [0, 1], **more)
    images = lessons.images()
    assert len(images.held_out) == 16 and len(images.kept) == 64
    assert images.labels[images.held_out].bincount().tolist() == [4] * 4
    held_out = set(images.held_out.tolist())
    for student in (False, True):
        places = torch.cat([at.flatten() for whose, at in seen if whose == student])
        assert not held_out & set(places.tolist())
        labels = set(images.labels[places].tolist())
        assert labels == ({1, 3} if student else {0, 1, 2, 3})
    assert sum(whose for whose, _ in seen) == 9
    assert len(seen) == 9 + 2 * (3 + 3), "the upper teacher has the steps of the one it teaches"


def test_transfer_samples_differ_by_seed_and_are_a_part(lessons):
    """In equal parts of each class, of those that are kept."""
    images = lessons.images()
    settings = replace(SETTINGS, transfer_samples=8)
    pools = [images.pool(settings, seed) for seed in (0, 1)]
    assert not torch.equal(*pools)
    for pool in pools:
        assert images.labels[pool].bincount().tolist() == [2] * 4
        assert set(pool.tolist()) <= set(images.kept.tolist())
    more = images.pool(replace(settings, transfer_samples=12), 0)
    assert set(pools[0].tolist()) < set(more.tolist())


LONG = TeacherSettings(backbone=WIDE, train={"steps": 60})


@pytest.mark.parametrize(
    "method",
    [
        KD(teacher=LONG),
        BornAgain(teacher=TeacherSettings()),
        Pruned(teacher=replace(LONG, backbone={})),
    ],
)
def test_a_resumed_run_is_the_run_that_was_not_stopped(lessons, method, monkeypatch):
    """Stopped in the middle of each seed's teacher and of the students."""
    monkeypatch.setattr(observer, "LOG_EVERY", 10)
    more: dict[str, Any] = {"seeds": [0, 1], "steps": 60, "backbone": NOISY}
    whole, pieces = (
        replace(lessons.files(name), trained=lessons.folder / name / "trained")
        for name in ("whole", "pieces")
    )
    expected = lessons.run(method, files=whole, **more)
    steps: list[int] = []
    for at in (20, 50, 100):
        lessons.interrupted(at, pieces, method, **more)
        steps.append(len(list(pieces.checkpoint.parent.glob("teacher-*.pt"))))
    assert steps == [1, 1, 0] and pieces.checkpoint.exists()
    found = lessons.run(method, files=pieces, **more)
    for ours, others in zip(found, expected, strict=True):
        assert same_bits(ours.weights, others.weights) and ours.metrics == others.metrics
    assert lines_of(pieces) == lines_of(whole)
    assert not list(pieces.checkpoint.parent.glob("teacher-*.pt"))


def test_progress_counts_the_steps_of_a_stack(lessons):
    """What the command shows in full: a run's steps, teachers' too, trained or taken."""
    for _ in range(2):
        told: list[int] = []
        lessons.run(KD(teacher=TEACHER), [0, 1], progress=told.append)
        assert sum(told) == 3 + 4
    told = []
    lessons.run(KD(teacher=replace(TEACHER, seed=3)), [0, 1], progress=told.append)
    assert sum(told) == 7


def test_a_teacher_that_breaks_says_so(lessons):
    """Its student is not trained on what it says."""
    broken = replace(TEACHER, train={"lr": 1e200, "steps": 20, "clip": 0.0})
    for method in (KD(teacher=broken), TeacherItself(teacher=broken)):
        (found,) = lessons.run(method, fails=True)
        assert found.status == "failed" and not (found.metrics or found.weights)
        assert found.reason.startswith("the teacher with the seed 1000000 cannot teach: the loss")


@pytest.mark.usefixtures("without_shape_checks")  # of settings: they are tensors
def test_a_teacher_that_breaks_costs_no_other_seed(lessons, monkeypatch):
    """The others' students are those of a stack without it."""
    rest = lessons.run(KD(teacher=TEACHER), [0, 2], fields={"alpha": [0.1, 0.3]})
    trained = School._trained

    def breaks(self, training, its):
        if its.seed == 1_000_001:
            raise TeacherFailed("it broke")
        return trained(self, training, its)

    monkeypatch.setattr(School, "_trained", breaks)
    fields = {"alpha": [0.1, 0.2, 0.3]}
    found = lessons.run(KD(teacher=TEACHER), [0, 1, 2], fields=fields, fails=True)
    assert [one.status for one in found] == ["finished", "failed", "finished"]
    assert all(same_bits(a.weights, b.weights) for a, b in zip(found[::2], rest, strict=True))


def test_features_of_convolutions_are_kept_too(lessons):
    """Maps of a teacher of another width, in cached form, of two layers."""
    teacher = TeacherSettings(backbone={"name": "conv4", "channels": 4, "pools": 2})
    taps = ("backbone.layers.0", "backbone.layers.3")
    method = FitNets(teacher=teacher, student=taps)
    kept, live = (lessons.run(method, [0], MAPS, steps=2, cache=c)[0] for c in (True, False))
    assert same_bits(kept.weights, live.weights)
