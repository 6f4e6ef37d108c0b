"""How fast is our meta-learning? Against learn2learn, higher, easyfsl and hand-written loops.

The loops of a work take turns in one process. Prints tables and, as its last line, one JSON object
of ratios, each the median over the rounds: `WORK.vs_PEER`, how many times faster we are, and
`WORK.over_hand`, our time over that of the fastest hand-written loop.

- `sinusoid`, `sinusoid_5`: a meta-step of MAML with 1 and 5 inner steps; 25 tasks, 10 + 10
  samples, MLP 1-40-40-1; one seed through `fit`, compiled.
- `sinusoid_stack10`, `sinusoid_5_stack10`: ten seeds in one stack, not compiled, per seed.
- `conv4`: a meta-step of MAML with 1 inner step on Conv-4; 32 tasks, 5 ways, 1 shot, 1 query.
  One single-threaded process with a seed of its own per core (as several `tlresearch run` share a
  table), compiled, per seed, against learn2learn with as many threads. `conv4_thread`: one
  process with one thread against one thread.
- `conv4.memory_over_learn2learn`: growth of the resident memory by such meta-steps, ours in chunks
  of CHUNK tasks over learn2learn's; `conv4.unchunked_memory_over_learn2learn`: all tasks at once.
- `episodes`: float32 episodes of 5 ways, 1 shot, 15 queries per second; `episodes_single`: asked
  for one at a time.

Run: python scripts/benchmark_fewshot.py [--quick] [--device cuda] [--works NAME …]
"""

import argparse
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fewshot_peers as peers
import torch
from fewshot_peers import Given, Sampler
from torch import Tensor, nn
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

from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.mlp import MLP
from tlresearch.data.episodes import EpisodeBatches, Pool
from tlresearch.fewshot.batches import training_batches
from tlresearch.fewshot.maml import MAML
from tlresearch.fewshot.protocol import StackRun, begin
from tlresearch.fewshot.settings import FewShotSettings
from tlresearch.fewshot.sinusoid_tasks import SinusoidTasks
from tlresearch.training.device import prepare_process
from tlresearch.training.loop import fit
from tlresearch.training.settings import Train

WORKS = ("sinusoid", "sinusoid_5", "conv4", "memory", "episodes")
QUICK = ("sinusoid", "episodes")
"""Those that take under a minute together."""
CHUNK = 2
"""Tasks in memory at once where we are measured in chunks."""
CLASSES, IMAGES = 1100, 20
"""Of random images in the shape of Omniglot's training characters."""


@dataclass(frozen=True)
class Ours:
    """A training of ours at its beginning, the steps that it can take, and its episodes."""

    steps: Loop
    batch: Callable[[int], tuple[Tensor | None, ...]]
    network: nn.Module
    """Of the first seed, as initialised: a copy."""


def ours(work: str, options: Any, seeds: int = 1, first: int = 0, **settings: Any) -> Ours:
    """A function that takes n more steps of `fit`, as an experiment would.

    Args:
        work: `sinusoid` or `conv4`.
        options: with a `device`.
        seeds: S.
        first: the first of them.
        settings: of MAML, and `compile` of the training.
    """
    compiled = settings.pop("compile", False)
    if work == "sinusoid":
        benchmark = FewShotSettings("sinusoid", ways=1, shots=10, queries=10)
        method, backbone = MAML(inner_lr=0.01, tasks=25, **settings), MLP((40, 40))
        tasks: Any = SinusoidTasks(benchmark, options.device, torch.float32)
    else:
        benchmark = FewShotSettings("omniglot", ways=5, shots=1, queries=1)
        method, backbone = MAML(inner_lr=0.4, tasks=32, **settings), Conv4()
        tasks = _images(benchmark, options.device)
    train = Train(steps=10**9, compile=compiled)
    run = StackRun(benchmark, backbone, method, train, list(range(first, first + seeds)), {})
    training = begin(run, tasks, options.device)
    network = method.networks(backbone, tasks.shape_for(method), tasks.units(method), first)
    batch = tasks.training(method, train, run.seeds)
    done = 0

    def steps(count: int) -> None:
        nonlocal done
        fit(training, batch, done + count, done)
        done += count
        if not all(training.active):
            raise SystemExit(f"error: the training failed: {training.failures}")

    return Ours(steps, batch, network.to(options.device))


