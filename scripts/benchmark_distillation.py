"""How fast is our distillation? Against torchdistill and hand-written loops.

The loops take turns in one process, with one thread. Prints a table and, as its last line, one
JSON object of ratios, each the median over the rounds.

A step of soft targets: a student MLP 784-800-800-10, a teacher 784-1200-1200-10, batches of 128
images of 28 x 28, float32, the same optimiser everywhere (`--optimizer`), no augmentation.
Ours is `fit`, as an experiment calls it, with the teacher's answers kept (`cache: true`, the
default) or with the live teacher.

- `mlp.vs_torchdistill`: how many times the steps per second of torchdistill's normal path ours,
  cached, has: its `DistillationBox`, `KDLoss` and logger, the live teacher, a data set that makes a
  tensor of each image, in this process, an optimiser that is not fused, as in its samples.
  `…_helped`: its images are tensors already and its optimiser is fused. `…_worker`: its normal path
  with a process of its own for the data, a second core beside our one; not with --quick or
  --processor-time.
- `mlp.vs_bare_live`: likewise, of a hand-written loop with the live teacher, images as floating
  numbers in memory, a fused optimiser.
- `mlp.over_hand`: our time, cached, over that of the fastest hand-written loop with kept answers.
- `mlp.live_over_cached`: our time with the live teacher over that with its answers kept.

Run: python scripts/benchmark_distillation.py [--quick] [--device cuda] [--optimizer adam]
torchdistill comes by `pip install --no-deps torchdistill==1.1.5` (it needs torchvision, too);
where it cannot be imported a line says so and its ratios are left out.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import distillation_peers as peers
import torch
from distillation_peers import Given
from torch import nn
from turns import (
    Loop,
    Options,
    alternate,
    best,
    copied,
    faster,
    imported,
    options_of,
    parser_of,
    print_ratios,
    report,
)

from tlresearch.backbones.mlp import MLP
from tlresearch.distillation import teacher_cache
from tlresearch.distillation.batches import TaughtBatches
from tlresearch.distillation.course import begin
from tlresearch.distillation.frozen_teacher import FrozenTeacher
from tlresearch.distillation.images import Images
from tlresearch.distillation.kd import KD
from tlresearch.distillation.live_teacher import LiveTeacher
from tlresearch.training.device import prepare_process
from tlresearch.training.loop import Training, fit
from tlresearch.training.settings import Train

CLASSES, IMAGES, BATCH, SIDE = 10, 10_000, 128, 28
"""Random images, and of a batch."""
STUDENT, TEACHER = (800, 800), (1200, 1200)
"""Units of the hidden layers."""
METHOD = KD(alpha=0.9, temperature=4.0)
STEPS = 10_000_000
"""More than a measurement takes."""
DRAWN = 300
"""Steps whose batches the peers are given; then they begin again."""
CACHED, LIVE = "fit, cached", "fit, live"
BY_HAND, BARE = "hand, cached", "hand, live"
NORMAL, HELPED, WORKER = "torchdistill", "torchdistill, helped", "torchdistill, one worker"


@dataclass(frozen=True)
class Ours:
    """A training of ours at its beginning, and the steps that it can take."""

    steps: Loop
    training: Training
    batches: TaughtBatches


def pixels_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Random; time does not depend on what images show."""
    generator = torch.Generator().manual_seed(0)
    shape = (IMAGES, 1, SIDE, SIDE)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(CLASSES, (IMAGES,), generator=generator)


def images_on(device: torch.device) -> Images:
    """What an experiment would have loaded."""
    pixels, labels = (tensor.to(device) for tensor in pixels_and_labels())
    x, every = pixels.float() / 255, torch.arange(IMAGES, device=device)
    return Images(
        name="random", train=x, labels=labels, test=x, test_labels=labels, kept=every,
        held_out=every[:0], black=torch.zeros(1, 1, 1, device=device), classes=CLASSES,
        recipe="unit, torch.float32", fingerprint="random",
    )  # fmt: skip


