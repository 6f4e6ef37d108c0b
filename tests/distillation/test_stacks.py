"""Every method: a stack is its seeds one by one, no method is another, and where each begins."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_lessons import (
    CLASSES,
    PLAIN,
    SHAPE,
    TEACHER,
    Lessons,
    assert_close,
    backbone_of,
    method_of,
    same_bits,
)

from tlresearch.distillation import METHODS
from tlresearch.launch.plan import numeric_fields


@pytest.fixture
def lessons(monkeypatch, tmp_path):
    return Lessons(monkeypatch, tmp_path)


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in METHODS} | {
    "ensemble": ("kd", {"teacher": replace(TEACHER, copies=2)}),
    "standardised": ("kd", {"standardise": True}),
    "ramp": ("dkd", {"ramp": 0.5}),
    "peers": ("mutual", {"peers": 2}),
    "paper": ("fitnets", {"form": "paper", "student": ("backbone", "head")}),
    "bare": ("fitnets", {"batch_norm": False}),
    "chain": ("born_again", {"generations": 2}),
    "fresh": ("pruned", {"weights": "fresh", "ratio": 0.3}),
    "random": ("pruned", {"importance": "random"}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_stack_is_its_seeds_one_by_one(lessons, name):
    """With batch norm, dropout and images that move: same weights, same measures.

    An epoch of 16 images ends within a batch of 10, so that an image may be in it twice.
    """
    key, settings = VARIANTS[name]
    method, backbone = method_of(key, **settings), backbone_of(key)
    more: dict[str, Any] = {"shift": 1, "flip": True, "transfer_samples": 16, "batch_size": 10}
    stacked = lessons.run(method, [0, 1], backbone, **more)
    for seed, ours in enumerate(stacked):
        (alone,) = lessons.run(method, [seed], backbone, **more)
        assert_close(ours.weights, alone.weights)
        assert ours.metrics == pytest.approx(alone.metrics, abs=1e-9)
    assert not same_bits(stacked[0].weights, stacked[1].weights)


VALUES = {
    "smoothing": [0.1, 0.3],
    "momentum": [0.5, 0.2],
    "contrast": [0.07, 0.5],
    "power": [1.5, 3.0],
}
STACKED = [
    (name, field)
    for name in METHODS
    for field in numeric_fields(method_of(name))
    # What methods on features share is tried once.
    if field in vars(METHODS[name]).get("__annotations__", {}) or name in ("kd", "fitnets")
]


@pytest.mark.usefixtures("without_shape_checks")  # of settings: they are tensors
@pytest.mark.parametrize(("name", "field"), STACKED)
def test_numbers_may_differ_within_a_stack(lessons, name, field):
    """Each that the launcher may stack; and it has an effect."""
    values = VALUES.get(field, [0.25, 0.75])
    method, backbone = method_of(name), backbone_of(name)
    if field == "temperature" and hasattr(method, "alpha") and not method.alpha:
        method = replace(method, alpha=0.5)  # at 0 it is not used
    stacked = lessons.run(method, [0, 0], backbone, fields={field: values})
    for value, ours in zip(values, stacked, strict=True):
        (alone,) = lessons.run(replace(method, **{field: value}), [0], backbone)
        assert_close(ours.weights, alone.weights)
    assert not same_bits(stacked[0].weights, stacked[1].weights)


@pytest.mark.parametrize(
    ("name", "field"),
    [("dkd", "ramp"), ("pruned", "ratio"), *((n, f) for n in ("born_again", "teacher_assistant")
                        for f in ("alpha", "temperature"))],
)  # fmt: skip
def test_numbers_that_are_read_where_teachers_are_made_are_never_stacked(name, field):
    """Nor is one that is asked whether it is 0, or that decides shapes."""
    assert field not in numeric_fields(method_of(name))
    assert "alpha" in numeric_fields(method_of("kd"))


ONE_TEACHER = [name for name in METHODS if name not in ("teacher", "student", "pruned")]


@pytest.mark.parametrize("name", ONE_TEACHER)
def test_it_begins_like_a_student_alone_and_ends_elsewhere(lessons, name):
    """The same weights at the start, whatever else the method trains; no dropout that differs."""
    backbone = backbone_of(name, PLAIN)
    starts = [
        m.networks(backbone, SHAPE, CLASSES, 3).state_dict()
        for m in (METHODS["student"](), method_of(name))
    ]
    assert starts[0] and all(torch.equal(starts[1][k], value) for k, value in starts[0].items())
    ends = [lessons.run(m, [0], backbone)[0].weights for m in ("student", method_of(name))]
    assert ends[0].keys() == ends[1].keys()
    gap = torch.stack([(ends[0][k] - v).double().norm() for k, v in ends[1].items()]).norm()
    assert gap > 1e-4, "it trains the student as labels alone do"


WITHOUT = {
    "kd": {"alpha": 0.0},
    "dkd": {"alpha": 0.0, "beta": 0.0},
    "dist": {"beta": 0.0, "gamma": 0.0},
    "label_smoothing": {"smoothing": 0.0},
    "mutual": {"weight": 0.0},
    "born_again": {"alpha": 0.0},
    "teacher_assistant": {"alpha": 0.0},
} | {n: {"weight": 0.0} for n in ("fitnets", "attention", "similarity", "rkd", "pkt", "crd")}


ALONE = [("kd", [0]), ("crd", [0]), *((name, [0, 1]) for name in WITHOUT)]


@pytest.mark.parametrize(("name", "seeds"), ALONE)
def test_no_weight_is_the_student_alone_bit_for_bit(lessons, name, seeds):
    """Of everything but the labels, through the real loop."""
    backbone = backbone_of(name, PLAIN)
    found = lessons.run(method_of(name, **WITHOUT[name]), seeds, backbone)
    plain = lessons.run("student", seeds, backbone)
    for ours, others in zip(found, plain, strict=True):
        assert same_bits(ours.weights, others.weights)
