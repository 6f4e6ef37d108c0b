"""The protocol on a small data set: features, trainings that are shared, records, refusals."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import scipy.io
import torch
from torch import Tensor

from tlresearch.backbones.mlp import MLP
from tlresearch.data import xian
from tlresearch.errors import UserError
from tlresearch.fewshot.zeroshot import METHODS, classifiers, protocol
from tlresearch.fewshot.zeroshot.attribute_prototypes import AttributePrototypes
from tlresearch.fewshot.zeroshot.eszsl import ESZSL
from tlresearch.fewshot.zeroshot.features import features_of, scaled
from tlresearch.fewshot.zeroshot.protocol import Benchmark, StackRun, check, run_stack
from tlresearch.training.distributed import Processes
from tlresearch.training.method import Loss
from tlresearch.training.observer import RunFiles
from tlresearch.training.settings import Train

CPU = torch.device("cpu")
TRAIN = Train(steps=30, batch_size=16, lr=0.01, precision="fp64")
BACKBONE = MLP(hidden=(12,), dropout=0.2)
TRAINED = Benchmark("toy", features="trained")


def run_of(method: Any, seeds: list[int], benchmark: Benchmark, **fields: list[float]) -> StackRun:
    return StackRun(benchmark, BACKBONE, method, TRAIN, seeds, fields)


def files_in(folder: Path, shared: bool = False) -> RunFiles:
    trained = folder / "trained" if shared else None
    return RunFiles(folder / "checkpoint.pt", folder / "metrics.jsonl", trained)


def results(run: StackRun, folder: Path, **changes: Any) -> list[dict[str, float]]:
    outcomes = run_stack(run, CPU, files_in(folder), **changes)
    assert [outcome.status for outcome in outcomes] == ["finished"] * len(run.seeds)
    return [outcome.metrics for outcome in outcomes]


@pytest.mark.parametrize("features", ["inputs", "frozen", "trained"])
@pytest.mark.parametrize("method", METHODS.values())
def test_a_stack_equals_separate_runs(toy, tmp_path, method, features):
    """Seeds and settings of one program have the numbers that they have alone."""
    benchmark = Benchmark("toy", features=features, scale="standard")
    name, values = ("ridge", [1.0, 50.0]) if method is AttributePrototypes else (
        "feature_ridge", [0.1, 90.0])  # fmt: skip
    together = results(
        run_of(method(), [3, 4, 3], benchmark, **{name: [*values, values[1]]}), tmp_path
    )
    for place, (seed, value) in enumerate(zip([3, 4, 3], [*values, values[1]], strict=True)):
        folder = tmp_path / str(place)
        folder.mkdir()
        single = replace(method(), **{name: value})
        (alone,) = results(run_of(single, [seed], benchmark), folder)
        assert alone == pytest.approx(together[place], abs=1e-6)


def test_metrics_and_details_of_a_record(toy, tmp_path):
    """What a table and a reader need; nothing of an unseen class among the network's units."""
    (outcome,) = run_stack(run_of(ESZSL(), [0], TRAINED), CPU, files_in(tmp_path))
    assert outcome.metrics.keys() == set(protocol.METRICS)
    assert set(protocol.DEFAULT_METRICS) <= set(protocol.METRICS)
    assert outcome.details["images"] == {"train": 64, "test_seen": 16, "test_unseen": 30}
    assert (outcome.details["seen_classes"], outcome.details["unseen_classes"]) == (8, 3)
    assert outcome.details["steps"] == TRAIN.steps
    assert outcome.weights["head.bias"].shape == (8,)
    assert len(outcome.arrays["accuracy_by_class"]["test_unseen"]) == 3


def test_inputs_are_no_affair_of_the_seed(toy, tmp_path):
    """A closed form on fixed inputs has one answer; its spread over seeds is 0, not hidden."""
    one, other = results(run_of(ESZSL(), [0, 1], Benchmark("toy")), tmp_path)
    assert one == other


def test_batches_hold_seen_classes_only(toy):
    """Every training image of a seen class once an epoch, under its place among the seen."""
    train = replace(TRAIN, steps=4)
    batches = classifiers.SeenBatches(toy, toy.split, [5], train, CPU)
    seen = []
    for step in range(4):
        x, y, mask = batches(step)
        assert x is not None and y is not None and mask is None and x.shape == (1, 16, 1, 4, 4)
        seen += [
            (tuple((255 * image).round().int().flatten().tolist()), int(unit))
            for image, unit in zip(x[0], y[0], strict=True)
        ]
    images = toy.split.train
    classes = toy.labels[images].unique().tolist()
    expected = [
        (tuple(toy.inputs[i].flatten().tolist()), classes.index(int(toy.labels[i]))) for i in images
    ]
    assert sorted(seen) == sorted(expected)


