"""Tests over episodes against hand-worked numbers, scipy and statsmodels."""

import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from tlresearch.results.episodes import (
    compare_over_episodes,
    episode_format,
    episode_tests,
    half_width,
)
from tlresearch.results.rows import Place
from tlresearch.results.tables import build_table, to_csv, to_latex, to_markdown


def record(method: str, seed: int, episodes: list, name: str = "e1", setting: str = "") -> dict:
    return {
        "method": method, "setting": setting, "seed": seed, "key": f"{seed:016x}", "source": "",
        "status": "finished", "reason": None, "checkpoint": "last",
        "metrics": {"acc": float(np.mean(episodes))},
        "arrays": {"episodes": episodes, "episodes_id": name},
    }  # fmt: skip


def by_seed(*records: dict) -> dict[str, dict[int, dict]]:
    found: dict[str, dict[int, dict]] = {}
    for one in records:
        found.setdefault(one["method"], {})[one["seed"]] = one
    return found


def test_an_interval_by_hand():
    """1, 2, 3, 4: s² = 5/3 with the divisor n − 1, and 1.96 √(5/3) / √4."""
    assert half_width([1.0, 2.0, 3.0, 4.0]) == pytest.approx(0.98 * math.sqrt(5 / 3), rel=1e-12)
    assert math.isnan(half_width([1.0])) and half_width([0.1] * 9) == 0


def test_a_difference_by_hand():
    """d = .1, .3, .2, .2: mean .2, s² = .02/3, half-width 1.96 √(.02/3) / 2."""
    (test,) = episode_tests(
        {"a": np.array([0.5, 0.9, 0.6, 0.8]), "b": np.array([0.4, 0.6, 0.4, 0.6])}
    )
    assert (test.first, test.second, test.n) == ("a", "b", 4)
    assert test.difference == pytest.approx(0.2)
    assert test.ci95 == pytest.approx(0.98 * math.sqrt(0.02 / 3))


def test_the_tests_are_scipys_paired_ones():
    """Episodes are hard for all methods alike, which an unpaired test cannot see."""
    generator = np.random.default_rng(0)
    hard = generator.random(200)
    values = {m: hard + 0.05 * generator.normal(i / 10, 1, 200) for i, m in enumerate("abc")}
    tests = episode_tests(values)
    assert [(t.first, t.second) for t in tests] == [("a", "b"), ("a", "c"), ("b", "c")]
    for test in tests:
        oracle = scipy.stats.ttest_rel(values[test.first], values[test.second])
        assert test.p == pytest.approx(oracle.pvalue, rel=1e-9)
        spread = (values[test.first] - values[test.second]).std(ddof=1)
        assert test.ci95 == pytest.approx(1.96 * spread / math.sqrt(200), rel=1e-12)
    corrected = np.asarray(multipletests([t.p for t in tests], method="holm")[1])
    np.testing.assert_allclose([t.p_holm for t in tests], corrected, rtol=1e-12)


def test_seeds_are_averaged_within_an_episode():
    """a: (.5 + .7)/2 = .6 and (.9 + .5)/2 = .7. b, with another seed alone: .1 and .3."""
    records = by_seed(
        record("a", 0, [0.5, 0.9]), record("a", 1, [0.7, 0.5]), record("b", 9, [0.1, 0.3])
    )
    (test,) = compare_over_episodes(records)
    assert (test.difference, test.n) == (pytest.approx(0.45), 2)
    assert test.p == pytest.approx(scipy.stats.ttest_rel([0.6, 0.7], [0.1, 0.3]).pvalue)


def test_other_episodes_are_no_pair():
    """By their name, or as one method's seeds differ, or there are none; nothing is truncated."""
    same = [record("a", 0, [0.5, 0.9, 0.1]), record("b", 0, [0.4, 0.6, 0.2])]
    others = [
        record("named", 0, [0.1, 0.2, 0.3], "e2"),
        *(record("mixed", seed, [0.1, 0.2, 0.3], f"e{seed}") for seed in (1, 2)),
        record("short", 0, [0.1, 0.2]),
        record("none", 0, [0.1]) | {"arrays": {}},
        record("half", 0, [0.1, 0.2, 0.3]),
        record("half", 1, [0.1]) | {"arrays": {}},
    ]
    tests = compare_over_episodes(by_seed(*same, *others))
    assert [(t.first, t.second, t.n) for t in tests] == [("a", "b", 3)]
    assert tests[0].p_holm == tests[0].p  # one test was made: nothing to correct


