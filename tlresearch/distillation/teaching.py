"""Teachers for the seeds of a run: taken if they were trained before, else trained and kept.

Each is trained by itself, one seed at a time, so that its bits do not depend on who asks for it.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlresearch import own
from tlresearch.backbones import build
from tlresearch.backbones.cifar_resnet import load_checkpoint
from tlresearch.configs import plain_config
from tlresearch.data.sources import data_root
from tlresearch.distillation import teacher_cache, teachers
from tlresearch.distillation.batches import TaughtBatches
from tlresearch.distillation.course import Course, Watch, begin
from tlresearch.distillation.frozen_teacher import FrozenTeacher
from tlresearch.distillation.images import Images
from tlresearch.distillation.lineage import Lineage, lineage
from tlresearch.distillation.live_teacher import LiveTeacher, Teacher
from tlresearch.distillation.networks import of_student
from tlresearch.distillation.settings import TeacherSettings
from tlresearch.errors import UserError
from tlresearch.files import claim
from tlresearch.results import trainings
from tlresearch.results.provenance import source_hash
from tlresearch.training.device import dtype_of
from tlresearch.training.observer import RunFiles
from tlresearch.training.settings import Train
from tlresearch.training.weights import weights_of

FILES = {
    "cifar10_resnet20": "resnet20-12fca82f.th",
    "cifar10_resnet56": "resnet56-4bfd9763.th",
}
"""Below ROOT/weights/cifar10_resnet."""


class TeacherFailed(Exception):
    """A teacher's training diverged: a run without it has failed, others have not."""


