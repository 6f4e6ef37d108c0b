"""How fast is our domain adaptation? Against pytorch-adapt, PNG files and hand-written loops.

The loops of a work take turns in one process, with one thread. Prints tables and, as its last line,
one JSON object of ratios, each the median over the rounds: `WORK.vs_PEER`, how many times faster we
are, and `WORK.over_hand`, our time over that of the fastest hand-written loop.

- `dann`: a step of DANN (batches, forward, backward, SGD) through `fit`: LeNet 20-50-500 and a
  discriminator 500-500-1, 64 + 64 images of 3 x 28 x 28. On the CPU with `train.channels_last`,
  which is our faster order there. `vs_pytorch_adapt`: its DANN hook with the same networks,
  optimiser and batches, in torch's own order of channels; `vs_pytorch_adapt_channels_last`: in the
  other order, which its user can ask for, too. `vs_png`: torch's loader decodes a PNG file for
  each image; the step is the hand-written one.
- `dann_stack5.over_one`: five seeds in one stack, per seed, over one seed.

Run: python scripts/benchmark_adaptation.py [--quick] [--device cuda] [--works NAME …]
pytorch-adapt comes by `pip install --no-deps pytorch-adapt==0.0.83 pytorch-metric-learning
torchmetrics`; where it cannot be imported its ratios are left out.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import adaptation_peers as peers
import torch
from adaptation_peers import Given, Networks
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

from tlresearch.adaptation.batches import RoundBatches
from tlresearch.adaptation.dann import DANN
from tlresearch.adaptation.journey import begin
from tlresearch.adaptation.method import Round
from tlresearch.adaptation.protocol import StackRun
from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.backbones.lenet import LeNet
from tlresearch.data.domains import Labelled, Pair, Unlabelled
from tlresearch.functional.schedules import reversal_strength
from tlresearch.training.device import prepare_process
from tlresearch.training.loop import Training, fit
from tlresearch.training.settings import Train

WORKS = ("dann", "dann_stack5")
CLASSES, IMAGES, BATCH = 10, 2000, 64
"""Random images of each domain, and of each domain's batch."""
STEPS = 10_000
"""Of a round, over which λ rises."""
DRAWN = 64
"""Steps whose batches the peers are given; then they begin again."""


@dataclass(frozen=True)
class Ours:
    """A training of ours at its beginning, and the steps that it can take."""

    steps: Loop
    training: Training
    batches: RoundBatches


def pair(seeds: list[int], device: torch.device) -> Pair:
    """Two domains of random images; time does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    shape, every = (2, IMAGES, 3, 28, 28), torch.arange(IMAGES, device=device)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    labels = torch.randint(CLASSES, (IMAGES,), generator=generator).to(device)
    return Pair(
        seeds=seeds,
        source=Labelled(pixels[0], labels),
        target=Unlabelled(pixels[1]),
        source_pools=[every] * len(seeds),
        held_out_pools=[every[:0]] * len(seeds),
        target_pools=[every] * len(seeds),
        classes=CLASSES,
        scale=torch.tensor(2 / 255, device=device),
        shift=torch.tensor(1.0, device=device),
    )


def ours(seeds: int, device: torch.device, **settings: Any) -> Ours:
    """DANN, as an experiment would train it.

    Args:
        seeds: S.
        device: where.
        settings: of the training.
    """
    domains = pair(list(range(seeds)), device)
    train = Train(steps=STEPS, batch_size=BATCH, optimizer="sgd", lr=0.01, momentum=0.9, **settings)
    benchmark = AdaptationSettings("random", "random", normalise="half")
    run = StackRun(benchmark, LeNet(), DANN(), train, domains.seeds, {})
    training = begin(run, domains)
    batches = RoundBatches(domains, 0, Round(STEPS), [None] * seeds, train)
    done = 0

    def take(count: int) -> None:
        nonlocal done
        fit(training, batches.batch, done + count, done)
        done += count
        if not all(training.active):
            raise SystemExit(f"error: the training failed: {training.failures}")

    return Ours(take, training, batches)


def given_of(single: Ours) -> Given:
    """What the peers need to do the same as one seed of ours, whose pools are whole domains."""
    batches, train = single.batches, single.training.train
    source, target = batches.pair.source, batches.pair.target
    device, count = source.labels.device, len(source.labels)
    places = (batches.source, batches.target)
    rows = [torch.stack([of.at(step)[0] for of in places]) for step in range(DRAWN)]
    return Given(
        images=torch.cat([source.images, target.images]),
        labels=source.labels,
        places=torch.stack(rows) + torch.tensor([[0], [count]], device=device),
        strengths=reversal_strength(torch.arange(train.steps, device=device) / train.steps),
        rate=train.lr,
        momentum=train.momentum,
    )


def copies_of(single: Ours) -> Callable[[], Networks]:
    """A function that makes the peers' networks, with the weights that ours have now."""
    weights = [p.detach().clone() for p in single.training.one(0)[1].parameters()]

    def make() -> Networks:
        networks = Networks(classes=CLASSES)
        copied(networks, torch.nn.ParameterList(weights))
        return networks

    return make


