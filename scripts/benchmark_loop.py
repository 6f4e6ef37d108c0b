"""How fast is our loop? `fit` against the best hand-written loops, alternately in one process.

Prints a table and, as its last line, one JSON object of ratios:

- `loop.over_hand`: our time over the fastest hand-written loop's, 784-400-400-10, batch 128, Adam.
- `stack.over_hand`: time per seed of our stack of 20 over the fastest hand-written loop's for one
  seed, 784-100-10, batch 10.
- `ewc.over_naive_2`, `ewc.over_naive_20`: EWC's step over the naive one after 2 and 20 tasks.
- `fisher.seconds`: the exact Fisher of 60,000 samples, 784-400-400-10.

Run: python scripts/benchmark_loop.py [--quick] [--threads N]
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_PROC_BIND", "true")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlresearch.backbones.mlp import MLP
from tlresearch.continual import EWC, Naive
from tlresearch.continual.protocol import StackRun, begin
from tlresearch.data.batches import StageBatches
from tlresearch.data.catalogue import ImageData, Split
from tlresearch.data.tasks import StreamSettings, make_stream
from tlresearch.functional.fisher import diagonal_fisher
from tlresearch.functional.penalties import Quadratic, add_quadratics
from tlresearch.training import tree
from tlresearch.training.device import prepare_process
from tlresearch.training.loop import fit
from tlresearch.training.settings import Train

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Size:
    """A network and its batch."""

    hidden: tuple[int, ...]
    batch: int

    def __str__(self) -> str:
        return "-".join(map(str, (784, *self.hidden, 10))) + f", batch {self.batch}"


LARGE, SMALL = Size((400, 400), 128), Size((100,), 10)


def images(count: int = 60_000) -> ImageData:
    """Random images in the shape of MNIST; the time of a step does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)
    split = Split(x, torch.randint(0, 10, (count,), generator=generator))
    return ImageData("random", split, split, tuple("0123456789"), "generated", "")


def our_loop(
    data: ImageData, size: Size, seeds: int, method: Naive | EWC | None = None, tasks: int = 0
) -> Callable[[int], None]:
    """A function that takes n more steps of `fit`, as an experiment would.

    With `tasks`, EWC has a penalty for so many earlier tasks.
    """
    method = method or Naive()
    settings = StreamSettings("mnist", tasks=1, scenario="domain")
    train = Train(steps=10**6, batch_size=size.batch)
    run = StackRun(settings, MLP(size.hidden), method, train, list(range(seeds)), {})
    stream = make_stream(settings, data, run.seeds)
    training = begin(run, stream, CPU)
    if tasks:
        training.state = tree.stack([_penalties(training.one(i)[1], tasks) for i in range(seeds)])
    pools = [row[0] for row in stream.train_pools]
    batches = StageBatches(stream, pools, 0, size.batch, train.steps)
    done = 0

    def steps(count: int) -> None:
        nonlocal done
        fit(training, batches.batch, done + count, done)
        done += count

    return steps


def _penalties(network: nn.Module, tasks: int) -> Quadratic:
    """What EWC remembers after so many tasks."""
    total = Quadratic({}, {}, torch.zeros(()))
    for _ in range(tasks):
        weights = {k: p.detach().clone() for k, p in network.named_parameters()}
        fisher = {k: 1e-3 * torch.rand_like(p) for k, p in weights.items()}
        total = add_quadratics(total, Quadratic(fisher, weights, torch.zeros(())))
    return total


def hand_loops(data: ImageData, size: Size) -> dict[str, Callable[[int], None]]:
    """The fastest loops for one seed that we know to write by hand."""
    bytes_, labels = data.train.images.flatten(1), data.train.labels
    floats = bytes_.float().div_(255)

    def loop(x: Tensor, scale: bool, compiled: bool) -> Callable[[int], None]:
        network = _plain_mlp(size)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
        order, position = torch.randperm(len(x)), 0

        def loss_of(x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(network(x.float().mul_(1 / 255) if scale else x), y)

        loss_of = torch.compile(loss_of) if compiled else loss_of

        def steps(count: int) -> None:
            nonlocal order, position
            for _ in range(count):
                if position + size.batch > len(x):
                    order, position = torch.randperm(len(x)), 0
                rows = order[position : position + size.batch]
                position += size.batch
                loss = loss_of(x.index_select(0, rows), labels.index_select(0, rows))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return steps

    return {
        "hand, uint8": loop(bytes_, True, False),
        "hand, float32": loop(floats, False, False),
        "hand, float32, compiled": loop(floats, False, True),
        "hand, float32, manual": _manual_loop(floats, labels, size),
    }


def _plain_mlp(size: Size) -> nn.Sequential:
    widths = (784, *size.hidden)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 10))


