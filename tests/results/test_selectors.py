"""How selectors rank models: correlations by hand, what is chosen, what cannot be ranked."""

import math

import pytest

from tlresearch.results.selectors import chosen_accuracy, rankings, to_csv, to_markdown
from tlresearch.results.statistics import summarise


def records(*seeds: list[tuple[float | None, float | None]], name: str = "im") -> list[dict]:
    """(score, accuracy) of each model, seed by seed."""
    return [
        {
            "method": "dann",
            "setting": str(model),
            "seed": seed,
            "status": "finished",
            "metrics": {name: score, "acc": accuracy},
        }
        for seed, models in enumerate(seeds)
        for model, (score, accuracy) in enumerate(models)
    ]


def test_correlations_by_hand():
    """Orders 1 2 3 and 1 3 2 of accuracies .1 .2 .3: ρ 1 and 1/2, τ 1 and 1/3."""
    (row,) = rankings(
        records([(1, 0.1), (2, 0.2), (3, 0.3)], [(1, 0.1), (3, 0.2), (2, 0.3)]), ["im"]
    )
    assert row.spearman == summarise([1, 0.5])
    assert row.kendall.mean == pytest.approx(2 / 3) and row.kendall.n == 2
    assert (row.chosen, row.oracle) == (summarise([0.3, 0.2]), summarise([0.3, 0.3]))
    assert row.loss.mean == pytest.approx(0.05) and (row.candidates, row.chosen.n) == (3, 2)


def test_seeds_are_ranked_each_by_itself():
    """In each seed a perfect order; over both together none."""
    (row,) = rankings(
        records([(1, 0.7), (2, 0.8), (3, 0.9)], [(11, 0.1), (12, 0.2), (13, 0.3)]), ["im"]
    )
    assert row.spearman.mean == row.kendall.mean == 1 and row.loss.mean == 0


def test_ties_count_half():
    """τ_b of scores 1 1 2 and accuracies .1 .2 .3: 2 / √(2 · 3)."""
    (row,) = rankings(records([(1, 0.1), (1, 0.2), (2, 0.3)]), ["im"])
    assert row.kendall.mean == pytest.approx(2 / math.sqrt(6))
    assert row.spearman.mean == pytest.approx(math.sqrt(3) / 2)


def test_of_equal_scores_no_order_is_a_merit():
    assert chosen_accuracy([(1, 0.1), (1, 0.3), (0, 0.9)]) == pytest.approx(0.2)


def test_what_cannot_be_ranked_is_left_out():
    """Two models; a missing score; a failed run; equal scores have no correlation but a choice."""
    assert rankings(records([(1, 0.1), (2, 0.2)]), ["im"]) == []
    assert rankings(records([(1, 0.1), (2, 0.2), (None, 0.3)]), ["im"]) == []
    assert rankings(records([(1, 0.1), (2, 0.2), (3, float("nan"))]), ["im"]) == []
    failed = records([(1, 0.1), (2, 0.2), (3, 0.3)])
    failed[0]["status"] = "failed"
    assert rankings(failed, ["im"]) == []
    (row,) = rankings(records([(1, 0.1), (1, 0.2), (1, 0.3)]), ["im", "snd"])
    assert row.spearman.n == 0 and row.chosen.mean == pytest.approx(0.2)


def test_the_best_correlation_comes_first():
    both = [
        a | {"metrics": a["metrics"] | b["metrics"]}
        for a, b in zip(
            records([(3, 0.1), (2, 0.2), (1, 0.3)]),
            records([(1, 0.1), (3, 0.2), (2, 0.3)], name="snd"),
            strict=True,
        )
    ]
    rows = rankings(both, ["im", "snd"])
    text = to_markdown({"": rows}, "Title | here")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("# Title \\| here\n\n| selector | Spearman | Kendall |")
    assert lines[2] == "| SND | 0.50 | 0.33 | 20.00 | 30.00 | 10.00 | 3 | 1 |"
    assert lines[3].startswith("| information maximisation | -1.00 | -1.00 | 10.00 |")
    assert to_csv({"a, b": rows}).splitlines()[1:] == [
        '"a, b",im,-1.0,,-1.0,,0.1,,0.3,,0.2,,3,1',
        '"a, b",snd,0.5,,0.333333,,0.2,,0.3,,0.1,,3,1',
    ]


def test_sections_have_tables_of_their_own():
    rows = rankings(records([(1, 0.1), (2, 0.2), (3, 0.3)]), ["im"])
    text = to_markdown({"a": rows, "b": rows})
    assert text.count("| selector |") == 2 and "## a\n" in text and "## b\n" in text
