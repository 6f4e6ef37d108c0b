"""Tables worked out by hand: what is in them, what is missing, how it is printed."""

import csv
import io
import math

import pytest

from tlresearch.errors import UserError
from tlresearch.results.published import Published, PublishedRow
from tlresearch.results.statistics import paired_tests
from tlresearch.results.tables import build_table, to_csv, to_latex, to_markdown

COLUMNS = (
    "method,setting,metric,mean,ci95,sem,n,published,published_spread,status,difference,verdict"
)


def record(method, seed, acc, setting="", **fields):
    return {
        "method": method,
        "setting": setting,
        "seed": seed,
        "key": f"{seed:016x}",
        "source": "new",
        "status": "finished",
        "reason": None,
        "checkpoint": "last",
        "metrics": {"acc": acc, "bwt": -(acc or 0) / 10},
    } | fields


def paper(*rows, **settings):
    return Published(
        **{"source": "Paper A, Table 3", "metric": "acc", "rows": list(rows)} | settings
    )


EWC = [record("ewc", seed, acc) for seed, acc in enumerate([0.89, 0.90, 0.91])]
SI = [record("si", seed, acc) for seed, acc in enumerate([0.80, 0.80, 0.80])]


def lines_of(table):
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def test_csv_by_hand():
    """sd = .01, sem = .01/√3 = .0057735, ci = 4.302653 sem = .0248414."""
    published = paper(PublishedRow("ewc", 88.0, "", 0.5, "read"), runs=10, tolerance=0.05)
    table = build_table(EWC, ["ewc"], [""], ["acc", "bwt"], [published])
    assert to_csv(table) == (
        COLUMNS + "\n"
        "ewc,,acc,0.9,0.0248414,0.0057735,3,0.88,0.005,read,0.02,agrees\n"
        "ewc,,bwt,-0.09,0.00248414,0.00057735,3,,,,,\n"
    )


def test_csv_header_is_the_contract():
    assert to_csv(build_table([], [], [""], ["acc"])) == COLUMNS + "\n"


def test_the_order_of_records_does_not_matter():
    one = build_table(EWC + SI, ["si", "ewc"], [""], ["acc"])
    other = build_table(list(reversed(EWC + SI)), ["si", "ewc"], [""], ["acc"])
    assert to_csv(one) == to_csv(other) and to_markdown(one) == to_markdown(other)
    assert [row.method for row in one.rows] == ["si", "ewc"]


def test_markdown_by_hand():
    published = paper(
        PublishedRow("ewc", 88.0, "", 0.5, "read"), PublishedRow("si", 90.0), runs=10,
        tolerance=0.05, differs="One anchor.",
    )  # fmt: skip
    text = to_markdown(
        build_table(EWC + SI, ["ewc", "si"], [""], ["acc", "bwt"], [published], title="Split")
    )
    h = 100 * 4.302653 * 0.01 / math.sqrt(3)  # of the paired difference: the same deviations
    assert text.startswith(
        "# Split\n\n| method | accuracy (%) | BWT (%) | n | published | status |"
    )
    assert "| ewc | 90.00 ± 2.48 | -9.00 ± 0.25 | 3 | 88.00 ± 0.50 | read | +2.00 [" in text
    assert "| si | 80.00 ± 0.00 | -8.00 ± 0.00 | 3 | 90.00 | recalled | -10.00 [" in text
    assert f"| ewc | si | +10.00 [+{10 - h:.2f}, +{10 + h:.2f}] | 0.003 | 0.003 | 3 |" in text
    assert "± is the half-width of the 95 % confidence interval over seeds (Student t)" in text
    assert "weights: last checkpoint" in text
    assert "- Published: Paper A, Table 3; its ± is: standard error, 10 runs; tolerance 5 points. "\
        "Differs: One anchor." in text  # fmt: skip
    assert (
        "1 of 1 comparable cells agree; without a verdict (recalled, missing or fewer than two "
        in text
    )


def test_markdown_has_as_many_cells_in_each_line():
    rows = [PublishedRow("ewc", 88.0, s, 0.5, "read") for s in ("task", "class")]
    second = Published("B", "bwt", [PublishedRow("ewc", -9.0, "task")])
    records = [r | {"setting": s} for r in EWC + SI for s in ("task", "class")]
    table = build_table(
        records, ["ewc", "si", "a|b"], ["task", "class"], ["acc", "bwt"],
        [paper(*rows), paper(rows[0], source="C"), second],
    )  # fmt: skip
    blocks = [b for b in to_markdown(table).split("\n\n") if b.startswith("|")]
    assert len(blocks) == 5  # two results, two of tests, one of the other published metric
    for block in blocks:
        assert len({line.replace(r"\|", "").count("|") for line in block.splitlines()}) == 1


