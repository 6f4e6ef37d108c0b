"""Few-shot runs from end to end, on a toy of 51 classes in place of the glyphs."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from small_fewshot import (
    BENCHMARK,
    CPU,
    outcomes_of,
    run_of,
    same_weights,
    steps_logged,
    toy,
    use,
)

from tlresearch import families
from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.mlp import MLP
from tlresearch.data.class_sets import ClassSplits
from tlresearch.errors import UserError
from tlresearch.fewshot import protocol, tasks, trained
from tlresearch.fewshot.baseline import Baseline
from tlresearch.fewshot.evaluation import evaluate
from tlresearch.fewshot.maml import MAML
from tlresearch.fewshot.nearest_centroid import NearestCentroid
from tlresearch.fewshot.oracle import Oracle
from tlresearch.fewshot.pretrained import Pretrained
from tlresearch.fewshot.protonet import PrototypicalNetwork
from tlresearch.fewshot.r2d2 import R2D2
from tlresearch.fewshot.settings import FewShotSettings
from tlresearch.fewshot.simpleshot import SimpleShot
from tlresearch.fewshot.soft_kmeans import SoftKMeans
from tlresearch.results import trainings
from tlresearch.training import checkpoint
from tlresearch.training.distributed import Processes
from tlresearch.training.method import Loss

PROTONET = PrototypicalNetwork(train_ways=10, train_shots=1, train_queries=3)
STEPS = 60
SINUSOID = FewShotSettings("sinusoid", shots=4, queries=6, episodes=20)


@pytest.fixture
def splits(monkeypatch: pytest.MonkeyPatch) -> ClassSplits:
    return use(monkeypatch)


@dataclass(frozen=True)
class Failing(PrototypicalNetwork):
    """A loss that a stacked number can blow up."""

    scale: float = 1.0

    def loss(self, networks, state, batch) -> Loss:
        loss = super().loss(networks, state, batch)
        return Loss(loss.total * self.scale, loss.terms)


def test_prototypical_networks_learn_what_the_untrained_network_does_not_know(splits, tmp_path):
    """On classes that were never trained on; chance is 1/4."""
    (untrained,) = outcomes_of(tmp_path / "a", run_of(NearestCentroid(), [0]))
    learned = outcomes_of(tmp_path / "b", run_of(PROTONET, [0, 1], steps=STEPS, lr=0.03))
    for outcome in learned:
        assert outcome.metrics["acc"] > 0.7 > 2 * untrained.metrics["acc"]
        assert outcome.metrics["train_steps"] == STEPS
    assert untrained.metrics["train_steps"] == 0 and not (tmp_path / "a/metrics.jsonl").exists()


def test_all_methods_and_seeds_are_measured_on_the_same_episodes(splits, tmp_path):
    """By their name, which other episodes do not have; values are of each episode."""
    runs = [PROTONET, SimpleShot(), NearestCentroid(), MAML(inner_steps=2)]
    found = [
        outcome
        for i, method in enumerate(runs)
        for outcome in outcomes_of(tmp_path / str(i), run_of(method, [0, 7], steps=2))
    ]
    names = {outcome.arrays["episodes_id"] for outcome in found}
    assert len(names) == 1 and all(len(o.arrays["episodes"]) == 60 for o in found)
    changes = [{"shots": 2}, {"episodes": 59}, {"evaluate": "validation"}]
    for i, change in enumerate(changes):
        (other,) = outcomes_of(tmp_path / f"x{i}", run_of(NearestCentroid(), [0], **change))
        names.add(other.arrays["episodes_id"])
    assert len(names) == 4


def test_an_accuracy_is_that_of_a_plain_loop(splits, tmp_path):
    """Over the episodes, with the trained weights, image by image."""
    (outcome,) = outcomes_of(tmp_path, run_of(PROTONET, [3], steps=5, episodes=7))
    networks = PROTONET.networks(run_of(PROTONET, [3]).backbone, (1, 6, 6), 6, 3).double()
    networks.load_state_dict(outcome.weights)
    networks.eval()
    settings = replace(BENCHMARK, episodes=7)
    classes, drawn = tasks.ImageTasks.load(settings, CPU, torch.float64, None).draw()
    accuracies = []
    for episode in drawn:
        z = [[networks(classes.images[i][None].double() / 255)[0] for i in row] for row in episode]
        prototypes = [row[0] for row in z]
        right = [
            min(range(4), key=lambda c: (query - prototypes[c]).square().sum().item()) == label
            for label, row in enumerate(z)
            for query in row[1:]
        ]
        accuracies.append(sum(right) / len(right))
    assert outcome.arrays["episodes"] == pytest.approx(accuracies)
    assert outcome.metrics["acc"] == pytest.approx(sum(accuracies) / 7)
    spread = torch.tensor(accuracies).double().std().item()
    assert outcome.metrics["ci_episodes"] == pytest.approx(1.96 * spread / math.sqrt(7))


@pytest.mark.parametrize("part", ["validation", "test"])
def test_an_evaluation_is_of_test_classes(splits, part):
    """Or of those that are asked for, whatever is trained on; and of no others."""
    loaded = tasks.ImageTasks.load(replace(BENCHMARK, evaluate=part), CPU, torch.float64, None)
    classes, drawn = loaded.draw()
    assert torch.equal(classes.images, getattr(splits, part).images)
    assert int(drawn.max()) < len(classes.images)
    assert torch.equal(loaded.draw("validation")[0].images, splits.validation.images)


@pytest.mark.parametrize("method", [PROTONET, SimpleShot()], ids=["episodes", "classes"])
@pytest.mark.parametrize("part", ["validation", "test"])
def test_only_training_classes_are_trained_on(monkeypatch, tmp_path, method, part):
    """Other images of a part: the same weights."""
    use(monkeypatch)
    (before,) = outcomes_of(tmp_path / "a", run_of(method, [0], steps=4))
    use(monkeypatch, toy(part))
    (after,) = outcomes_of(tmp_path / "b", run_of(method, [0], steps=4))
    assert same_weights(before, after)
    assert (before.metrics != after.metrics) == (part == "test")
    use(monkeypatch, toy("train"))
    (other,) = outcomes_of(tmp_path / "c", run_of(method, [0], steps=4))
    assert not same_weights(before, other)


def test_selection_looks_at_validation_classes_only(monkeypatch, tmp_path):
    """Other test images: the same weights; other validation images may choose others. And what is
    chosen is the best of the evaluations."""
    seen: list[str | None] = []
    episodes = tasks.ImageTasks.episodes

    def spy(self, method, which=None):
        seen.append(which)
        return episodes(self, method, which)

    monkeypatch.setattr(tasks.ImageTasks, "episodes", spy)
    selected = {"steps": 8, "checkpoint": "selected", "evaluate_every": 2}
    outcomes = []
    for changed in (None, "test"):
        use(monkeypatch, toy(changed))
        run = run_of(PROTONET, [0], **selected)
        outcomes += outcomes_of(tmp_path / str(changed), run)
    assert same_weights(*outcomes)
    assert seen == [*["validation"] * 4, None] * 2
    scores = {2: 0.1, 4: 0.9, 6: 0.3, 8: 0.2}

    def scripted(training, episodes):
        value = scores.get(training.steps[0], 0.0)
        return torch.full((1, len(episodes), 1), value, dtype=torch.float64)

    monkeypatch.setattr(protocol, "evaluate", scripted)
    (best,) = outcomes_of(tmp_path / "best", run_of(PROTONET, [0], **selected))
    monkeypatch.setattr(protocol, "evaluate", evaluate)
    (fourth,) = outcomes_of(tmp_path / "fourth", run_of(PROTONET, [0], steps=4))
    assert same_weights(best, fourth)


def test_a_stack_equals_separate_runs(splits, tmp_path):
    """Weights to 1e-9 in float64, and the same predictions."""
    seeds = [4, 0, 9]
    together = outcomes_of(tmp_path / "s", run_of(PROTONET, seeds, steps=6))
    for seed, ours in zip(seeds, together, strict=True):
        (alone,) = outcomes_of(tmp_path / str(seed), run_of(PROTONET, [seed], steps=6))
        for name, weight in alone.weights.items():
            torch.testing.assert_close(ours.weights[name], weight, atol=1e-9, rtol=0)
        assert ours.arrays == alone.arrays
    assert together[0].metrics != together[1].metrics


@pytest.mark.parametrize("seeds", [[3], [3, 5]])
def test_a_resumed_training_has_the_same_bits(splits, tmp_path, monkeypatch, seeds):
    """Stopped after a checkpoint in the middle; also the log."""
    run = run_of(PROTONET, seeds, steps=50)
    expected = outcomes_of(tmp_path / "whole", run)

    class Stop(Exception):
        pass

    save = checkpoint.save

    def save_and_stop(path, training, place):
        save(path, training, place)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_stop)
        with pytest.raises(Stop):
            outcomes_of(tmp_path / "cut", run, checkpoint_seconds=0.0)
    told: list[int] = []
    resumed = outcomes_of(tmp_path / "cut", run, progress=told.append)
    assert told[0] == 20, "it goes on where the checkpoint was"
    for ours, theirs in zip(resumed, expected, strict=True):
        assert same_weights(ours, theirs) and ours.arrays == theirs.arrays
    assert steps_logged(tmp_path / "cut") == steps_logged(tmp_path / "whole") == [0]


def test_a_seed_whose_loss_breaks_is_stopped_alone(splits, tmp_path):
    """Its step is named; the other's numbers are those beside a sound neighbour."""
    run = replace(run_of(Failing(), [5, 2], steps=4), fields={"scale": [math.inf, 1.0]})
    failed, sound = outcomes_of(tmp_path / "a", run)
    assert (failed.status, failed.metrics, failed.weights) == ("failed", {}, {})
    assert failed.reason == "the loss was inf at step 0"
    healthy = replace(run, fields={"scale": [1.0, 1.0]})
    _, expected = outcomes_of(tmp_path / "b", healthy)
    assert sound.status == "finished" and same_weights(sound, expected)
    assert sound.arrays == expected.arrays


