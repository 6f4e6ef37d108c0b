"""How numbers are printed: names, units and decimals of metrics; escaping of text."""

import math
import re
from dataclasses import dataclass

_LARGE = 1e6
"""From here on a number is printed with an exponent."""


@dataclass(frozen=True)
class MetricFormat:
    """How one metric is printed."""

    label: str
    """Heading of its column, without the unit."""
    unit: str = ""
    """`%`, `s`, `nats`, or empty."""
    scale: float = 1.0
    """Printed value / stored value."""
    decimals: int | None = None
    """Digits after the point; None prints four significant digits."""
    ceiling: float | None = None
    """Stored value above which a cell is saturated; None where there is no ceiling."""
    lower_is_better: bool = False
    """Whether a smaller value is the better one."""

    @property
    def best(self) -> str:
        """`highest mean` or `lowest mean`."""
        return "lowest mean" if self.lower_is_better else "highest mean"

    @property
    def heading(self) -> str:
        """`accuracy (%)`."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def difference_heading(self) -> str:
        """`difference (points)`; a difference of percentages is in points."""
        unit = "points" if self.unit == "%" else self.unit
        return f"difference ({unit})" if unit else "difference"

    def number(self, value: float, sign: bool = False) -> str:
        """A stored value as text, without its unit; NaN is `undefined`."""
        if math.isnan(value):
            return "undefined"
        form = f".{self.decimals}f" if self.decimals is not None else ".4g"
        form = ".1e" if abs(self.scale * value) >= _LARGE else form
        text = format(self.scale * value, ("+" if sign else "") + form)
        return text if sign or float(text) != 0 else text.lstrip("-")  # no minus zero

    def plus_minus(self, value: float, spread: float | None) -> str:
        """`98.64 ± 0.22`; without ± where the spread is unknown."""
        if spread is None or math.isnan(spread):
            return self.number(value)
        return f"{self.number(value)} ± {self.number(spread)}"


def _percent(label: str, ceiling: float | None = None, lower: bool = False) -> MetricFormat:
    """A fraction that is printed in percent with two decimals."""
    return MetricFormat(label, "%", 100.0, 2, ceiling, lower)


def _mse(label: str) -> MetricFormat:
    """A squared error in squared units of the output."""
    return MetricFormat(label, decimals=3, lower_is_better=True)


def _steps(count: int) -> str:
    """`1 step`, `5 steps`."""
    return f"{count} step{'s' * (count != 1)}"


_SHIFTS = {
    "": "",
    "_shifted": ", shifted without labels",
    "_shifted_oracle": ", shifted by true labels",
}
"""Of the logits of classes that a student never saw."""

METRIC_FORMATS: dict[str, MetricFormat] = {
    "acc": _percent("accuracy", 0.99),
    "accuracy": _percent("accuracy", 0.99),
    "acc_incremental": _percent("average incremental accuracy", 0.99),
    "learning_accuracy": _percent("learning accuracy", 0.99),
    "average_incremental_accuracy": _percent("average incremental accuracy", 0.99),
    "worst_case_accuracy": _percent("worst-case accuracy", 0.99),
    "forgetting_first_minus_last": _percent("forgetting, first minus last", lower=True),
    "bwt": _percent("BWT"),
    "fwt": _percent("FWT"),
    "forgetting": _percent("forgetting", lower=True),
    "forgetting_final": _percent("final forgetting", lower=True),
    "intransigence": _percent("intransigence", lower=True),
    "agreement": _percent("agreement", 0.99),
    **{
        f"errors{end}": MetricFormat(f"errors{words}", decimals=1, lower_is_better=True)
        for end, words in _SHIFTS.items()
    },
    **{
        f"acc_absent{end}": _percent(f"accuracy, absent classes{words}")
        for end, words in _SHIFTS.items()
    },
    "errors_selected": MetricFormat("errors, selected", decimals=1, lower_is_better=True),
    "errors_absent": MetricFormat("errors, absent classes", decimals=1, lower_is_better=True),
    "acc_selected": _percent("accuracy, selected", 0.99),
    "shift": MetricFormat("shift without labels", decimals=2),
    "shift_oracle": MetricFormat("shift by true labels", decimals=2),
    "nll": MetricFormat("NLL", "nats", decimals=4, lower_is_better=True),
    "nll_scaled": MetricFormat("NLL, scaled", "nats", decimals=4, lower_is_better=True),
    "kl_teacher": MetricFormat("KL to the teacher", "nats", decimals=4, lower_is_better=True),
    "temperature": MetricFormat("scaling temperature", decimals=2),
    "ece_scaled": _percent("ECE, scaled", lower=True),
    "parameters": MetricFormat("parameters", decimals=0, lower_is_better=True),
    "flops": MetricFormat("FLOPs", decimals=0, lower_is_better=True),
    "oracle": _percent("accuracy by target labels, oracle", 0.99),
    "source_acc": _percent("source validation accuracy", 0.99),
    "source_test_acc": _percent("source test accuracy", 0.99),
    "domain_acc": _percent("domain classifier accuracy"),
    "a_distance": MetricFormat("A-distance", decimals=2, lower_is_better=True),
    "entropy": MetricFormat("negative entropy", "nats", decimals=3),
    "im": MetricFormat("information maximisation", "nats", decimals=3),
    "snd": MetricFormat("SND", "nats", decimals=3),
    "dev": _percent("DEV accuracy"),
    "reverse": _percent("reverse validation accuracy", 0.99),
    "error": _percent("error", lower=True),
    "ece": _percent("ECE", lower=True),
    "acc_seen": _percent("accuracy, seen classes", 0.99),
    "acc_unseen": _percent("accuracy, unseen classes", 0.99),
    "harmonic_mean": _percent("harmonic mean", 0.99),
    "ci_episodes": _percent("95 % CI over episodes", lower=True),
    "mse": _mse("MSE"),
    "mse_ci_episodes": _mse("95 % CI over episodes"),
    **{f"acc_{k}": _percent(f"accuracy after {_steps(k)}", 0.99) for k in range(11)},
    **{f"mse_{k}": _mse(f"MSE after {_steps(k)}") for k in range(11)},
    "nll_selected": MetricFormat("NLL, selected", "nats", decimals=4, lower_is_better=True),
    "ece_selected": _percent("ECE, selected", lower=True),
    "acc_before": _percent("accuracy before training", 0.99),
    "errors_before": MetricFormat("errors before training", decimals=1, lower_is_better=True),
    "steps_per_second": MetricFormat("steps per second", decimals=0),
    "train_steps": MetricFormat("training steps", decimals=0),
    "seconds": MetricFormat("time", "s", 1.0, 1, None, True),
    "wall_seconds": MetricFormat("wall time", "s", 1.0, 1, None, True),
}
"""How known metrics are printed. Others: see `metric_format`."""


def metric_format(name: str) -> MetricFormat:
    """The format of a metric.

    An unknown name that begins with a known one and `_`, as `acc_target`, is printed like it
    under its own name; any other is a plain number with four significant digits.
    """
    if name in METRIC_FORMATS:
        return METRIC_FORMATS[name]
    base = METRIC_FORMATS.get(name.split("_")[0])
    label = name.replace("_", " ")
    if base is None:
        return MetricFormat(label)
    return MetricFormat(label, base.unit, base.scale, base.decimals, base.ceiling,
                        base.lower_is_better)  # fmt: skip


def p_text(p: float) -> str:
    """A p value with three decimals; `< 0.001` below; `not tested` for NaN."""
    if math.isnan(p):
        return "not tested"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def csv_number(value: float | None) -> str:
    """Six significant digits in Python's shortest form; empty for NaN and None."""
    if value is None or math.isnan(value):
        return ""
    return repr(float(f"{value:.6g}"))


def duration(seconds: float) -> str:
    """`7.9 s`, `12 min` or `2.5 h`: two digits or more, in the unit that suits."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 99.5 else f"{minutes / 60:.1f} h"


def one_line(text: str) -> str:
    """Text with every run of white space as one space."""
    return " ".join(text.split())


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table too."""
    return re.sub(r"([\\|*`<])", r"\\\1", one_line(text))


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "[": "{[}",  # a row that begins with [ would be an argument of the \\ before it
    "]": "{]}",
    **{character: "\\" + character for character in "&%$#_"},
}


def latex(text: str) -> str:
    """Text that LaTeX sets as it is; the minus of a number is a real one."""
    escaped = "".join(_LATEX.get(character, character) for character in one_line(text))
    return re.sub(r"(?<![\w.-])-(?=[\d.])", "$-$", escaped)
