"""When a training that was kept is taken, and when it is made again: through the command."""

from pathlib import Path

import pytest
from commands import Command

from tlresearch.training import device, stage

FILE = """
family: fewshot
benchmark: {dataset: glyphs, ways: 3, queries: 2, episodes: 4}
backbone: {name: conv4, channels: 2}
methods:
  protonet: {name: protonet, train_ways: 3, train_queries: 2}
  soft_kmeans: {name: soft_kmeans, train_ways: 3, train_queries: 2}
settings:
  3-way: {}
  2-way: {benchmark.ways: 2}
train: {steps: 2}
seeds: [0]
"""


@pytest.fixture
def command(tmp_path: Path, capsys, monkeypatch) -> Command:
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    return Command(tmp_path, capsys, FILE)


@pytest.fixture
def fits(monkeypatch) -> list[int]:
    """The seeds of every training that is made."""
    made, fit = [], stage.fit

    def spy(training, *args):
        made.append(training.seeds[0])
        fit(training, *args)

    monkeypatch.setattr(stage, "fit", spy)
    return made


def test_one_training_serves_methods_and_settings(command, fits):
    """Soft k-means differs from prototypical networks, and 2 ways from 3, in measuring only."""
    assert command("run")[0] == 0
    assert fits == [0] and len(list(command.results.glob("records/trained/*.safetensors"))) == 1


@pytest.mark.parametrize("how", ["--rerun=all", "debug=true"])
def test_who_asks_for_it_trains_again(command, fits, how):
    """A rerun once for all rows that share it; a debug run for each."""
    command("run")
    fits.clear()
    assert command("run", how)[0] == 0
    assert fits == ([0] if how == "--rerun=all" else [0] * 4)
