"""What the tests of several processes let two of them do, started by torchrun.

Each process writes what it came to into FOLDER/rank0.pt and FOLDER/rank1.pt.
"""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from tlresearch import cli
from tlresearch.backbones.layers import Dropout
from tlresearch.backbones.mlp import MLP
from tlresearch.continual import EWC, Naive, OnlineEWC, protocol
from tlresearch.continual.method import FisherSettings
from tlresearch.continual.protocol import StackRun, run_stack
from tlresearch.data.batches import StageBatches
from tlresearch.data.tasks import StreamSettings
from tlresearch.errors import AgreedError
from tlresearch.functional.fisher import diagonal_fisher
from tlresearch.functional.losses import cross_entropy
from tlresearch.training import distributed
from tlresearch.training.distributed import ALONE, Processes
from tlresearch.training.loop import Training
from tlresearch.training.method import Loss
from tlresearch.training.observer import RunFiles
from tlresearch.training.settings import Train
from tlresearch.training.stack import stack_networks
from tlresearch.training.tree import to_plain

CPU = torch.device("cpu")
# Half a batch of 10 times 21 units is no multiple of the dropout mask's four lanes.
STREAM = StreamSettings("optdigits", tasks=2, scenario="class")
TRAIN = Train(steps=12, batch_size=10, lr=0.01, clip=1.0, precision="fp64")
NETWORK = MLP(hidden=(21,), dropout=0.3)
NORMED = replace(NETWORK, norm="batch")


def run_of(method: Any, backbone: Any = NETWORK, **changes: Any) -> StackRun:
    """Changes are of the stream or of the training, by their names."""
    stream = {k: v for k, v in changes.items() if hasattr(STREAM, k)}
    train = {k: v for k, v in changes.items() if k not in stream}
    return StackRun(replace(STREAM, **stream), backbone, method, replace(TRAIN, **train), [3], {})


@dataclass(frozen=True)
class Poisoned(Naive):
    """The loss of the second process is not finite."""

    def loss(self, networks, state, batch) -> Loss:
        loss = super().loss(networks, state, batch)
        part = next(m.part for m in networks.modules() if isinstance(m, Dropout))
        return loss._replace(total=loss.total / (1 - part))


@dataclass(frozen=True)
class Unaveraged(EWC):
    """A Fisher of the process's own part of the data."""

    def after_task(self, networks, state, data):
        return {"fisher": diagonal_fisher(networks, data.batches(20))}


@dataclass(frozen=True)
class Partial(Naive):
    """A loss that does not reach the head's bias."""

    def loss(self, networks, state, batch) -> Loss:
        weight = networks.get_parameter("head.weight")
        logits = networks.get_submodule("backbone")(batch.x) @ weight.T
        return Loss(cross_entropy(logits, batch.y, batch.mask), {})


SAMPLED = FisherSettings("sample", samples=101, normalize=True)
BATCHED = FisherSettings("empirical", samples=50, batch=7)
ONE_BATCH = FisherSettings("predicted", samples=20, batch=30)
CASES = {
    "naive": run_of(Naive()),
    "selected": run_of(Naive(), checkpoint="selected", validation=0.2, evaluate_every=5),
    "ewc": run_of(EWC(strength=50.0)),
    "ewc, sampled labels": run_of(EWC(strength=50.0, fisher=SAMPLED)),
    "online_ewc, batches": run_of(OnlineEWC(strength=50.0, decay=0.7, fisher=BATCHED)),
    "online_ewc, one batch": run_of(OnlineEWC(strength=5.0, fisher=ONE_BATCH)),
    "unused parameter": run_of(Partial()),
}
"""Without batch norm: equal to one process."""

STILL = run_of(Naive(), NORMED, lr=1e-30)
"""Weights that do not move, so that running statistics can be compared."""

LONG = run_of(EWC(strength=50.0), NORMED, steps=30)
"""Stopped in its second task, and resumed."""


def result(run: StackRun, folder: Path, processes: Processes = ALONE) -> dict[str, Any]:
    """Weights, running statistics, state and outcome of a run."""
    begun: list[Training] = []

    def begin(*args: Any) -> Training:
        begun.append(protocol_begin(*args))
        return begun[-1]

    protocol_begin = protocol.begin
    files = RunFiles(folder / "checkpoint.pt", folder / "metrics.jsonl")
    with patch.object(protocol, "begin", begin):
        (outcome,) = run_stack(run, CPU, files, checkpoint_seconds=0, processes=processes)
    stack = begun[-1].stack
    return {
        "weights": {k: p.clone() for k, p in stack.params.items()},
        "buffers": {k: b.clone() for k, b in stack.buffers.items()},
        "state": to_plain(begun[-1].state),
        "matrix": outcome.arrays["accuracy_matrix"],
        "status": outcome.status,
        "reason": outcome.reason,
    }


def resumed(folder: Path, processes: Processes) -> dict[str, Any]:
    """`LONG`, stopped at step 25 of its second task (after a checkpoint at 20), then resumed."""
    batch = StageBatches.batch
    asked = []

    def stopping(self: StageBatches, step: int) -> Any:
        asked.append(step)
        if len(asked) == 30 + 25:
            raise KeyboardInterrupt
        return batch(self, step)

    with patch.object(StageBatches, "batch", stopping):
        try:
            result(LONG, folder, processes)
        except KeyboardInterrupt:
            asked.clear()
        found = result(LONG, folder, processes)
    return found | {"asked": asked}


def gradients(processes: Processes) -> list[Tensor]:
    """After each of the two parts in each process that make a step of eight rows together."""
    torch.manual_seed(0)
    stack = stack_networks([network := nn.Linear(3, 1).double()], processes=processes)
    call = stack.bind(lambda network, x: (network(x).square().mean(),), ())
    rows = torch.arange(24, dtype=torch.float64).sin().view(1, 8, 3)
    parts = rows.chunk(2 * processes.size, 1)[2 * processes.rank :][:2]
    found = []
    for i, part in enumerate(parts):
        with stack.local_gradients(i == 0):
            (call(part)[0] / len(parts)).backward()
        assert network.weight.grad is not None
        found.append(network.weight.grad.clone())
    return found


def command(*arguments: str) -> dict[str, Any]:
    """Exit code and output of the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main(arguments)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def work(folder: Path, processes: Processes) -> dict[str, Any]:
    """All cases, by name."""
    found: dict[str, Any] = {}
    for name, run in (CASES | {"still": STILL, "long": LONG}).items():
        found[name] = result(run, folder / name, processes)
    found["resumed"] = resumed(folder / "resumed", processes)
    found["poisoned"] = result(run_of(Poisoned()), folder / "poisoned", processes)
    try:
        result(run_of(Unaveraged()), folder / "unaveraged", processes)
    except AgreedError as error:
        found["unaveraged"] = str(error)
    with patch.object(Processes, "wrap", lambda self, module: module):
        found["unwrapped"] = result(CASES["naive"], folder / "unwrapped", processes)
    found["gradients"] = gradients(processes)
    experiment, results = str(folder / "exp.yaml"), str(folder / "results")
    found["run"] = command("run", experiment, "--results", results, "--device", "cpu")
    odd = "train.batch_size=15"
    found["refused"] = command("run", experiment, odd, "--results", results, "--device", "cpu")
    return found


if __name__ == "__main__":
    place, joined = Path(sys.argv[1]), distributed.join(CPU)
    torch.save(work(place, joined), place / f"rank{joined.rank}.pt")