def test_missing_cells_are_seen():
    """A cell without records, one without its third seed, one that failed altogether."""
    failed = record("si", 0, None, status="failed", reason="loss is\nnot finite", metrics={})
    table = build_table(
        [*EWC[:2], failed], ["ewc", "si", "er"], [""], ["acc"],
        [paper(PublishedRow("er", 91.0, status="read"))], seeds=[0, 1, 2],
    )  # fmt: skip
    text = to_markdown(table)
    assert "| er | missing | 0 of 3 | 91.00 | read |  |  |" in text
    assert "| ewc | 89.50 ± 6.35 | 2 of 3 |" in text
    assert "| si | missing | 0 of 3 |" in text
    assert "- Missing: ewc, seed 2." in text and "- Missing: er, seeds 0, 1, 2." in text
    assert "- Failed: si, seed 0: loss is not finite" in text
    assert [(x["method"], x["mean"], x["n"]) for x in lines_of(table)] == [
        ("ewc", "0.895", "2"), ("si", "", "0"), ("er", "", "0"),
    ]  # fmt: skip
    assert r"er & missing & 0 of 3 & 91.00 & read &  &  \\" in to_latex(table)


def test_a_warning_of_a_record_is_a_note():
    """Once a seed; and a record without details has none."""
    warned = record("si", 1, 0.5, details={"warning": "round 2 chose no target sample"})
    text = to_markdown(build_table([*EWC, warned], ["ewc", "si"], [""], ["acc"]))
    assert "- Warning: si, seed 1: round 2 chose no target sample." in text
    assert text.count("Warning") == 1


def test_without_seeds_a_missing_cell_is_named_and_a_failed_one_is_not_missing():
    failed = record("si", 0, None, status="failed", metrics={})
    text = to_markdown(build_table([failed], ["ewc", "si"], [""], ["acc"]))
    assert "- Missing: ewc." in text and "Missing: si" not in text
    assert "| si | failed | 0 of 1 |" in text
    assert "Failed: si, seed 0: no reason recorded" in text


def test_an_undefined_metric_lowers_its_n_and_is_noted():
    records = [*EWC[:2], record("ewc", 2, None, metrics={"acc": None, "bwt": 0.5})]
    table = build_table(records, ["ewc"], [""], ["acc", "bwt"])
    assert [line["n"] for line in lines_of(table)] == ["2", "3"]
    text = to_markdown(table)
    assert "- Undefined: ewc, accuracy in 1 of 3 seeds." in text and "| 2 of 3 |" in text
    assert "undefined" in to_markdown(build_table(EWC, ["ewc"], [""], ["acc", "fwt"]))


def test_only_the_expected_cells_are_missing():
    records = [r | {"setting": "strength=1e3"} for r in EWC] + [r | {"setting": ""} for r in SI]
    cells = [("ewc", "strength=1e3"), ("si", "")]
    table = build_table(records, ["ewc", "si"], ["strength=1e3", ""], ["acc"], cells=cells)
    assert [(row.method, row.setting) for row in table.rows] == cells
    assert "missing" not in to_markdown(table).lower()


def test_a_row_made_by_older_code_is_stale():
    records = [*EWC[:2], EWC[2] | {"source": "old"}, *SI]
    table = build_table(
        records,
        ["ewc", "si"],
        [""],
        ["acc"],
        current_source={("ewc", ""): "new", ("si", ""): "new"},
    )
    text = to_markdown(table)
    assert "| ewc (stale) | 90.00" in text and "| si | 80.00" in text
    assert "older version of the code" in text
    assert "stale" not in to_markdown(build_table(records, ["ewc", "si"], [""], ["acc"]))