@dataclasses.dataclass
class School:
    """Where the teachers of a run come from."""

    images: Images
    files: RunFiles
    watch: Watch
    root: Any = None
    cache: bool = True
    """Whether answers are kept."""
    other_code: str | None = None
    """Hash of other code than the current one that trained a teacher, if it did."""
    seconds: float = 0.0
    """Of the trainings that were done here."""
    costs: dict[str, tuple[int, float]] = dataclasses.field(default_factory=dict)
    """Steps and seconds of each training, done here or before, by its key."""

    @property
    def folder(self) -> Path:
        """Of trained teachers."""
        return self.files.trained or self.files.checkpoint.parent / "teachers"

    def of(
        self, settings: TeacherSettings, backbone: Any, train: Train, base: int
    ) -> list[FrozenTeacher]:
        """The copies that teach a run.

        Args:
            settings: of the teacher.
            backbone: the student's.
            train: of the row.
            base: the run's seed, or of a teacher that is taught what `lineage` counts from.

        Raises:
            TeacherFailed: one of them, or of their own teachers, diverged.
        """
        if settings.checkpoint is not None:
            return [FrozenTeacher(self._published(settings, train))]
        training = teachers.resolve(settings, backbone, train, "teacher")
        asked = [lineage(settings, training, base, copy) for copy in range(settings.copies)]
        return [FrozenTeacher(self._trained(training, one)) for one in asked]

    def cost(
        self, settings: TeacherSettings, backbone: Any, train: Train, seed: int
    ) -> tuple[int, float]:
        """Steps and seconds of the trainings of a run's teachers, without their own teachers."""
        training = teachers.resolve(settings, backbone, train, "teacher")
        asked = [lineage(settings, training, seed, copy) for copy in range(settings.copies)]
        costs = [self.costs[self._key(training, one)] for one in asked]
        return sum(steps for steps, _ in costs), sum(seconds for _, seconds in costs)

    def answering(
        self,
        settings: TeacherSettings,
        frozen: Sequence[FrozenTeacher],
        views: Any,
        taps: tuple[str, ...],
        chunk: int,
        fixed: bool,
    ) -> list[Teacher]:
        """The teachers of one seed, as batches ask them; kept only of views that are fixed."""
        dtype = torch.promote_types(self.images.train.dtype, torch.float32)
        once = tuple(dict.fromkeys(taps))
        live = [LiveTeacher(teacher, views, once, chunk, dtype) for teacher in frozen]
        return [teacher_cache.kept(one) for one in live] if fixed and self.cache else list(live)

    def _published(self, settings: TeacherSettings, train: Train) -> nn.Module:
        """The network with published weights."""
        assert settings.checkpoint is not None
        path = published_file(settings.checkpoint, self.root, "teacher")
        backbone = teachers.resolve_backbone(settings, "teacher")
        assert backbone is not None  # a checkpoint has one
        network = build(backbone, self.images.shape, self.images.classes, 0)
        load_checkpoint(network, path)
        return network.to(self.images.train.device, dtype_of(train.precision))

    def _trained(self, training: teachers.Training, its: Lineage) -> nn.Module:
        """A trained network, taken or made."""
        key, seed = self._key(training, its), its.seed
        networks = begin(
            training.backbone, training.method, {}, training.train, [seed], self.images
        )
        with claim(self.folder / f"{key[:32]}.lock", lambda holder: None):
            found = trainings.find(
                self.folder, key, weights_of(networks.one(0)[1]), self.files.trained_since
            )
            if found is not None:
                self.costs[key] = (found.steps, found.seconds)
                trainings.load_into(networks.stack.params, networks.stack.buffers, [found])
                if found.source != _source(training):
                    self.other_code = found.source
                self.watch.progress(steps_of(training))
            else:
                self._learn(training, networks, key, its)
        student = networks.one(0)[1]
        network = build(training.backbone, self.images.shape, self.images.classes, seed)
        # First its type: numbers of float64 would be rounded on their way.
        network = network.to(self.images.train.device, dtype_of(training.train.precision))
        network.load_state_dict(of_student(weights_of(student)))
        return network

    def _learn(self, training: teachers.Training, networks: Any, key: str, its: Lineage) -> None:
        """Trains a network, its own teachers first, and keeps it."""
        method, train, seed = training.method, training.train, its.seed
        views = self.images.views(training.shift, training.flip, seed)
        answering: list[list[Teacher]] = [[]]
        if method.taught:
            settings = method.taught_by()
            frozen = self.of(settings, training.backbone, train, its.base)
            taps, fixed = method.teacher_taps, views.augment is None
            answering = [self.answering(settings, frozen, views, taps, train.batch_size, fixed)]
        batches = TaughtBatches(
            self.images, [self.images.kept], [views], answering, train, [seed],
            "batches of distillation", fresh=True, taps=method.teacher_taps,
        )  # fmt: skip
        files = dataclasses.replace(
            self.files,
            checkpoint=self.files.checkpoint.with_name(f"teacher-{key[:8]}.pt"),
            log=self.files.log.with_name(f"teacher-{key[:8]}.jsonl"),
        )
        course = Course(networks, batches, self.images, files, self.watch)
        course.travel()
        failure = networks.failures[0]
        if failure:
            raise TeacherFailed(f"the teacher with the seed {seed} cannot teach: {failure}")
        self.seconds += course.elapsed
        self.costs[key] = (networks.steps[0], course.elapsed)
        done = trainings.Trained(
            weights_of(networks.one(0)[1]), networks.steps[0], course.elapsed, _source(training)
        )
        trainings.keep(self.folder, key, done, seed)
        files.checkpoint.unlink(missing_ok=True)

    def _key(self, training: teachers.Training, its: Lineage) -> str:
        """SHA-256 of what a teacher's training depends on; hexadecimal."""
        plain = {
            "backbone": plain_config(training.backbone, defaults=False),
            "method": plain_config(training.method, defaults=False),
            "train": plain_config(
                dataclasses.replace(training.train, stack="auto"), defaults=False
            ),
            "views": [training.shift, training.flip],
            "seed": its.seed,
            "data": [self.images.fingerprint, self.images.recipe, len(self.images.held_out)],
        }
        if training.method.taught:
            plain["base"] = its.base
        files = sorted(hashlib.sha256(file).hexdigest() for file in own.sources(_parts(training)))
        if files:
            plain["own files"] = files
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def published_file(checkpoint: str, root: Any, place: str) -> Path:
    """Where published weights lie.

    Raises:
        UserError: they are not there.
    """
    path = (data_root(root) or Path("ROOT")) / "weights/cifar10_resnet" / FILES[checkpoint]
    if not path.is_file():
        raise UserError(
            f"{place}.checkpoint: {path} is not there; put the file of "
            "github.com/akamaster/pytorch_resnet_cifar10 there, with the data root given by "
            "--data or TLRESEARCH_DATA"
        )
    return path


def steps_of(training: teachers.Training) -> int:
    """Optimiser steps of a teacher and of those who teach it."""
    method = training.method
    below = 0
    if method.taught:
        below = steps_of_teachers(method.taught_by(), training.backbone, training.train)
    return training.train.steps + below


def steps_of_teachers(settings: TeacherSettings, backbone: Any, train: Train) -> int:
    """Optimiser steps of the teachers of one seed."""
    if settings.checkpoint is not None:
        return 0
    return settings.copies * steps_of(teachers.resolve(settings, backbone, train, "teacher"))


def _source(training: teachers.Training) -> str:
    """Hash of the code that trains such a network."""
    parts = _parts(training)
    modules = [__name__, *(type(part).__module__ for part in parts)]
    return source_hash(modules, own.sources(parts))


def _parts(training: teachers.Training) -> list[Any]:
    """Backbones and methods of a teacher and of those who teach it."""
    method, backbone = training.method, training.backbone
    return [method, backbone, *teachers.above(method, backbone, training.train)]


@torch.no_grad()
def answers(teachers_of_seed: Sequence[FrozenTeacher], x: torch.Tensor) -> torch.Tensor:
    """Logits of all copies, (M, n, classes)."""
    return torch.stack([teacher.logits(x) for teacher in teachers_of_seed])
