"""What stands below a table of domain adaptation."""

from pathlib import Path
from typing import Any

from tlresearch import families
from tlresearch.experiment import load

ROOT = Path(__file__).resolve().parents[2]


def remarks_of(name: str, *overrides: str) -> list[str]:
    experiment = load(ROOT / f"experiments/{name}.yaml", list(overrides))
    configs: dict[tuple[str, str], Any] = {
        (cell.method, cell.setting): cell.config for cell in experiment.cells
    }
    return families.remarks(experiment.header.family, configs, experiment.metrics)


def test_unequal_budgets_are_told():
    said = remarks_of("adaptation/usps_mnist")
    assert said[0] == (
        "Optimiser steps of a run, all rounds together: 3,000: source_only, dann, cdan, cdan+e, "
        "dan, deep_coral, mcd, cycle_self_training, oracle; 7,000: self_training; 6,000: shot."
    )
    assert said[1] == "mcd: each step trains in 6 passes over the same batches."
    assert said[2].startswith("oracle: its source is the target, so its source validation")
    assert len(said) == 3


def test_equal_budgets_are_not():
    two = ["methods={source_only: {name: source_only}, shot: {name: dann}}", "metrics=[acc]"]
    assert remarks_of("adaptation/usps_mnist_batch_norm", *two) == []


def test_transductive_numbers_are_told():
    said = remarks_of("adaptation/office_caltech_surf")
    assert said == [
        "All accuracies are of the target inputs that were adapted to (transductive); an oracle "
        "was trained on the labels of these same inputs, so that its number is a fit."
    ]
    (tent,) = (line for line in remarks_of("adaptation/ablation_batch_norm") if "tent" in line[:4])
    assert tent == "tent: adapts to the test inputs that it predicts, by batches (transductive)."
    amazon = "{benchmark.source: amazon_books, benchmark.target: amazon_dvd}"
    surf = "{benchmark.source: office_surf_dslr, benchmark.target: office_surf_amazon}"
    settings = f"settings={{a: {amazon}, b: {surf}}}"
    both = remarks_of("adaptation/office_caltech_surf", settings, "published=[]")
    assert both[0].startswith("Where the target has no test part, they are of the target inputs")
    training = remarks_of("adaptation/moons", "benchmark.evaluate=training")
    assert training[-1].startswith("All accuracies are of the target inputs")
    assert not any("transductive" in line for line in remarks_of("adaptation/moons"))


def test_other_families_have_none():
    assert remarks_of("quick/forgetting") == []
