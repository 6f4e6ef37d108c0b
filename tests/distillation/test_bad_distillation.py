"""Experiments of distillation that cannot work: one sentence, exit code 2, nothing written."""

from pathlib import Path

import pytest

from tlresearch import cli
from tlresearch.launch import outputs
from tlresearch.training import device

FILE = """
family: distillation
benchmark: {dataset: optdigits}
backbone: {name: mlp, hidden: [8]}
methods:
  kd: {name: kd, teacher: {backbone: {name: mlp, hidden: [16]}}}
  fit: {name: fitnets}
train: {steps: 2}
seeds: [0, 1]
"""
BIG = "methods.fit.teacher={backbone: {name: conv4, channels: 2, pools: 2}}"
PUBLISHED = "methods.kd.teacher={checkpoint: cifar10_resnet56}"
CIFAR = [
    *("benchmark={dataset: cifar10, normalise: imagenet}", "backbone={name: resnet20}"),
    *("methods={kd: {name: kd, teacher: {checkpoint: cifar10_resnet56}}}",),
]

CASES: dict[str, tuple[list[str], str]] = {
    "an unknown data set": (["benchmark.dataset=optdigit"], "benchmark.dataset: unknown data set"),
    "other classes in the test part": (
        ["benchmark.dataset=omniglot"],
        "benchmark.dataset: omniglot has other classes in its test part",
    ),
    "all classes": (
        ["benchmark.transfer_classes=[0,1,2,3,4,5,6,7,8,9]"],
        "benchmark.transfer_classes: expected some, but not all, of the 10 classes 0 to 9",
    ),
    "a class that is not there": (
        ["benchmark.transfer_classes=[10]"],
        "benchmark.transfer_classes: expected some, but not all, of the 10 classes 0 to 9, each",
    ),
    "a class without a training image": (
        ["benchmark={dataset: optdigits, samples: 5, validation: 0, transfer_classes: [2]}"],
        "benchmark.transfer_classes: of class 2 optdigits has no training image",
    ),
    "classes beside which there are no images": (
        [
            "benchmark={dataset: optdigits, samples: 5, validation: 0, transfer_classes: [0,1,6,7,9]}"  # noqa: E501
        ],
        "benchmark.transfer_classes: optdigits has no images of the classes beside",
    ),
    "a teacher of another type": (
        ["methods.kd.teacher.train={precision: fp64}"],
        "methods.kd.teacher.train.precision: student and teacher see the same images, in the type",
    ),
    "a class twice": (["benchmark.transfer_classes=[1,1]"], "each once, not [1, 1]"),
    "views of images that do not change": (
        ["benchmark.views=3"],
        "benchmark.views: 3 views of images that are neither moved nor mirrored would be equal",
    ),
    "nothing to keep": (
        ["benchmark.cache=false", "benchmark.shift=1"],
        "benchmark.cache: nothing is kept where each step has views of its own",
    ),
    "selected without a held-out part": (
        ["benchmark.validation=0", "train.checkpoint=selected"],
        "train.checkpoint: 'selected' needs a held-out part",
    ),
    "measured on no held-out part": (
        ["benchmark.validation=0", "benchmark.evaluate=validation"],
        "benchmark.evaluate: 'validation' needs a held-out part",
    ),
    "a teacher that is selected without a held-out part": (
        ["benchmark.validation=0", "methods.kd.teacher.train={checkpoint: selected}"],
        "methods.kd.teacher.train.checkpoint: 'selected' needs a held-out part",
    ),
    "more transfer samples than there are": (
        ["benchmark.transfer_samples=5000"],
        "benchmark.transfer_samples: 5000 were asked for, and of",
    ),
    "more samples than there are": (
        ["benchmark.samples=50000"],
        "benchmark.samples: 50000 were asked for, and optdigits has",
    ),
    "a held-out part that is empty": (
        ["benchmark.validation=0.0001"],
        "benchmark.validation: 0.0001 of",
    ),
    "numbers of three channels": (
        ["benchmark.normalise=imagenet"],
        "benchmark.normalise: 'imagenet' is of 3 channels, and these images have 1",
    ),
    "temperature 0": (["methods.kd.temperature=0"], "methods.kd.temperature"),
    "alpha above 1": (["methods.kd.alpha=1.5"], "methods.kd.alpha"),
    "alpha below 0": (["methods.fit.alpha=-0.1"], "methods.fit.alpha"),
    "a power below 1": (
        ["methods.fit.name=attention", "methods.fit.power=0.5"],
        "methods.fit.power",
    ),
    "an unknown setting": (["methods.kd.temprature=2"], "did you mean 'temperature'?"),
    "an unknown key of a teacher": (["methods.kd.teacher.bakbone={}"], "methods.kd.teacher"),
    "an unknown key of a teacher's backbone": (
        ["methods.kd.teacher.backbone.hiden=[3]"],
        "methods.kd.teacher: unknown key 'backbone.hiden'; did you mean 'hidden'?",
    ),
    "an unknown backbone of a teacher": (
        ["methods.kd.teacher.backbone.name=mpl"],
        "methods.kd.teacher: unknown backbone 'mpl' at 'backbone'; did you mean 'mlp'?",
    ),
    "an unknown key of a teacher's training": (
        ["methods.kd.teacher.train={step: 3}"],
        "methods.kd.teacher: unknown key 'train.step'; did you mean 'steps'?",
    ),
    "a wrong type in a teacher's training": (
        ["methods.kd.teacher.train={steps: 2.5}"],
        "methods.kd.teacher: key 'train.steps' must be a whole number, not 2.5",
    ),
    "a contradiction in a teacher's training": (
        ["methods.kd.teacher.train={momentum: 0.9}"],
        "methods.kd.teacher: train.momentum: optimizer 'adam' does not use it",
    ),
    "an unknown method of a teacher": (
        ["methods.kd.teacher.method={name: kdd}"],
        "methods.kd.teacher: unknown method 'kdd' at 'method'; did you mean",
    ),
    "a contradiction in a teacher's method": (
        ["methods.kd.teacher.method={name: mutual, peers: 0}"],
        "methods.kd.teacher.method.peers: expected at least 1, not 0",
    ),
    "a contradiction further up": (
        ["methods.kd.teacher.method={name: kd, teacher: {checkpoint: cifar10_resnet56}}"],
        "methods.kd.teacher.method.teacher.checkpoint: cifar10_resnet56 knows the 10 classes of",
    ),
    "a teacher that is taught by a teacher's row": (
        ["methods.kd.teacher.method={name: teacher}"],
        "methods.kd.teacher.method.name: 'teacher' is a row that measures a teacher and teaches "
        "nothing; choose e.g. kd, or remove the method",
    ),
    "a chain that is taught by a teacher's row": (
        ["methods.kd.teacher.method={name: kd, teacher: {method: {name: teacher}}}"],
        "methods.kd.teacher.method.teacher.method.name: 'teacher' is a row that measures",
    ),
    "a teacher that is taught by own code": (
        ["methods.kd.teacher.method={name: './mine.py:Mine'}"],
        "methods.kd.teacher.method.name: a teacher is taught by a method of ours, not by own code",
    ),
    "seeds of a teacher that train together": (
        ["methods.kd.teacher.train={stack: 3}"],
        "methods.kd.teacher.train.stack: each teacher trains by itself, one seed at a time, and",
    ),
    "a batch without triples further up": (
        ["methods.kd.teacher={method: {name: rkd}, train: {batch_size: 2}}"],
        "methods.kd.teacher.train.batch_size: its method compares the samples of a batch with each "
        "other and needs at least 3, not 2",
    ),
    "a batch without triples still further up": (
        [
            "methods.kd.teacher={method: {name: kd, teacher: {method: {name: rkd}}}, "
            "train: {batch_size: 2}}"
        ],
        "methods.kd.teacher.method.teacher.train.batch_size: its method compares the samples",
    ),
    "no peers": (["methods.kd={name: mutual, peers: 0}"], "methods.kd.peers: expected at least 1"),
    "generations unlike the student": (
        ["methods.kd={name: born_again, teacher: {backbone: {name: mlp, hidden: [3]}}}"],
        "methods.kd.teacher: every generation is like the student; remove the key",
    ),
    "no paths": (["methods.fit.student=[]"], "methods.fit.student: expected 1 to 4 paths, not 0"),
    "paths without counterpart": (
        ["methods.fit.student=[backbone,head]", "methods.fit.of_teacher=[head]"],
        "methods.fit.of_teacher: 1 paths for 2 of the student",
    ),
    "features of an ensemble": (
        ["methods.fit.teacher={copies: 2}"],
        "methods.fit.teacher.copies: features of several teachers cannot be compared",
    ),
    "two pairs of features in CRD": (
        ["methods.fit={name: crd, student: [backbone, head]}"],
        "methods.fit.student: CRD compares one pair of features",
    ),
    "a number of images for CRD": (
        ["methods.fit={name: crd, images: 5}"],
        "unknown key 'methods.fit.images'; expected one of teacher, student, of_teacher",
    ),
    "one image for CRD": (
        ["methods.fit={name: crd}", "benchmark.transfer_samples=1"],
        "benchmark.transfer_samples: fit tells an image from others and needs at least 2, not 1",
    ),
    "a path twice": (
        ["methods.fit.student=[backbone, head, backbone]"],
        "methods.fit.student: the path 'backbone' is there 2 times; each of the student's features",
    ),
    "a path twice with others of the teacher": (
        ["methods.fit.student=[head, head]", "methods.fit.of_teacher=[head, backbone]"],
        "methods.fit.student: the path 'head' is there 2 times",
    ),
    "a path of a teacher's own student twice": (
        ["methods.kd.teacher.method={name: similarity, student: [backbone, backbone]}"],
        "methods.kd.teacher.method.student: the path 'backbone' is there 2 times",
    ),
    "a batch without triples": (
        ["methods.fit.name=rkd", "train.batch_size=2"],
        "train.batch_size: fit compares the samples of a batch with each other and needs at least "
        "3, not 2",
    ),
    "a tap of the student that names no module": (
        ["methods.fit.student=[backbone.layer]"],
        "methods.fit.student: of the student, Classifier has no module 'backbone.layer'; the "
        "nearest names are 'backbone.layers'",
    ),
    "a tap of the teacher that names no module": (
        ["methods.fit.of_teacher=[backbone.layers.9]"],
        "methods.fit.of_teacher: of the teacher, Classifier has no module 'backbone.layers.9'; the "
        "nearest names are 'backbone.layers",
    ),
    "a hint of another kind": (
        [BIG, "methods.fit.of_teacher=[backbone.layers.3]"],
        "methods.fit.student: backbone and the teacher's backbone.layers.3: the student's feature "
        "(8,) is a vector and the teacher's (2, 2, 2) a map; tap two maps or two vectors",
    ),
    "attention to a vector": (
        ["methods.fit.name=attention"],
        "methods.fit.student: attention needs maps (channels, rows, columns), and backbone has "
        "shape (8,)",
    ),
    "a tap of a teacher's own student": (
        ["methods.kd.teacher.method={name: fitnets, student: [layers]}"],
        "methods.kd.teacher.method.student: of the student, Classifier has no module 'layers'",
    ),
    "a published teacher of other classes": (
        [PUBLISHED],
        "methods.kd.teacher.checkpoint: cifar10_resnet56 knows the 10 classes of cifar10",
    ),
    "a published teacher that sees other pixels": (
        [*CIFAR, "benchmark.normalise=unit"],
        "methods.kd.teacher.checkpoint: cifar10_resnet56 was trained on images normalised by",
    ),
    "a published teacher that is trained": (
        [*CIFAR, "methods.kd.teacher.train={steps: 3}"],
        "methods.kd.teacher.train: the teacher is the published cifar10_resnet56 as it is",
    ),
    "an unknown checkpoint": (
        [*CIFAR, "methods.kd.teacher.checkpoint=cifar10_resnet110"],
        "methods.kd.teacher.checkpoint",
    ),
    "copies of a published teacher": (
        [*CIFAR, "methods.kd.teacher.copies=2"],
        "methods.kd.teacher.copies: the teacher is the published cifar10_resnet56 as it is",
    ),
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    monkeypatch.setattr(outputs, "_write_figures", lambda *args: [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "exp.yaml"
    path.write_text(FILE)
    return path


def refusal(file: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence; the results folder, which a run makes, is not there."""
    results = file.parent / "results"
    code = cli.main(["run", str(file), *words, "--results", str(results)])
    out, err = capsys.readouterr()
    assert code == 2 and not results.exists() and not (file.parent / "cache").exists(), out + err
    assert err.startswith("tlresearch: ") and err.count("\n") == 1 and "Traceback" not in err
    assert len(err) < 1000
    return err


@pytest.mark.parametrize(("words", "expected"), CASES.values(), ids=CASES)
def test_bad_input_is_one_sentence(file, capsys, words, expected):
    """Before anything is trained."""
    assert expected in refusal(file, capsys, *words)


def test_a_published_teacher_that_is_not_there(file, capsys, monkeypatch):
    """Said before anything is trained, with the path that was looked at."""
    monkeypatch.setattr("tlresearch.distillation.protocol.load_data", lambda *args: None)
    monkeypatch.setenv("TLRESEARCH_DATA", str(file.parent))
    err = refusal(file, capsys, *CIFAR)
    path = file.parent / "weights/cifar10_resnet/resnet56-4bfd9763.th"
    assert f"methods.kd.teacher.checkpoint: {path} is not there; put the file of" in err


def test_a_chain_is_checked_with_the_training_that_it_has(file, capsys):
    """A teacher's teacher goes by the teacher's settings of training, not by those of the row."""
    chain = "{optimizer: sgd, momentum: 0.9}, method: {name: kd, teacher: {train: {lr: 0.1}}}"
    last = "{momentum: 0.9}"
    words = ["--dry-run", "--results", str(file.parent / "r")]
    taught = f"methods.kd.teacher={{train: {chain}}}"
    assert cli.main(["run", str(file), taught, *words]) == 0
    taught = taught.replace("{lr: 0.1}", last)
    assert cli.main(["run", str(file), taught, *words]) == 0
    refused = refusal(file, capsys, f"methods.kd.teacher.train={last}")
    assert "optimizer 'adam' does not use it" in refused


def test_what_is_right_runs(file, capsys):
    """Else the sentences above might be about something else."""
    assert cli.main(["run", str(file), "--dry-run", "--results", str(file.parent / "r")]) == 0