@pytest.mark.parametrize("method", [SimpleShot(), R2D2()], ids=["after_task", "a linear system"])
def test_weights_that_are_no_numbers_are_not_measured(splits, tmp_path, method):
    """A last step that breaks them fails each seed, and nothing else."""
    run = run_of(method, [0, 1], steps=2, optimizer="sgd", lr=1e308)
    for outcome in outcomes_of(tmp_path, run):
        assert outcome.status == "failed" and outcome.reason is not None
        assert outcome.metrics == {}


def test_predictions_that_are_no_numbers_fail_their_seed_and_name_the_inner_step(tmp_path):
    """Trained soundly, as training does not take inner steps; adapted with a rate of 1e30."""
    backbone = MLP(hidden=(8,))
    broken = Pretrained(inner_lr=1e30, test_steps=5)
    run = replace(run_of(broken, [0], steps=2), benchmark=SINUSOID, backbone=backbone)
    (outcome,) = outcomes_of(tmp_path / "a", run)
    assert outcome.status == "failed" and outcome.metrics == {}
    assert outcome.reason is not None
    assert outcome.reason.startswith("its predictions were not finite after inner step ")
    assert outcome.reason.endswith(" of 20 test episodes")
    sound = replace(run, method=Pretrained(inner_lr=0.01, test_steps=5))
    assert outcomes_of(tmp_path / "b", sound)[0].status == "finished"