def _images(benchmark: FewShotSettings, device: torch.device) -> Any:
    """Random images as `protocol.begin` takes tasks; time does not depend on what they show."""
    pool = random_pool(device)
    scale = torch.tensor(1 / 255, device=device)
    return SimpleNamespace(
        units=lambda method: benchmark.ways,
        shape_for=lambda method: (1, 28, 28),
        training=lambda method, train, seeds: training_batches(
            pool, benchmark, method, train, seeds, scale
        ),
    )


def random_pool(device: torch.device) -> Pool:
    """Classes of random images."""
    generator = torch.Generator().manual_seed(0)
    shape = (CLASSES * IMAGES, 1, 28, 28)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    first = torch.arange(0, CLASSES * IMAGES, IMAGES)
    return Pool(images.to(device), first.to(device), torch.full_like(first, IMAGES).to(device))


def sinusoid(options: Options, inner_steps: int) -> dict[str, float]:
    """MAML on sinusoids."""
    torch._dynamo.reset()
    settings = {"inner_steps": inner_steps}
    single = ours("sinusoid", options, compile=True, **settings)
    given = Given.of(single.batch, 16, ways=1)

    def network() -> nn.Module:
        return copied(peers.mlp(), single.network)

    loops: dict[str, Loop] = {
        "fit, compiled": single.steps,
        "fit": ours("sinusoid", options, **settings).steps,
        "fit, stack of 10": ours("sinusoid", options, seeds=10, **settings).steps,
        "hand": peers.hand_loop(network(), given, inner_steps, 0.01, False),
        "hand, compiled": peers.hand_loop(network(), given, inner_steps, 0.01, True),
    }
    loops |= peer_loops(network, given, inner_steps, 0.01)
    times = alternate(loops, options)
    report(f"MAML on sinusoids, inner steps: {inner_steps}", times, {"fit, stack of 10": 10})
    work = "sinusoid" if inner_steps == 1 else f"sinusoid_{inner_steps}"
    found = {}
    for peer in loops.keys() & {"learn2learn", "higher"}:
        found[f"{work}.vs_{peer}"] = faster(times, "fit, compiled", peer)
        found[f"{work}_stack10.vs_{peer}"] = faster(times, "fit, stack of 10", peer, 10)
    hand = best(times, ["hand", "hand, compiled"])
    found[f"{work}.over_hand"] = 1 / faster(times, "fit, compiled", hand)
    return dict(sorted(found.items()))


def peer_loops(
    network: Callable[[], nn.Module], given: Given, inner_steps: int, rate: float
) -> dict[str, Loop]:
    """The loops of the peers that are installed."""
    makers = {"learn2learn": peers.learn2learn_loop, "higher": peers.higher_loop}
    loops = {}
    for name, make in makers.items():
        package = imported(name)
        if package is not None:
            loops[name] = make(package, network(), given, inner_steps, rate)
    return loops


