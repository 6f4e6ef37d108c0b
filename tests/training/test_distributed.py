"""Two processes with half of each batch are one process; what one of them alone sees is averaged.

One job of two processes (two_processes.py) does everything; the tests look at what it came to.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import files_in, lines_of

from tlresearch.errors import UserError
from tlresearch.training.distributed import ALONE, Processes, join
from tlresearch.training.stack import stack_networks

# One worker, so that one job serves all.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("two processes")]

ROOT, SCRIPT = Path(__file__).parents[2], Path(__file__).with_name("two_processes.py")
spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
assert spec is not None and spec.loader is not None
two = importlib.util.module_from_spec(spec)
spec.loader.exec_module(two)

EXPERIMENT = """
family: continual
benchmark: {dataset: optdigits, tasks: 2}
backbone: {name: mlp, hidden: [8]}
methods: {naive: {name: naive}}
train: {steps: 3, batch_size: 8}
seeds: [0, 1]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the two processes have worked."""
    if importlib.util.find_spec("lightning_fabric") is None:
        pytest.skip("needs the extra 'distributed'")
    folder = tmp_path_factory.mktemp("two")
    (folder / "exp.yaml").write_text(EXPERIMENT)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *torchrun, str(SCRIPT), str(folder)]
    job = subprocess.run(
        command, env=environment, cwd=folder, timeout=240, capture_output=True, text=True
    )
    assert job.returncode == 0, job.stderr
    assert "find_unused_parameters" not in job.stderr  # torch's advice, which would be wrong here
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    """What each process came to."""
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def close(ours: Any, others: Any) -> None:
    torch.testing.assert_close(ours, others, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", two.CASES)
def test_two_processes_are_one(tmp_path, ranks, name):
    """Weights, accuracy matrix, anchors and Fisher, with dropout on, in float64."""
    alone = two.result(two.CASES[name], tmp_path)
    for part in ("weights", "state", "matrix"):
        close(ranks[0][name][part], alone[part])


def same_bits(ours: Any, others: Any) -> None:
    for part in ("weights", "buffers", "state", "matrix"):
        torch.testing.assert_close(ours[part], others[part], atol=0, rtol=0)


@pytest.mark.parametrize("name", [*two.CASES, "still", "long", "resumed"])
def test_processes_hold_the_same_numbers(ranks, name):
    """Weights, running statistics, state and accuracy matrix: the same bits in both."""
    same_bits(*(rank[name] for rank in ranks))


def test_without_the_wrap_nothing_is_averaged(tmp_path, ranks):
    """The loss called on the bare module: other weights than one process's, and than each other."""
    alone = two.result(two.CASES["naive"], tmp_path)["weights"]
    first, second = (rank["unwrapped"]["weights"]["head.weight"] for rank in ranks)
    assert (first - alone["head.weight"]).abs().max() > 1e-3
    assert (first - second).abs().max() > 1e-3


def test_running_statistics_are_averaged(tmp_path, ranks):
    """The mean of the halves' means is the batch's: equal to one process while weights rest."""
    alone, both = (
        found["buffers"] for found in (two.result(two.STILL, tmp_path), ranks[0]["still"])
    )
    (name,) = (name for name in alone if name.endswith("running_mean"))
    assert alone[name].abs().max() > 0.1
    close(both[name], alone[name])


def test_resume_is_exact(ranks):
    """Stopped at step 25 of task 2, gone on from step 20: the same bits as never stopped."""
    assert ranks[0]["resumed"]["asked"] == list(range(20, 30))
    same_bits(ranks[0]["resumed"], ranks[0]["long"])


def test_a_loss_that_is_not_finite_in_one_process_stops_both(ranks):
    """At step 0, with the weights of initialisation; none waits for the other."""
    for rank in ranks:
        assert rank["poisoned"]["status"] == "failed"
        assert rank["poisoned"]["reason"].endswith("at step 0")
    start = [rank["poisoned"]["weights"]["head.weight"] for rank in ranks]
    assert torch.equal(*start)


def test_a_statistic_that_was_not_averaged_is_refused(ranks):
    """A Fisher of the own part of the data differs between processes, and the method is named."""
    for rank in ranks:
        assert rank["unaveraged"].startswith("Unaveraged.after_task: its state differs")


def test_an_accumulated_step_is_averaged_once(ranks):
    """After the last of two parts: the gradient of the mean over all rows; before, each its own."""
    for rank in ranks:
        close(rank["gradients"][1], two.gradients(ALONE)[1])
    first, second = (rank["gradients"][0] for rank in ranks)
    assert (first - second).abs().max() > 0.01


def test_the_command_writes_and_prints_once(folder, ranks):
    """Records, plan and log come from the main process; each run trained alone (S = 1)."""
    main, other = (rank["run"] for rank in ranks)
    assert main["code"] == other["code"] == 0
    assert "in 2 stacks of up to 1 seeds" in main["out"]
    assert "in each of 2 processes" in main["out"]
    assert "| naive |" in main["out"]
    assert other["out"] == other["err"] == ""
    plan = json.loads((folder / "results/records/exp.plan.json").read_text())
    assert plan["processes"] == 2
    assert [len(keys) for keys in plan["stacks"]] == [1, 1]
    for log in (folder / "results/records/exp/runs").glob("*/metrics.jsonl"):
        assert len(log.read_text().splitlines()) == 2
    records = [json.loads(p.read_text()) for p in (folder / "results").rglob("seed*.json")]
    assert len(records) == 2
    assert "processes" in json.dumps(records[0])


def test_an_error_of_the_user_is_said_once(ranks):
    """Both exit with 2; the main process says why."""
    main, other = (rank["refused"] for rank in ranks)
    assert main["code"] == other["code"] == 2
    assert main["err"].startswith("tlresearch: train.batch_size: 15 samples do not divide")
    assert main["err"].count("\n") == 1
    assert other["err"] == ""


def test_logged_losses_are_the_mean_of_all_processes(tmp_path, folder, ranks):
    """The log of two processes has the losses of one."""
    two.result(two.CASES["ewc"], tmp_path)
    found = [lines_of(files_in(path)) for path in (folder / "ewc", tmp_path)]
    for ours, alone in zip(*found, strict=True):
        close(ours, alone)


def test_alone_nothing_is_asked_of_fabric(monkeypatch):
    """Without torchrun there is one process, whose averages are its own numbers."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)  # an import would fail
    assert join(torch.device("cpu")) is ALONE
    tree = {"a": torch.ones(2)}
    assert ALONE.average(tree, 3.0) is tree


def test_processes_that_torchrun_did_not_start_are_refused(monkeypatch):
    """Each would do all the work, and write over the others."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with pytest.raises(UserError, match="WORLD_SIZE is 2"):
        join(torch.device("cpu"))


def test_several_processes_need_fabric(monkeypatch):
    """The extra that is missing is named."""
    for name, value in {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "a",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(UserError, match=r"pip install 'tlresearch\[distributed\]'"):
        join(torch.device("cpu"))


def test_several_processes_train_one_network():
    """A stack of seeds is one process's affair."""
    networks = [torch.nn.Linear(1, 1) for _ in range(2)]
    with pytest.raises(ValueError, match="2 processes train one network, not 2"):
        stack_networks(networks, processes=Processes(0, 2))
