"""On a GPU: the numbers of the CPU, a stack is its separate runs, resume is exact, mixed precision.

`TLRESEARCH_GPU_TEST_DEVICE=cpu` runs this code without a GPU.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from tlresearch import cli
from tlresearch.backbones.mlp import MLP
from tlresearch.continual import EWC, Joint, Naive
from tlresearch.continual.method import FisherSettings
from tlresearch.continual.protocol import StackRun, run_stack
from tlresearch.data.tasks import StreamSettings
from tlresearch.training import device as devices
from tlresearch.training.loop import Training
from tlresearch.training.observer import RunFiles
from tlresearch.training.settings import Train

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("tiny")]

ROOT = Path(__file__).resolve().parents[2]
STREAM = StreamSettings("tiny", tasks=3, scenario="class", class_order="random")
TRAIN = Train(steps=30, batch_size=16, lr=0.01, precision="fp64", schedule="cosine", clip=1.0)
BACKBONE = MLP(hidden=(12, 8), dropout=0.3, norm="batch")
METHODS = {
    "naive": Naive(),
    "joint": Joint(),
    "ewc": EWC(strength=50.0, fisher=FisherSettings(labels="sample", samples=30)),
}


def run_of(name: str, seeds: list[int], **train: Any) -> StackRun:
    return StackRun(STREAM, BACKBONE, METHODS[name], replace(TRAIN, **train), seeds, {})


def run(what: StackRun, device: torch.device, folder: Path, **options: Any) -> list[Any]:
    files = RunFiles(folder / "checkpoint.pt", folder / "metrics.jsonl")
    return run_stack(what, device, files, **options)


def tensors(training: Training) -> dict[str, torch.Tensor]:
    """Weights and running statistics, but not the keys of dropout."""
    named = training.stack.params | training.stack.buffers
    return {k: v.detach() for k, v in named.items() if v.is_floating_point()}


def assert_close(ours: Training, theirs: Training, place: int = 0, other: int = 0) -> None:
    for name, value in tensors(ours).items():
        expected = tensors(theirs)[name][other].cpu()
        torch.testing.assert_close(value[place].cpu(), expected, atol=1e-9, rtol=0, msg=name)


@pytest.mark.parametrize("name", METHODS)
def test_a_stack_is_its_separate_runs(name, tmp_path, trainings, gpu):
    """Three tasks in float64 with dropout, batch norm, clipping and a schedule, to 1e-9."""
    for place, seeds in enumerate(([3, 7], [3], [7])):
        run(run_of(name, seeds), gpu, tmp_path / str(place))
    stack, *alone = trainings
    for place in range(2):
        assert_close(stack, alone[place], place)
    assert all(value.device.type == gpu.type for value in tensors(stack).values())


@pytest.mark.parametrize("name", METHODS)
def test_the_numbers_are_those_of_the_cpu(name, tmp_path, trainings, gpu):
    """The same initialisation, batches, masks and sampled labels: 1e-9 apart in float64."""
    there = run(run_of(name, [3, 7]), gpu, tmp_path / "gpu")
    here = run(run_of(name, [3, 7]), torch.device("cpu"), tmp_path / "cpu")
    for place in range(2):
        assert_close(trainings[0], trainings[1], place, place)
    assert [o.arrays for o in there] == [o.arrays for o in here]


@pytest.mark.parametrize("seeds", [[5], [5, 2]])
@pytest.mark.parametrize("name", ["naive", "ewc"])
def test_resume_is_exact(name, seeds, tmp_path, trainings, gpu):
    """Stopped in the second task: the same bits, weights and moments, as without the stop."""
    what = run_of(name, seeds, precision="fp32")
    expected = run(what, gpu, tmp_path / "whole")
    done = [0]

    def stop(steps: int) -> None:
        done[0] += steps
        if done[0] >= 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(what, gpu, tmp_path / "pieces", progress=stop, checkpoint_seconds=0)
    assert (tmp_path / "pieces/checkpoint.pt").exists()
    found = run(what, gpu, tmp_path / "pieces")
    assert [o.arrays for o in found] == [o.arrays for o in expected]
    pairs = zip(trainings[-1].step_tensors(), trainings[0].step_tensors(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("seeds", [[5], [5, 2]])
@pytest.mark.parametrize("precision", ["bf16-mixed", "fp16-mixed"])
def test_mixed_precision_stays_near_single_precision(precision, seeds, tmp_path, trainings, gpu):
    """Weights stay float32, and end nearer to float32's end than a fifth of the way there."""
    if precision not in get_args(get_type_hints(Train)["precision"]):
        pytest.skip(f"train.precision has no {precision}")
    settings: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "clip": 0.0, "schedule": "constant"}
    for kind, folder in ((precision, "mixed"), ("fp32", "full")):
        what = run_of("naive", seeds, precision=kind, **settings)
        what = replace(what, backbone=MLP(hidden=(12, 8)), benchmark=replace(STREAM, tasks=1))
        outcomes = run(what, gpu, tmp_path / folder)
        assert [o.status for o in outcomes] == ["finished"] * len(seeds)
    mixed, full = (
        torch.cat([p.flatten(1) for p in t.stack.params.values()], 1).cpu() for t in trainings
    )
    networks = [Naive().networks(MLP(hidden=(12, 8)), (1, 4, 4), 6, seed) for seed in seeds]
    start = torch.stack([torch.cat([p.flatten() for p in n.parameters()]) for n in networks])
    assert mixed.dtype == torch.float32
    gap, way = (mixed - full).norm(dim=1), (full - start).norm(dim=1)
    assert (gap > 0).all()
    assert (gap < 0.2 * way).all()


def test_the_quick_table_by_the_command(tmp_path, capsys, monkeypatch, gpu):
    """`make quick` with --device: every run finishes (on the device that stands in, short ones)."""
    monkeypatch.undo()  # the real digits, not `tiny`
    monkeypatch.setattr(devices, "prepare_process", lambda threads=None: None)
    short = [] if gpu.type == "cuda" else ["train.steps=3", "seeds=[0]"]
    file = str(ROOT / "experiments/quick/forgetting.yaml")
    words = ["run", file, *short, "--device", str(gpu), "--results", str(tmp_path)]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    for row in ("naive", "ewc", "online_ewc", "joint"):
        assert out.count(f"| {row} | ") >= 3
    assert "failed" not in out and "missing" not in out