def test_a_class_is_not_guessed_from_scores_that_are_no_numbers(splits, tmp_path, monkeypatch):
    """`argmax` of NaN is 0, which would be right for every query of the first class."""
    nothing = torch.full((12, 4), math.nan)
    monkeypatch.setattr(NearestCentroid, "compare", lambda *args: nothing)
    (outcome,) = outcomes_of(tmp_path, run_of(NearestCentroid(), [0]))
    assert outcome.reason == "its predictions were not finite in 60 of 60 test episodes"


def test_other_test_episodes_take_the_same_training(splits, tmp_path):
    """Nothing is trained again, and what is measured is what the training itself measured."""
    shared, run = tmp_path / "trained", run_of(PROTONET, [0, 1], steps=20)
    first = outcomes_of(tmp_path / "a", run, shared)
    changes = {"ways": 5, "shots": 3, "episodes": 9, "evaluate": "validation", "curve": 3}
    other = run_of(PROTONET, [0, 1], steps=20, **changes)
    told: list[int] = []
    second = outcomes_of(tmp_path / "b", other, shared, progress=told.append)
    assert steps_logged(tmp_path / "a") == [0] and steps_logged(tmp_path / "b") == []
    assert told == [20]
    alone = outcomes_of(tmp_path / "c", other)
    for ours, theirs, before in zip(second, alone, first, strict=True):
        assert same_weights(ours, theirs) and same_weights(ours, before)
        assert ours.arrays == theirs.arrays and ours.metrics == theirs.metrics
        assert ours.details["training"] == before.details["training"]
        assert ours.details["steps"] == 20 and ours.source is None
    kept = sorted(path.name for path in shared.iterdir())
    assert len(kept) == 2 and all(name.startswith("seed-") for name in kept)