def peer_loops(
    given: Given, network: Callable[[], Networks], folder: Path, compiled: bool
) -> dict[str, Loop]:
    """The hand-written loops, and pytorch-adapt's if it is installed."""
    loops: dict[str, Loop] = {
        "hand": peers.hand_loop(network(), given),
        "hand, channels last": peers.hand_loop(network(), given, channels_last=True),
    }
    if compiled:
        loops["hand, compiled"] = peers.hand_loop(network(), given, compiled=True)
    loops["hand, PNG files"] = peers.png_loop(network(), given, folder)
    package = imported("pytorch_adapt.hooks")
    if package is not None:
        loops["pytorch-adapt"] = peers.pytorch_adapt_loop(package, network(), given)
        loops["pytorch-adapt, channels last"] = peers.pytorch_adapt_loop(
            package, network(), given, channels_last=True
        )
    return loops


def dann(options: Options) -> dict[str, float]:
    """A step of DANN."""
    single = ours(1, options.device)
    given, network = given_of(single), copies_of(single)
    last = ours(1, options.device, channels_last=True)
    loops: dict[str, Loop] = {"fit": single.steps, "fit, channels last": last.steps}
    if not options.quick:
        loops["fit, compiled"] = ours(1, options.device, compile=True).steps
    with tempfile.TemporaryDirectory() as folder:
        loops |= peer_loops(given, network, Path(folder), compiled=not options.quick)
        times = alternate(loops, options)
    report(f"DANN on LeNet, {BATCH} + {BATCH} images of 3 x 28 x 28", times, {})
    mine = fit_name(options.device)
    by_hand = ["hand", "hand, channels last", "hand, compiled"]
    hand = best(times, [name for name in by_hand if name in loops])
    found = {
        "dann.over_hand": 1 / faster(times, mine, hand),
        "dann.vs_png": faster(times, mine, "hand, PNG files"),
    }
    named = {"": "pytorch-adapt", "_channels_last": "pytorch-adapt, channels last"}
    for end, name in named.items():
        if name in loops:
            found[f"dann.vs_pytorch_adapt{end}"] = faster(times, mine, name)
    return found


def fit_name(device: torch.device) -> str:
    """Our loop whose time counts."""
    return "fit, channels last" if device.type == "cpu" else "fit"


def dann_stack5(options: Options) -> dict[str, float]:
    """Five seeds at once."""
    mine, stack, seeds = fit_name(options.device), "fit, stack of 5", 5
    times = alternate(
        {
            mine: ours(1, options.device, channels_last="last" in mine).steps,
            stack: ours(seeds, options.device).steps,
        },
        options,
    )
    report("DANN on LeNet, seeds in a stack", times, {stack: seeds})
    return {"dann_stack5.over_one": 1 / faster(times, stack, mine, seeds)}


def main() -> None:
    """Measures and prints."""
    parser = parser_of(__doc__)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=WORKS)
    asked = parser.parse_args()
    prepare_process(1)
    options = options_of(parser, asked)
    works = {"dann": dann, "dann_stack5": dann_stack5}
    results: dict[str, float] = {}
    for name in asked.works:
        results |= works[name](options)
    print_ratios(results)


if __name__ == "__main__":
    main()
