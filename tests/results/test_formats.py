"""Numbers and text in print."""

import math

import pytest

from tlresearch.continual.protocol import METRICS
from tlresearch.results.formats import (
    csv_number,
    duration,
    latex,
    markdown,
    metric_format,
    p_text,
)


def test_percent_seconds_and_plain_numbers():
    accuracy, seconds, loss = map(metric_format, ("acc", "seconds", "unheard"))
    assert accuracy.heading == "accuracy (%)" and seconds.heading == "time (s)"
    assert accuracy.plus_minus(0.98642, 0.0022) == "98.64 ± 0.22"
    assert accuracy.plus_minus(0.98642, math.nan) == "98.64"
    assert seconds.number(12.34) == "12.3"
    assert (loss.heading, loss.number(0.0123456)) == ("unheard", "0.01235")
    assert accuracy.number(math.nan) == "undefined"
    assert accuracy.number(0.0012, sign=True) == "+0.12"
    assert accuracy.number(-1e-9) == "0.00"


def test_a_metric_that_continues_a_known_name_is_printed_like_it():
    form = metric_format("acc_target_oracle")
    assert form.heading == "acc target oracle (%)"
    assert (form.number(0.5), form.ceiling) == ("50.00", 0.99)
    assert metric_format("accident").unit == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.98642, "0.98642"), (1 / 3, "0.333333"), (1e-7, "1e-07"), (-1.0, "-1.0"),
     (math.nan, ""), (None, "")],
)  # fmt: skip
def test_csv_numbers(value, text):
    assert csv_number(value) == text


def test_p_values():
    assert [p_text(p) for p in (0.0312, 0.0009, 1.0)] == ["0.031", "< 0.001", "1.000"]
    assert p_text(math.nan) == "not tested"


def test_markdown_shows_text_as_it_is():
    assert markdown("a|b *c* <d>\n`e`") == r"a\|b \*c\* \<d> \`e\`"
    assert markdown("split_mnist_task") == "split_mnist_task"


def test_latex_sets_text_as_it_is():
    assert latex(r"a_b & 5 % of $x^2$ \y {z} ~ #") == (
        r"a\_b \& 5 \% of \$x\textasciicircum{}2\$ \textbackslash{}y \{z\} "
        r"\textasciitilde{} \#"
    )
    assert latex("[-0.30, +0.54] ± 2") == r"{[}$-$0.30, +0.54{]} $\pm$ 2"
    assert latex("2026-01-02, 1e-05, resnet-20") == "2026-01-02, 1e-05, resnet-20"


def test_less_forgetting_is_better_and_more_of_the_other_metrics():
    lower = {name for name in METRICS if metric_format(name).lower_is_better}
    assert lower == {"forgetting", "forgetting_first_minus_last"}
    assert all(metric_format(name).lower_is_better for name in ("error_target", "ece", "seconds"))
    assert not metric_format("acc_target").lower_is_better


def test_metrics_of_episodes():
    forms = {name: metric_format(name) for name in ("ci_episodes", "mse_0", "mse_1", "mse_10")}
    assert forms["ci_episodes"].heading == "95 % CI over episodes (%)"
    assert forms["ci_episodes"].number(0.0042) == "0.42"
    assert [form.label for form in forms.values()][1:] == [
        "MSE after 0 steps", "MSE after 1 step", "MSE after 10 steps"
    ]  # fmt: skip
    assert all(form.lower_is_better for form in forms.values())
    assert [metric_format(n).number(0.77049) for n in ("mse", "mse_1", "mse_12")] == ["0.770"] * 3
    assert metric_format("mse_ci_episodes").heading == "95 % CI over episodes"
    assert metric_format("acc_5").heading == "accuracy after 5 steps (%)"
    assert metric_format("train_steps").number(60000) == "60000"
    assert metric_format("harmonic_mean").heading == "harmonic mean (%)"
    assert metric_format("acc_unseen").heading == "accuracy, unseen classes (%)"


def test_a_duration_is_in_the_unit_that_suits():
    shown = {0.0: "0.0 s", 99.94: "99.9 s", 99.96: "2 min", 5940: "99 min", 5999: "1.7 h"}
    assert {seconds: duration(seconds) for seconds in shown} == shown