def conv4(options: Options) -> dict[str, float]:
    """MAML on Conv-4: one process per core, and one thread against one."""
    torch._dynamo.reset()
    cores = 1 if options.device.type == "cuda" else len(os.sched_getaffinity(0))
    single = ours("conv4", options)
    given = Given.of(single.batch, 4, ways=5)

    def network() -> nn.Module:
        return copied(peers.conv4(5), single.network)

    loops: dict[str, Loop] = {"fit": single.steps}
    loops[f"fit, chunks of {CHUNK}"] = ours("conv4", options, task_chunk=CHUNK).steps
    loops["fit, compiled"] = ours("conv4", options, compile=True).steps
    loops |= peer_loops(network, given, 1, 0.4)
    seeds = {}
    workers = [] if cores == 1 else [Worker(seed) for seed in range(cores)]
    if workers:
        for worker in workers:
            worker.wait()
        together = f"fit, compiled, {cores} processes"
        loops[together], seeds[together] = lambda n: together_steps(workers, n), cores
        if "learn2learn" in loops:
            threaded = peer_loops(network, given, 1, 0.4)["learn2learn"]
            loops[f"learn2learn, {cores} threads"] = with_threads(threaded, cores)
    times = alternate(loops, options)
    for worker in workers:
        worker.stop()
    report("MAML on Conv-4, 32 tasks, 5 ways, 1 shot", times, seeds)
    found = {}
    for peer in ("learn2learn", "higher"):
        if peer in loops:
            found[f"conv4_thread.vs_{peer}"] = faster(times, "fit, compiled", peer)
    if workers and "learn2learn" in loops:
        peer = f"learn2learn, {cores} threads"
        found["conv4.vs_learn2learn"] = faster(times, together, peer, cores)
    return found


def with_threads(loop: Loop, threads: int) -> Loop:
    """The loop with another number of threads, which is restored after it."""

    def steps(count: int) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        loop(count)
        torch.set_num_threads(before)

    return steps


class Worker:
    """A process with one thread that trains a seed of its own when it is told to."""

    def __init__(self, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=work, args=(other, seed), daemon=True)
        self.process.start()

    def wait(self) -> None:
        """Until it has done what it was told; at first, until it is ready."""
        self.pipe.recv()

    def tell(self, count: int) -> None:
        """To take so many steps; 0: to end."""
        self.pipe.send(count)

    def stop(self) -> None:
        """Ends it."""
        self.tell(0)
        self.process.join()


def work(pipe: Connection, seed: int) -> None:
    """What a worker does."""
    prepare_process(1)
    training = ours("conv4", SimpleNamespace(device=torch.device("cpu")), 1, seed, compile=True)
    count = 2
    while count:
        training.steps(count)
        pipe.send("done")
        count = pipe.recv()


def together_steps(workers: Sequence[Worker], count: int) -> None:
    """So many steps of each worker, at the same time."""
    for worker in workers:
        worker.tell(count)
    for worker in workers:
        worker.wait()


def memory(options: Options) -> dict[str, float]:
    """Growth of resident memory by meta-steps on Conv-4, each in a fresh process."""
    if platform.system() != "Linux" or options.device.type == "cuda":
        print("\nleft out: memory, which is read from Linux's /proc and of the CPU")
        return {}
    names = {"fit": "all tasks at once", f"fit {CHUNK}": f"chunks of {CHUNK} tasks"}
    if imported("learn2learn") is not None:
        names["learn2learn"] = "task by task"
    print("\nPeak growth of resident memory by meta-steps on Conv-4, 32 tasks")
    grown = {}
    for name in names:
        words = [sys.executable, __file__, "--memory-of", name]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        grown[name] = int(done.stdout.splitlines()[-1])
        label = f"{name.split()[0]}, {names[name]}"
        print(f"  {label:<36}{grown[name] / 2**20:>8.0f} MiB", flush=True)
    if "learn2learn" not in grown:
        return {}
    return {
        "conv4.memory_over_learn2learn": grown[f"fit {CHUNK}"] / grown["learn2learn"],
        "conv4.unchunked_memory_over_learn2learn": grown["fit"] / grown["learn2learn"],
    }


def memory_of(name: str) -> int:
    """Bytes by which the peak of the resident memory of this process grows in three steps."""
    options = SimpleNamespace(device=torch.device("cpu"))
    kind, *chunk = name.split()
    single = ours("conv4", options, task_chunk=int(chunk[0]) if chunk else None)
    given = Given.of(single.batch, 3, ways=5)
    network = copied(peers.conv4(5), single.network)
    if kind == "learn2learn":
        loop = peers.learn2learn_loop(imported(kind), network, given, 1, 0.4)
    else:
        loop = single.steps
    nn.Conv2d(1, 1, 3)(torch.zeros(1, 1, 8, 8)).sum().backward()  # what any convolution loads
    before = _status("VmRSS")
    loop(3)
    return _status("VmHWM") - before