def test_verdicts_are_counted_and_saturated_ones_apart():
    """Spread .0001 over 3 seeds: h = .00025, so the words are those of the differences."""
    wanted = {"same": (0.9, 90.0), "above": (0.9, 85.0), "edge": (0.9, 88.99),
              "top": (0.995, 99.5), "guess": (0.5, 52.0), "memory": (0.9, 90.0)}  # fmt: skip
    records = [
        record(name, seed, ours + 1e-4 * (seed - 1))
        for name, (ours, _) in wanted.items()
        for seed in range(3)
    ]
    rows = [
        PublishedRow(name, theirs, status="recalled" if name == "memory" else "quoted", chance=0.5)
        for name, (_, theirs) in wanted.items()
    ]
    table = build_table(records, list(wanted), [""], ["acc"], [paper(*rows)])
    assert [line["verdict"] for line in lines_of(table)] == [
        "agrees", "differs +", "inconclusive", "agrees", "differs -", "",
    ]  # fmt: skip
    text = to_markdown(table)
    assert (
        "Agreement with published numbers: 1 of 3 comparable cells agree (1 inconclusive, "
        "1 differs +); "
        "counted apart: 1 of 2 saturated cells (at chance or above 99 %) agree (1 differs -); "
        "without a verdict (recalled, missing or fewer than two seeds): 1." in text
    )
    assert text.count("| agrees (saturated) |") == 1


def test_two_papers_are_two_lines_with_their_sources():
    first = paper(PublishedRow("ewc", 88.0, status="read"))
    second = paper(PublishedRow("ewc", 90.0, status="quoted", source="C"), source="B")
    table = build_table(EWC, ["ewc"], [""], ["acc"], [first, second])
    assert [x["published"] for x in lines_of(table)] == ["0.88", "0.9"]
    text = to_markdown(table)
    assert "| 88.00 [1] | read |" in text and "| 90.00 [2] | quoted |" in text
    assert "tolerance 1 point." in text
    assert "Published [1]: Paper A, Table 3;" in text and "Published [2]: C;" in text


def test_published_numbers_of_another_metric_have_a_grid_of_their_own():
    block = paper(PublishedRow("ewc", -9.0, status="read"), metric="bwt", tolerance=0.02)
    table = build_table(EWC, ["ewc"], [""], ["acc", "bwt"], [block])
    assert lines_of(table)[1]["verdict"] == "agrees"
    assert "| ewc | BWT (%) | -9.00 ± 0.25 | -9.00 | read | +0.00 [" in to_markdown(table)


def test_nothing_is_left_out_silently():
    """A published number and a record that have no row are named below the table."""
    block = paper(PublishedRow("xdg", 91.4, spread=0.23, status="read"))
    table = build_table(EWC + SI, ["ewc"], [""], ["acc"], [block])
    text = to_markdown(table)
    assert "Published without a row here: xdg, accuracy (%) 91.40 ± 0.23 (read)." in text
    assert "Records without a row in this table: si." in text


def test_paired_tests_are_corrected_within_a_setting():
    er = [record("er", seed, acc) for seed, acc in enumerate([0.85, 0.88, 0.86])]
    table = build_table(EWC + SI + er, ["ewc", "si", "er"], [""], ["acc"])
    values = {
        name: {r["seed"]: r["metrics"]["acc"] for r in rs}
        for name, rs in {"ewc": EWC, "si": SI, "er": er}.items()
    }
    assert table.tests[""] == paired_tests(values)
    assert len(table.tests[""]) == 3


def test_latex_is_escaped_and_has_one_width():
    records = [r | {"method": "split_mnist & 50%"} for r in EWC] + SI
    text = to_latex(build_table(records, ["split_mnist & 50%", "si"], [""], ["acc"], title="T_1"))
    assert r"\caption{T\_1}" in text and r"split\_mnist \& 50\% & 90.00 $\pm$ 2.48" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    for tabular in text.split(r"\begin{tabular}")[1:]:
        body = tabular.split(r"\end{tabular}")[0]
        columns = body[1 : body.index("}")]
        lines = [x for x in body.splitlines()[1:] if x.endswith(r"\\")]
        assert {x.replace(r"\&", "").count("&") for x in lines} == {len(columns) - 1}


def test_the_sign_of_forgetting_is_explained_where_it_is_shown():
    for metrics, shown in ((["acc", "forgetting"], True), (["acc", "bwt"], False)):
        text = to_markdown(build_table(EWC, ["ewc"], [""], metrics))
        assert "- n: seeds." in text and ("Below 0, forgetting means" in text) is shown


def test_two_records_of_one_cell_are_refused():
    with pytest.raises(ValueError, match="two records of ewc, seed 0"):
        build_table([EWC[0], EWC[0]], ["ewc"], [""], ["acc"])


def test_a_published_accuracy_above_one_has_the_wrong_unit():
    block = paper(PublishedRow("ewc", 88.0), unit="fraction")
    with pytest.raises(UserError, match="unit: percent"):
        build_table(EWC, ["ewc"], [""], ["acc"], [block])
    errors = Published("Hinton", "errors", [PublishedRow("ewc", 146, status="read")], "fraction")
    build_table(EWC, ["ewc"], [""], ["acc"], [errors])