def _manual_loop(x: Tensor, y: Tensor, size: Size) -> Callable[[int], None]:
    """Forward and backward written out without autograd, gradients into kept buffers."""
    network = _plain_mlp(size)
    layers = [m for m in network if isinstance(m, nn.Linear)]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    order, position = torch.randperm(len(x)), 0
    rows_of_batch = torch.arange(size.batch)

    @torch.no_grad()
    def steps(count: int) -> None:
        nonlocal order, position
        for _ in range(count):
            if position + size.batch > len(x):
                order, position = torch.randperm(len(x)), 0
            rows = order[position : position + size.batch]
            position += size.batch
            inputs = [x.index_select(0, rows)]
            for layer in layers[:-1]:
                z = torch.addmm(layer.bias, inputs[-1], layer.weight.T)
                inputs.append(z.relu_())
            d = torch.addmm(layers[-1].bias, inputs[-1], layers[-1].weight.T).softmax(1)
            d[rows_of_batch, y.index_select(0, rows)] -= 1
            d.div_(size.batch)
            for i in range(len(layers) - 1, -1, -1):
                torch.mm(d.T, inputs[i], out=layers[i].weight.grad)
                torch.sum(d, 0, out=layers[i].bias.grad)
                if i:
                    d = torch.mm(d, layers[i].weight).mul_(inputs[i] > 0)
            optimizer.step()

    return steps


def alternate(
    loops: dict[str, Callable[[int], None]], steps: int, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds a step of each loop in each round; the loops take turns."""
    for loop in loops.values():
        loop(max(10, steps // 5))
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            began = time.perf_counter()
            loop(steps)
            times[name].append((time.perf_counter() - began) / steps * 1e3)
    return times


def report(title: str, times: dict[str, list[float]], seeds: dict[str, int]) -> None:
    """Median and range of each loop."""
    print(f"\n{title}")
    print(f"  {'loop':<26}{'S':>4}{'ms/step':>10}{'min':>9}{'max':>9}{'ms per seed':>13}")
    for name, values in times.items():
        middle, count = statistics.median(values), seeds.get(name, 1)
        print(
            f"  {name:<26}{count:>4}{middle:>10.3f}{min(values):>9.3f}{max(values):>9.3f}"
            f"{middle / count:>13.4f}"
        )


def ratio(times: dict[str, list[float]], ours: str, others: list[str], seeds: int = 1) -> float:
    """Median over rounds of our time a seed over the time of the loop that is fastest in median."""
    best = min(others, key=lambda name: statistics.median(times[name]))
    pairs = zip(times[ours], times[best], strict=True)
    return statistics.median(mine / seeds / theirs for mine, theirs in pairs)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Times our loop against hand-written ones.")
    parser.add_argument("--quick", action="store_true", help="under a minute, less certain")
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    prepare_process(options.threads)
    rounds, scale = (5, 1) if options.quick else (15, 3)
    data = images()
    results: dict[str, float] = {}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores")

    hand = hand_loops(data, LARGE)
    times = alternate({"fit": our_loop(data, LARGE, 1), **hand}, 60 * scale, rounds)
    report(str(LARGE), times, {})
    results["loop.over_hand"] = ratio(times, "fit", list(hand))

    hand = hand_loops(data, SMALL)
    times = alternate({"fit, stack": our_loop(data, SMALL, 20), **hand}, 100 * scale, rounds)
    report(str(SMALL), times, {"fit, stack": 20})
    results["stack.over_hand"] = ratio(times, "fit, stack", list(hand), 20)

    loops = {"naive": our_loop(data, LARGE, 1)}
    for tasks in (2, 20):
        loops[f"ewc after {tasks} tasks"] = our_loop(data, LARGE, 1, EWC(strength=1.0), tasks)
    times = alternate(loops, 60 * scale, rounds)
    report(f"EWC, {LARGE}", times, {})
    for tasks in (2, 20):
        results[f"ewc.over_naive_{tasks}"] = ratio(times, f"ewc after {tasks} tasks", ["naive"])

    results["fisher.seconds"] = fisher_seconds(data, rounds=1 if options.quick else 3)
    print(f"\nexact Fisher of 60,000 samples: {results['fisher.seconds']:.2f} s")
    print(json.dumps({name: round(value, 4) for name, value in results.items()}))


def fisher_seconds(data: ImageData, rounds: int) -> float:
    """Median seconds of the exact diagonal Fisher of all images, 784-400-400-10."""
    network, x, y = (
        nn.Sequential(nn.Flatten(), _plain_mlp(LARGE)),
        data.train.images,
        data.train.labels,
    )
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        diagonal_fisher(network, ((x[i : i + 2000] / 255, y) for i in range(0, len(x), 2000)))
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