TRAININGS = {
    "protonet": (PROTONET, {}),
    "soft k-means": (SoftKMeans(10, 1, 3), {}),
    "filled in": (PrototypicalNetwork(10), {"ways": 5}),
    "ways": (PrototypicalNetwork(), {}),
    "another distance": (replace(PROTONET, distance="cosine"), {}),
    "lr": (PROTONET, {"lr": 0.02}),
    "rotations": (PROTONET, {"rotations": True}),
    "backbone": (PROTONET, {"backbone": MLP(hidden=(9,))}),
    "stack": (PROTONET, {"stack": 1}),
    "selected": (PROTONET, {"checkpoint": "selected"}),
    "selected, more episodes": (PROTONET, {"checkpoint": "selected", "episodes": 61}),
    "selected, soft k-means": (SoftKMeans(10, 1, 3), {"checkpoint": "selected"}),
    "selected on other ways": (PROTONET, {"checkpoint": "selected", "ways": 5}),
    "baseline": (Baseline(), {}),
    "simpleshot": (SimpleShot(), {}),
}


def test_trainings_are_one_where_nothing_that_they_see_differs():
    """In groups; with `selected` the evaluation chooses weights, so it counts too."""
    keys = {
        name: trained.training_key(run_of(method, [0], **changes), 0, "data")
        for name, (method, changes) in TRAININGS.items()
    }
    groups: dict[str, list[str]] = {}
    for name, key in keys.items():
        groups.setdefault(key, []).append(name)
    shared = [names for names in groups.values() if len(names) > 1]
    assert shared == [
        ["protonet", "soft k-means", "filled in", "stack"],
        ["baseline", "simpleshot"],
    ]
    run = run_of(PROTONET, [0, 1])
    assert len({trained.training_key(run, i, "data") for i in range(2)}) == 2
    assert trained.training_key(run, 0, "other data") != keys["protonet"]


def test_numbers_of_a_stack_are_part_of_a_training():
    run = replace(run_of(Failing(), [0, 0], steps=4), fields={"scale": [1.0, 2.0]})
    keys = [trained.training_key(run, i, "") for i in range(2)]
    assert keys[0] != keys[1]
    assert trained.training_key(run_of(Failing(scale=2.0), [0], steps=4), 0, "") == keys[1]


def test_an_edit_of_an_own_file_is_another_training(monkeypatch):
    """What is under work must not be taken from before the edit."""
    run = run_of(PROTONET, [0])
    keys = []
    for content in (b"a", b"b"):
        monkeypatch.setattr(trained, "sources", lambda config, content=content: [content])
        keys.append(trained.training_key(run, 0, ""))
    monkeypatch.undo()
    assert len({*keys, trained.training_key(run, 0, "")}) == 3


def test_what_older_code_trained_is_taken_and_marked(splits, tmp_path, monkeypatch):
    """The record's source is then that of the older code; the weights are its own."""
    shared, run = tmp_path / "trained", run_of(PROTONET, [0], steps=4)
    with monkeypatch.context() as patch:
        patch.setattr(protocol, "training_source", lambda run: "older")
        (before,) = outcomes_of(tmp_path / "a", run, shared)
    (marked,) = outcomes_of(tmp_path / "b", run, shared)
    assert before.source is None and marked.source == "older" and same_weights(before, marked)