def teacher_on(device: torch.device) -> nn.Sequential:
    """Untrained, with logits as far apart as those of a trained one; in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        teacher = peers.mlp([SIDE * SIDE, *TEACHER, CLASSES])
    with torch.no_grad():
        list(teacher.parameters())[-2].mul_(100)
    return teacher.to(device).eval().requires_grad_(False)


def ours(
    images: Images, teacher: nn.Module, train: Train, kept_in: Path | None, **settings: Any
) -> Ours:
    """Soft targets, as an experiment would train them.

    Args:
        images: of the transfer set.
        teacher: whose answers are learned.
        train: as the experiment has it.
        kept_in: folder of caches; None: the live teacher is asked at each step.
        settings: of the training, over `train`.
    """
    train = Train(**(vars(train) | settings))
    training = begin(MLP(hidden=STUDENT), METHOD, {}, train, [0], images)
    views = images.views(0, False, 0)
    asked: Any = LiveTeacher(FrozenTeacher(teacher), views, (), train.batch_size)
    if kept_in is not None:
        asked = teacher_cache.kept(asked, kept_in)
        if isinstance(asked, LiveTeacher):
            raise SystemExit(f"error: {kept_in} cannot be written, and no answers were kept")
    batches = TaughtBatches(
        images, [images.kept], [views], [[asked]], train, [0], "batches of distillation", False
    )
    done = 0

    def take(count: int) -> None:
        nonlocal done
        fit(training, batches.batch, done + count, done)
        done += count
        if not all(training.active):
            raise SystemExit(f"error: the training failed: {training.failures}")

    return Ours(take, training, batches)


def given_of(single: Ours, images: Images) -> Given:
    """What the peers need to do the same as ours, whose pool is the whole set."""
    batches, train = single.batches, single.training.train
    every = torch.arange(len(images.labels), device=images.labels.device)
    arguments: dict[str, Any] = {"lr": train.lr}
    if train.optimizer == "sgd":
        arguments["momentum"] = train.momentum
    first = [batches.batch(step)[3] for step in range(DRAWN)]
    return Given(
        pixels=pixels_and_labels()[0],
        images=images.train,
        labels=images.labels,
        places=torch.stack([places[0] for places in first if places is not None]),
        answers=batches.teachers[0][0].logits(every),
        alpha=METHOD.alpha,
        temperature=METHOD.temperature,
        optimizer={"sgd": "SGD", "adam": "Adam"}[train.optimizer],
        arguments=arguments,
    )


def copies_of(single: Ours) -> Callable[[], nn.Module]:
    """A function that makes the peers' student, with the weights that ours has now."""
    weights = [p.detach().clone() for p in single.training.one(0)[1].parameters()]

    def make() -> nn.Module:
        student = peers.mlp([SIDE * SIDE, *STUDENT, CLASSES])
        return copied(student, nn.ParameterList(weights))

    return make


def torchdistill() -> Any:
    """The package with the modules that are used, or None after a line that says why not."""
    # torchdistill fails where it is imported before this part of torchvision.
    names = ("torchvision.datasets", "torchdistill.core.distillation", "torchdistill.misc.log")
    package = None
    for name in names:
        package = imported(name)
        if package is None:
            return None
    return package


def peer_loops(
    given: Given, student: Callable[[], nn.Module], teacher: nn.Module, quick: bool, workers: bool
) -> dict[str, Loop]:
    """The hand-written loops, and torchdistill's if it is installed."""
    loops: dict[str, Loop] = {
        BY_HAND: peers.hand_loop(student(), None, given),
        BARE: peers.hand_loop(student(), teacher, given),
    }
    if not quick:
        loops[f"{BY_HAND}, compiled"] = peers.hand_loop(student(), None, given, compiled=True)
    package = torchdistill()
    if package is not None:
        loops[NORMAL] = peers.torchdistill_loop(package, student(), teacher, given)
        loops[HELPED] = peers.torchdistill_loop(package, student(), teacher, given, helped=True)
        if workers:
            loops[WORKER] = peers.torchdistill_loop(package, student(), teacher, given, workers=1)
    return loops


def mlp(options: Options, train: Train) -> dict[str, float]:
    """All loops in turn."""
    images, teacher = images_on(options.device), teacher_on(options.device)
    with tempfile.TemporaryDirectory() as folder:
        cached = ours(images, teacher, train, Path(folder))
        live = ours(images, teacher, train, None)
        given, student = given_of(cached, images), copies_of(cached)
        loops = {CACHED: cached.steps, LIVE: live.steps}
        if not options.quick:
            loops[f"{CACHED}, compiled"] = ours(
                images, teacher, train, Path(folder), compile=True
            ).steps
        workers = not options.quick and options.clock is not time.process_time
        loops |= peer_loops(given, student, teacher, options.quick, workers)
        times = alternate(loops, options)
    sizes = "-".join(str(units) for units in (SIDE * SIDE, *STUDENT, CLASSES))
    report(f"student {sizes}, batch {BATCH}, {train.optimizer}", times, {})
    hand = best(times, [name for name in (BY_HAND, f"{BY_HAND}, compiled") if name in loops])
    found = {
        "mlp.vs_bare_live": faster(times, CACHED, BARE),
        "mlp.over_hand": 1 / faster(times, CACHED, hand),
        "mlp.live_over_cached": faster(times, CACHED, LIVE),
    }
    named = {"": NORMAL, "_helped": HELPED, "_worker": WORKER}
    for end, name in named.items():
        if name in loops:
            found[f"mlp.vs_torchdistill{end}"] = faster(times, CACHED, name)
    return found


def main() -> None:
    """Measures and prints."""
    parser = parser_of(__doc__)
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    asked = parser.parse_args()
    prepare_process(1)
    own: dict[str, Any] = (
        {"lr": 0.01, "momentum": 0.9} if asked.optimizer == "sgd" else {"lr": 1e-3}
    )
    train = Train(steps=STEPS, batch_size=BATCH, optimizer=asked.optimizer, **own)
    print_ratios(mlp(options_of(parser, asked), train))


if __name__ == "__main__":
    main()