def _status(name: str) -> int:
    """A line of /proc/self/status in bytes; `ru_maxrss` would hold the parent's, too."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def episodes(options: Options) -> dict[str, float]:
    """Samplers of 5 ways, 1 shot and 15 queries; all give float32 in [0, 1]."""
    ways, shots, queries, many = 5, 1, 15, 32
    pool = random_pool(torch.device("cpu"))
    x = pool.images.float().div_(255)
    y = torch.arange(CLASSES).repeat_interleave(IMAGES)
    sizes = (ways, shots, queries)
    makers = {"learn2learn": peers.learn2learn_sampler, "easyfsl": peers.easyfsl_sampler}
    samplers: dict[str, Sampler] = {}
    for name, make in makers.items():
        package = imported(name)
        if package is not None:
            samplers[name] = make(package, x, y, *sizes)
    for sampler in samplers.values():
        check_episode(*next(sampler), x, sizes)

    def drawn(each: int) -> Loop:
        batches = EpisodeBatches(pool, [0], *sizes, each, torch.tensor(1 / 255))
        support, query = (t[0, 0] for t in batches.batch(0)[:2] if t is not None)
        check_episode(support, query, x, sizes)
        step = 0

        def steps(count: int) -> None:
            nonlocal step
            for _ in range(count):
                batches.batch(step)
                step += 1

        return steps

    together, single = f"EpisodeBatches, {many} at once", "EpisodeBatches, one at a time"
    loops = {together: drawn(many), single: drawn(1)}
    loops |= {name: sampled(sampler) for name, sampler in samplers.items()}
    times = alternate(loops, options)
    print("\nEpisodes of 5 ways, 1 shot, 15 queries, float32")
    for name, values in times.items():
        rate = (many if name == together else 1) / statistics.median(values)
        print(f"  {name:<36}{rate:>10.0f} per second", flush=True)
    found = {}
    for name in samplers:
        found[f"episodes.vs_{name}"] = faster(times, together, name, many)
        found[f"episodes_single.vs_{name}"] = faster(times, single, name)
    return dict(sorted(found.items()))


def sampled(sampler: Sampler) -> Loop:
    """A function that takes n more episodes."""

    def steps(count: int) -> None:
        for _ in range(count):
            next(sampler)

    return steps


def check_episode(support: Tensor, query: Tensor, x: Tensor, sizes: tuple[int, int, int]) -> None:
    """That an episode is one: float32, distinct images of distinct classes, in their rows."""
    ways, shots, queries = sizes
    assert support.dtype == query.dtype == torch.float32
    assert support.shape == (ways, shots, 1, 28, 28) and query.shape == (ways, queries, 1, 28, 28)
    images = torch.cat([support, query], 1).flatten(0, 1).flatten(1)
    found = torch.stack([(x.flatten(1) - image).abs().amax(1).argmin() for image in images])
    torch.testing.assert_close(x.flatten(1)[found], images, atol=1e-6, rtol=0)
    assert len(found.unique()) == len(found)
    of_class = found.view(ways, -1) // IMAGES
    assert (of_class == of_class[:, :1]).all() and len(of_class[:, 0].unique()) == ways


def main() -> None:
    """Measures and prints."""
    parser = parser_of(__doc__)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=None)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    prepare_process(1)
    if given.memory_of:
        print(memory_of(given.memory_of))
        return
    options = options_of(parser, given, quick=(0.15, 3), long=(1.0, 9))
    works: dict[str, Callable[[], dict[str, float]]] = {
        "sinusoid": lambda: sinusoid(options, 1),
        "sinusoid_5": lambda: sinusoid(options, 5),
        "conv4": lambda: conv4(options),
        "memory": lambda: memory(options),
        "episodes": lambda: episodes(options),
    }
    # Compiling five inner steps alone takes half a minute.
    chosen = given.works or (QUICK if given.quick else WORKS)
    results: dict[str, float] = {}
    for name in chosen:
        results |= works[name]()
    print_ratios(results)


if __name__ == "__main__":
    main()