def test_a_training_is_shared_by_methods_and_settings(toy, tmp_path, monkeypatch):
    """Of two methods and two values the second to the fourth run train nothing; same numbers."""
    trained: list[int] = []
    learn = classifiers._Work.learn

    def spy(work: Any, batches: Any) -> float:
        trained.append(len(work.training.seeds))
        return learn(work, batches)

    monkeypatch.setattr(classifiers._Work, "learn", spy)
    runs = [run_of(m, [0, 1], TRAINED) for m in (ESZSL(), ESZSL(attribute_ridge=9.0))]
    runs += [run_of(AttributePrototypes(), [1], TRAINED)]
    shared = [run_stack(run, CPU, files_in(tmp_path, shared=True)) for run in runs]
    assert trained == [2]
    assert all(outcome.source is None for outcomes in shared for outcome in outcomes)
    (alone,) = results(runs[2], tmp_path)
    assert alone == pytest.approx(shared[2][0].metrics, abs=1e-9)
    # A selection trains on other images, another backbone or seed is another training.
    parts = [replace(TRAINED, evaluate="validation", validation=v) for v in (0.2, 0.4)]
    for other in (*(run_of(ESZSL(), [0], part) for part in parts), run_of(ESZSL(), [2], TRAINED)):
        run_stack(other, CPU, files_in(tmp_path, shared=True))
    assert trained == [2, 1, 1, 1, 1]  # the first of them is `alone`


def test_weights_that_other_code_trained_are_told(toy, tmp_path, monkeypatch):
    run, files = run_of(ESZSL(), [0], TRAINED), files_in(tmp_path, shared=True)
    monkeypatch.setattr(classifiers, "training_source", lambda run: "older")
    run_stack(run, CPU, files)
    monkeypatch.setattr(classifiers, "training_source", lambda run: "newer")
    (outcome,) = run_stack(run, CPU, files)
    assert outcome.source == "older"


def test_a_resumed_training_has_the_same_numbers(toy, tmp_path):
    """Stopped after every 20 steps' checkpoint, the run goes on to the bit."""

    class StopError(Exception):
        pass

    (whole,) = results(run_of(ESZSL(), [0], TRAINED), tmp_path)
    folder = tmp_path / "stopped"
    folder.mkdir()
    files = files_in(folder)

    def stop(entry: int) -> None:
        if files.checkpoint.exists():
            raise StopError

    run = run_of(ESZSL(), [0], TRAINED)
    for _ in range(2):
        with pytest.raises(StopError):
            run_stack(run, CPU, files, progress=stop, checkpoint_seconds=0.0)
    assert files.checkpoint.exists()
    (outcome,) = run_stack(run, CPU, files)
    assert outcome.metrics == whole and outcome.details["steps"] == TRAIN.steps


def test_a_selection_measures_validation_classes(toy, tmp_path):
    """Two validation classes unseen, a quarter of the others' training images held out."""
    held_out = Benchmark("toy", evaluate="validation", validation=0.25)
    (outcome,) = run_stack(run_of(ESZSL(), [0], held_out), CPU, files_in(tmp_path))
    assert outcome.details["images"] == {"train": 36, "test_seen": 12, "test_unseen": 16}
    assert (outcome.details["seen_classes"], outcome.details["unseen_classes"]) == (6, 2)


def test_scaling_looks_at_training_images_only():
    """Mean 0 and deviation 1 over them; a constant number becomes 0; unit rows have length 1."""
    features = torch.tensor([[1.0, 5, 2], [3, 5, 2], [100, 7, 2]], dtype=torch.float64)
    standard = scaled(features, torch.tensor([0, 1]), "standard")
    assert standard[:2].tolist() == [[-1, 0, 0], [1, 0, 0]] and standard[2, 0] == 98
    unit = scaled(features, torch.tensor([0]), "unit")
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(3).double())
    assert torch.equal(scaled(features, torch.tensor([0]), "none"), features)


def test_features_are_those_of_evaluation_mode(toy):
    """Dropout off, in chunks, float64; inputs are pixels from 0 to 1."""
    split, train = toy.split, replace(TRAIN, precision="fp32")
    network = classifiers.network_of(BACKBONE, toy, split, train, 0)
    x = toy.inputs.float() / 255
    expected = network.eval().features(x).double()  # type: ignore[operator]
    found = features_of(toy.inputs, network.train(), train, CPU)
    torch.testing.assert_close(found, expected)
    plain = features_of(toy.inputs, None, train, CPU)
    assert torch.equal(plain, toy.inputs.flatten(1).double() / 255)