def test_an_undefined_episode_leaves_its_pair_untested():
    undefined = record("b", 0, [0.4, 0.6, 0.2])
    undefined["arrays"]["episodes"] = [0.4, None, 0.2]
    tests = compare_over_episodes(
        by_seed(record("a", 0, [0.5, 0.9, 0.1]), undefined, record("c", 0, [0.1, 0.2, 0.3]))
    )
    assert [math.isnan(t.p) for t in tests] == [True, False, True]
    assert tests[1].p_holm == tests[1].p


def test_a_table_says_what_the_spread_is_over():
    """The differences .3 and .5: .4 ± 1.96 · √.02 / √2 = .4 ± .196."""
    records = [record("a", 0, [0.5, 0.9]), record("b", 0, [0.2, 0.4])]
    text = to_markdown(build_table(records, ["a", "b"], [""], ["acc"]))
    assert "Over episodes, accuracy, first - second:" in text
    assert "| a | b | +40.00 [+20.40, +59.60] | 0.156 | 0.156 | 2 |" in text
    assert "the spread over episodes for these trained networks" in text
    latex = to_latex(build_table(records, ["a", "b"], [""], ["acc"]))
    assert r"\caption{Over episodes, accuracy, first - second}" in latex


def test_a_table_without_episodes_says_nothing_of_them():
    plain = [record(m, 0, [0.5]) | {"arrays": {"accuracy_matrix": []}} for m in "ab"]
    without = [{k: v for k, v in one.items() if k != "arrays"} for one in plain]
    for records in (plain, without, plain[:1]):
        assert "pisode" not in to_markdown(build_table(records, ["a", "b"], [""], ["acc"]))


def test_settings_are_tested_apart_and_swept_values_not_at_all():
    records = [record(m, 0, [x, 0.5], setting=s) for s in "xy" for m, x in (("a", 0.3), ("b", 0.2))]
    table = build_table(records, ["a", "b"], ["x", "y"], ["acc"])
    assert [len(table.episodes[s]) for s in "xy"] == [1, 1]
    places = {(m, s): Place("", {"lr": s}) for m in "ab" for s in "xy"}
    swept = build_table(records, ["a", "b"], ["x", "y"], ["acc"], places=places)
    assert not any(swept.episodes.values()) and "pisode" not in to_markdown(swept)


def test_episodes_are_printed_in_the_unit_of_the_table():
    assert episode_format(["seconds", "acc"]).unit == "%"
    assert episode_format(["mse_1", "mse_5"]).number(0.25) == "0.250"


COLUMNS = {
    ("maml", ""): {"batch statistics": "query (transductive)", "training": "500 | steps"},
    ("proto", ""): {"training": "9"},
}


def test_columns_of_text_stand_after_the_method():
    records = [record("maml", 0, [0.5]), record("proto", 0, [0.25])]
    labels = ["maml", "proto", "bare"]
    table = build_table(records, labels, [""], ["acc"], columns=COLUMNS)
    text = to_markdown(table)
    assert text.startswith(
        "| method | batch statistics | training | accuracy (%) | n |\n"
        "| --- | --- | --- | ---: | ---: |\n"
        "| maml | query (transductive) | 500 \\| steps | 50.00 | 1 |\n"
        "| proto |  | 9 | 25.00 | 1 |\n"
        "| bare |  |  | missing | 0 |\n"
    )
    assert to_csv(table).splitlines()[:2] == [
        "method,batch statistics,training,setting,metric,mean,ci95,sem,n,published,"
        "published_spread,status,difference,verdict",
        "maml,query (transductive),500 | steps,,acc,0.5,,,1,,,,,",
    ]
    assert r"\begin{tabular}{lllrr}" in to_latex(table)


def test_columns_without_a_text_change_nothing():
    records = [record("a", 0, [0.5])]
    plain = build_table(records, ["a"], [""], ["acc"])
    empty = build_table(records, ["a"], [""], ["acc"], columns={("a", ""): {}})
    for form in (to_csv, to_markdown, to_latex):
        assert form(plain) == form(empty)


def test_columns_stand_before_swept_values():
    records = [record("maml", 0, [0.5], setting=s) for s in ("lr=1", "lr=2")]
    table = build_table(
        records, ["maml"], ["lr=1", "lr=2"], ["acc"],
        places={("maml", f"lr={x}"): Place("", {"lr": x}) for x in (1, 2)},
        columns={("maml", f"lr={x}"): {"training": f"{x} h"} for x in (1, 2)},
    )  # fmt: skip
    text = to_markdown(table)
    assert (
        "| method | training | lr | accuracy (%) |" in text and "| maml | 1 h | 1 | 50.00" in text
    )