def test_a_source_is_of_the_code_that_trains():
    """That of prototypical networks for soft k-means; other methods and backbones have others."""
    methods = [PROTONET, SoftKMeans(), Baseline(), SimpleShot(), MAML()]
    found = [protocol.training_source(run_of(method, [0])) for method in methods]
    assert found[0] == found[1] and found[2] == found[3] and len(set(found)) == 3
    assert protocol.training_source(run_of(PROTONET, [0], backbone=Conv4())) != found[0]


@pytest.mark.parametrize("damage", ["cut", "flipped", "of a run"])
def test_damaged_weights_are_refused_by_name(splits, tmp_path, damage):
    shared, run = tmp_path / "trained", run_of(PROTONET, [0], steps=2)
    outcomes_of(tmp_path / "a", run, shared)
    (path,) = shared.glob("seed-*")
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-20] ^= 1
    path.write_bytes(content[:-9] if damage == "cut" else content)
    if damage == "of a run":
        weights, about = trainings.files.read(path)
        del about["training"]
        trainings.files.write(path, weights, about)
    with pytest.raises(UserError, match=r"seed-.*(delete the file)") as caught:
        outcomes_of(tmp_path / "b", run, shared)
    assert "\n" not in str(caught.value)
    path.unlink()
    assert outcomes_of(tmp_path / "b", run, shared)[0].status == "finished" and path.exists()


def test_weights_of_other_networks_are_not_taken(splits, tmp_path):
    shared, run = tmp_path / "trained", run_of(PROTONET, [0], steps=2)
    outcomes_of(tmp_path / "a", run, shared)
    (path,) = shared.glob("seed-*")
    weights, about = trainings.files.read(path)
    weights.popitem()
    trainings.files.write(path, weights, about)
    outcomes_of(tmp_path / "b", run, shared)
    assert steps_logged(tmp_path / "b") == [0], "trained anew"


def test_a_failed_seed_is_not_kept_for_others(splits, tmp_path):
    run = replace(run_of(Failing(), [5, 2], steps=2), fields={"scale": [math.inf, 1.0]})
    outcomes_of(tmp_path / "a", run, tmp_path / "trained")
    assert len([*(tmp_path / "trained").glob("seed-*")]) == 1


def test_evaluation_uses_running_statistics_and_leaves_the_networks_alone(splits, tmp_path):
    """One image's features do not depend on the others; no buffer moves."""
    begun = []
    begin = protocol.begin

    def spy(*args):
        begun.append(begin(*args))
        return begun[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "begin", spy)
        (outcome,) = outcomes_of(tmp_path, run_of(PROTONET, [0], steps=3))
    (training,) = begun
    loaded = tasks.ImageTasks.load(BENCHMARK, CPU, torch.float64, None)
    training.stack.train()
    few = evaluate(training, replace(loaded, benchmark=BENCHMARK).episodes(PROTONET))
    assert few[0, :, 0].tolist() == outcome.arrays["episodes"]
    for name, buffer in training.stack.buffers.items():
        assert torch.equal(buffer[0], outcome.weights[name]), name
    part = replace(loaded, benchmark=replace(BENCHMARK, episodes=2)).episodes(PROTONET)
    assert torch.equal(evaluate(training, part), few[:, :2])


def test_batch_norms_without_averages_cannot_embed(splits, tmp_path, monkeypatch):
    """Features would depend on whatever images are embedded at once."""
    run = run_of(PROTONET, [0], backbone=Conv4(channels=2, pools=2, statistics="batch"))
    with pytest.raises(UserError, match=r"^backbone: .*backbone.statistics: running"):
        outcomes_of(tmp_path, run)
    maml = replace(run, method=MAML(), train=replace(run.train, steps=1))
    assert outcomes_of(tmp_path, maml)[0].status == "finished"


@pytest.mark.parametrize("method", [PROTONET, NearestCentroid()])
def test_a_backbone_without_parameters_is_refused(splits, tmp_path, method):
    with pytest.raises(UserError, match=r"^backbone: it has no parameters.* hidden: \[100\]"):
        outcomes_of(tmp_path, run_of(method, [0], backbone=MLP(hidden=())))


def test_several_processes_are_refused(splits, tmp_path):
    with pytest.raises(UserError, match="one process; start them without torchrun"):
        outcomes_of(tmp_path, run_of(PROTONET, [0]), processes=Processes(0, 2, CPU))


