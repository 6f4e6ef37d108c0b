"""The section `select:` in domain adaptation: what may choose and see, what the table says."""

from pathlib import Path

import pytest
from commands import Command
from small_blobs import domains

from tlresearch import experiment
from tlresearch.adaptation import protocol
from tlresearch.errors import UserError
from tlresearch.launch import outputs, tuning
from tlresearch.training import device

FILE = """
family: adaptation
title: Tiny
benchmark: {source: blobs, target: far_blobs, normalise: none, validation: 0.25}
backbone: {name: mlp, hidden: [8]}
methods: {source_only: {name: source_only}, dann: {name: dann, discriminator: [4]}}
train: {steps: 12, batch_size: 8, lr: 1e-2}
metrics: [acc, source_acc]
select: {grid: {methods.dann.strength: [0.1, 1, 5]}, seeds: [100, 101], metric: im, validation: 0.3}
seeds: [0]
"""


@pytest.fixture
def command(tmp_path: Path, capsys, monkeypatch, without_shape_checks):
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    monkeypatch.setattr(outputs, "_write_figures", lambda *_: [])
    with domains():
        yield Command(tmp_path, capsys, FILE)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list:
    """Benchmark, seeds, metrics and fields of every stack that is run."""
    stacks, original = [], protocol.run_stack

    def counted(run, *args, **kwargs):
        found = original(run, *args, **kwargs)
        metrics = [outcome.metrics for outcome in found]
        stacks.append((run.benchmark, run.seeds, metrics, run.fields))
        return found

    monkeypatch.setattr(protocol, "run_stack", counted)
    return stacks


def line(text: str, start: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(start))


def test_strengths_are_chosen_by_information_maximisation(command: Command, ran):
    """The value with the highest mean of the score, and no target label before the reported run."""
    code, out, err = command("run")
    assert (code, err) == (0, "")
    selection, reported = ran[0], ran[1:]
    assert (selection[0].evaluate, selection[0].validation) == ("selectors", 0.3)
    assert [seeds for _, seeds, *_ in reported] == [[0], [0]]
    assert {benchmark.evaluate for benchmark, *_ in reported} == {"test"}
    sums = dict.fromkeys([0.1, 1.0, 5.0], 0.0)
    for strength, metrics in zip(selection[3]["strength"], selection[2], strict=True):
        sums[strength] += metrics["im"]
    best = max(sums, key=lambda strength: sums[strength])
    assert f"- Chosen for dann: strength {best:g}, of 0.1, 1, 5 (information maximisation " in out
    assert "with 0.3 of the source's training data held out, and seeds of its own (100, 101)" in out
    header = "| method | chosen by | accuracy (%) | source validation accuracy (%) | n | tuning |"
    assert header in out and line(out, "| dann |").startswith("| dann | information maximisation |")
    assert line(out, "| source_only |").startswith("| source_only |  |")
    table = (command.results / "tiny_selection.md").read_text()
    assert "information maximisation (nats)" in table and "| accuracy (%)" not in table


def test_a_score_that_a_method_cannot_have_is_refused_before_any_run(command: Command, ran):
    """Neither nearest neighbours nor a support vector machine has probabilities."""
    methods = "methods={sa: {name: subspace_alignment, classifier: svm, c: [1], dim: 1}}"
    select = "select={grid: {methods.sa.dim: [1, 2]}, seeds: [100], metric: snd, validation: 0.3}"
    code, _, err = command("run", methods, select)
    assert code == 2 and not ran
    wanted = "'select.metric' is 'snd', which no run of sa has; choose by one of dev, source_acc"
    assert wanted in err and err.count("\n") == 1


def test_the_oracle_may_choose_under_its_name_only(command: Command, ran):
    code, out, _ = command("run", "select.metric=oracle")
    assert code == 0 and ran[0][0].evaluate == "oracle"
    assert line(out, "| dann |").startswith("| dann | target labels (oracle) |")
    assert "accuracy by target labels, oracle" in line(out, "- Tuned by")


def test_a_selection_by_reverse_validation_trains_back(command: Command, ran):
    """In the selection's runs alone, though the file does not ask for it."""
    assert command("run", "select.metric=reverse")[0] == 0
    assert ran[0][0].reverse and not any(benchmark.reverse for benchmark, *_ in ran[1:])
    assert all("reverse" in metrics for metrics in ran[0][2])


@pytest.mark.parametrize("words", [["select.metric=acc"], ["select.metric=''"]])
def test_target_accuracy_does_not_choose(command: Command, ran, words: list[str]):
    """Nor does the table's first metric, where none is named."""
    code, out, err = command("run", *words)
    assert (code, out, ran) == (2, "", [])
    assert "'select.metric' is 'acc'" in err and "source_acc, entropy, im, snd, dev, reverse" in err
    assert err.count("\n") == 1


def test_an_unknown_selector_is_refused_with_the_nearest(command: Command):
    with pytest.raises(UserError, match=r"unknown metric 'entrpy' in 'select.metric'.*entropy"):
        experiment.load(command.file, ["select.metric=entrpy"])


def test_the_selections_table_has_no_column_that_it_must_not_see(command: Command):
    made = experiment.load(command.file, ["metrics=[acc, ece, snd, a_distance]"])
    assert tuning.selection_of(made).metrics == ["im", "snd"]


def test_a_sweep_leaves_the_table_of_the_selectors(command: Command, tmp_path: Path):
    command.file.write_text(
        FILE.split("select:")[0] + "sweep: {methods.dann.strength: [0.1, 1, 5]}\nseeds: [0, 1]\n"
    )
    code, out, _ = command("run")
    assert code == 0 and "tiny_selectors.md" in out
    text = (command.results / "tiny_selectors.md").read_text()
    assert text.startswith("# Tiny: selectors\n")
    assert "| information maximisation |" in text and "| reverse" not in text
    assert line(text, "| SND |").endswith("| 4 | 2 |")  # source_only and three strengths
    first, *rows = (command.results / "tiny_selectors.csv").read_text().splitlines()
    assert first.startswith("section,selector,spearman,spearman_ci95") and len(rows) == 5