@dataclass(frozen=True)
class Bursting(ESZSL):
    """Its scores overflow for one value of a field."""

    def scores(self, fitted: Any, features: Tensor, attributes: Tensor) -> Tensor:
        return super().scores(fitted, features, attributes) / (self.feature_ridge != 5)


def test_a_failure_stops_one_cell_only(toy, tmp_path):
    run = run_of(Bursting(), [0, 0], Benchmark("toy"), feature_ridge=[5.0, 6.0])
    failed, finished = run_stack(run, CPU, files_in(tmp_path))
    assert (failed.status, failed.reason) == ("failed", "a score was not finite")
    assert failed.metrics == {} and finished.status == "finished"


def test_a_broken_training_is_a_failed_run(toy, tmp_path):
    run = replace(run_of(ESZSL(), [0], TRAINED), train=replace(TRAIN, optimizer="sgd", lr=1e300))
    (outcome,) = run_stack(run, CPU, files_in(tmp_path))
    assert outcome.status == "failed" and "the loss was" in (outcome.reason or "")


def test_several_processes_are_refused(toy, tmp_path):
    with pytest.raises(UserError, match="run in one process"):
        run_stack(run_of(ESZSL(), [0], TRAINED), CPU, files_in(tmp_path), processes=Processes(0, 2))


def xian_folder(folder: Path, toy: Any) -> Benchmark:
    """The toy data as features in Xian's files, counted from 1."""
    folder.mkdir()
    features = toy.inputs.flatten(1).double().numpy().T
    labels = (toy.labels + 1).double().numpy()[:, None]
    scipy.io.savemat(folder / xian.FEATURES, {"features": features, "labels": labels})
    parts: dict[str, Tensor] = dict(zip(xian.PARTS, toy.split, strict=True))
    validation = torch.isin(toy.labels, torch.tensor(toy.validation_classes))
    parts["val_loc"] = validation.nonzero().squeeze(1)
    locs = {name: (part + 1).double().numpy()[:, None] for name, part in parts.items()}
    scipy.io.savemat(folder / xian.SPLITS, locs | {"att": toy.attributes.numpy().T})
    return Benchmark(f"xian:{folder}")


@pytest.mark.parametrize("evaluate", ["test", "validation"])
def test_xians_files_give_what_the_same_images_give(toy, tmp_path, monkeypatch, evaluate):
    """Features that are the pixels themselves: the numbers of the images, from end to end."""
    changes = {} if evaluate == "test" else {"evaluate": evaluate, "validation": 0.2}
    (expected,) = results(run_of(ESZSL(), [0], Benchmark("toy", scale="unit", **changes)), tmp_path)
    monkeypatch.undo()
    benchmark = replace(xian_folder(tmp_path / "files", toy), scale="unit", **changes)
    check(benchmark, ESZSL(), "a", TRAIN)
    protocol.load_data(benchmark)
    assert protocol.sizes(benchmark) == ((16, 1, 1), 11)
    assert protocol.datasets(benchmark) == [] and len(protocol.fingerprint(benchmark)) == 64
    (found,) = results(run_of(ESZSL(), [0], benchmark), tmp_path)
    assert found == pytest.approx(expected, abs=1e-9)


@dataclass(frozen=True)
class OwnLoss(ESZSL):
    def loss(self, networks: Any, state: Any, batch: Any) -> Loss:
        return super().loss(networks, state, batch)


@pytest.mark.parametrize(
    ("changes", "method", "said"),
    [
        ({"dataset": "awa22"}, ESZSL(), r"unknown data set 'awa22'; did you mean 'awa2'"),
        ({"dataset": "xian:"}, ESZSL(), "write xian:FOLDER"),
        ({"validation": 0.2}, ESZSL(), "set a fraction above 0 and evaluate: validation together"),
        ({"evaluate": "validation"}, ESZSL(), "set a fraction above 0"),
        ({}, OwnLoss(), "methods.mine: OwnLoss has a loss of its own"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, method, said):
    with pytest.raises(UserError, match=said):
        check(replace(Benchmark(), **changes), method, "mine", TRAIN)


def test_selected_checkpoints_are_refused():
    with pytest.raises(UserError, match=r"train\.checkpoint"):
        check(Benchmark(), ESZSL(), "a", replace(TRAIN, checkpoint="selected"))