@pytest.mark.parametrize(
    "method",
    [MAML(tasks=3, inner_lr=0.01, test_steps=4), Pretrained(tasks=3, test_steps=4), Oracle()],
    ids=lambda method: type(method).__name__,
)
def test_sinusoids(tmp_path, method):
    """Squared errors, with a curve over inner steps where there are any; episodes shared by all."""
    backbone = MLP(hidden=(16,))
    run = replace(run_of(method, [0, 1], steps=30), benchmark=SINUSOID, backbone=backbone)
    one, other = outcomes_of(tmp_path, run)
    assert one.metrics["mse"] != other.metrics["mse"] and "acc" not in one.metrics
    assert one.metrics["mse"] == pytest.approx(sum(one.arrays["episodes"]) / 20)
    reference = replace(run, method=Pretrained(), seeds=[0])
    (expected,) = outcomes_of(tmp_path / "other", reference)
    assert one.arrays["episodes_id"] == expected.arrays["episodes_id"]
    if isinstance(method, Oracle):
        assert "curve" not in one.arrays
        return
    curve = one.arrays["curve"]
    assert len(curve) == 5 and curve[4] == one.metrics["mse"] == one.metrics["mse_4"]
    assert curve[0] == one.metrics["mse_0"] != curve[4]


def test_a_longer_curve_does_not_move_what_counts(splits, tmp_path):
    """Rows are measured after the inner steps of the method, with `curve` beyond them too."""
    short = run_of(MAML(inner_steps=2, inner_lr=0.1), [0], steps=2)
    (without,) = outcomes_of(tmp_path / "a", short)
    (with_curve,) = outcomes_of(
        tmp_path / "b", replace(short, benchmark=replace(BENCHMARK, curve=12))
    )
    assert with_curve.arrays["episodes"] == without.arrays["episodes"]
    assert len(without.arrays["curve"]) == 3 and len(with_curve.arrays["curve"]) == 13
    assert with_curve.arrays["curve"][:3] == pytest.approx(without.arrays["curve"])
    assert with_curve.metrics["acc"] == with_curve.metrics["acc_2"]
    assert {name for name in with_curve.metrics if name.startswith("acc_")} == {
        f"acc_{step}" for step in range(11)
    }


def test_metrics_by_hand():
    """Three episodes, rows after 0 and 1 inner steps; the interval is 1.96 s / √3, s with n − 1."""
    values = torch.tensor([[0.5, 0.6], [0.5, 0.8], [0.8, 1.0]], dtype=torch.float64)
    found = protocol.metrics_of(values, 1, regression=False)
    assert found == pytest.approx(
        {
            "acc": 0.8,
            "error": 0.2,
            "ci_episodes": 1.96 * 0.2 / math.sqrt(3),
            "acc_0": 0.6,
            "acc_1": 0.8,
        }
    )
    assert protocol.metrics_of(values, 0, False)["acc"] == pytest.approx(0.6)
    errors = protocol.metrics_of(values[:, :1], 3, regression=True)
    assert errors.keys() == {"mse", "mse_ci_episodes"} and errors["mse"] == pytest.approx(0.6)
    assert {*found, *errors} < set(protocol.METRICS)


def test_the_row_that_counts():
    values = torch.zeros(4, 6)
    assert [protocol.row_of(values, counted) for counted in (0, 3, 5, 9)] == [0, 3, 5, 5]
    assert protocol.row_of(values[:, :1], 5) == 0


def test_what_tables_and_plans_are_told(splits):
    """Text columns, steps, and the held-out benchmark, which is measured on validation classes."""
    config = run_of(MAML(), [0])
    assert protocol.columns(config) == {"batch statistics": "query (transductive)"}
    assert protocol.total_steps(config) == 30
    assert protocol.total_steps(run_of(NearestCentroid(), [0])) == 0
    lake = replace(BENCHMARK, draw="lake", target="mnist")
    assert families.held_out("fewshot", lake, 0.2) == replace(BENCHMARK, evaluate="validation")
    assert protocol.sizes(BENCHMARK) == ((1, 6, 6), 40)
    assert protocol.sizes(SINUSOID) == ((1, 1, 1), 1)
