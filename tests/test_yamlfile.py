"""YAML: which texts are numbers, and what is refused."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlresearch import yamlfile
from tlresearch.errors import UserError


def refusal(text: str) -> str:
    """The one sentence with which a text is refused."""
    with pytest.raises(UserError) as caught:
        yamlfile.parse(text, "exp.yaml")
    message = str(caught.value)
    assert message.startswith("exp.yaml") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        ("1e7", 1e7),
        ("1.0e7", 1e7),
        ("1.5e+3", 1500.0),
        ("-2E-3", -0.002),
        ("+1e2", 100.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("0.1", 0.1),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
    ],
)
def test_numbers_as_people_write_them(text: str, value: float):
    """Section 10.3.2 of YAML 1.2; PyYAML itself reads 1e3 as text."""
    for form in (text, f"[{text}]", f"{{a: {text}}}"):
        parsed = yamlfile.parse(form, "x")
        parsed = parsed[0] if form[0] == "[" else parsed["a"] if form[0] == "{" else parsed
        assert (parsed, type(parsed)) == (value, type(value))
    assert yamlfile.parse(f"'{text}'", "x") == text


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_nan_is_a_number(text: str):
    assert math.isnan(yamlfile.parse(text, "x"))


@pytest.mark.parametrize(
    "text", ["1e", "e3", "1.2.3", "1e1e1", "+-1", "1e3x", "adam", "v1.0", "inf"]
)
def test_texts_that_only_resemble_numbers_stay_texts(text: str):
    assert yamlfile.parse(text, "x") == text


@pytest.mark.parametrize(("text", "value"), [("010", 10), ("1:30", "1:30"), ("-1:30.5", "-1:30.5")])
def test_numbers_are_not_those_of_yaml_1_1(text: str, value: object):
    """There `steps: 010` is 8 and `steps: 1:30` is 90, and nobody notices."""
    assert yamlfile.parse(text, "x") == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_back(x: float):
    for text in (repr(x), f"{x:e}", f"{x:.17E}"):
        parsed = yamlfile.parse(text, "x")
        assert isinstance(parsed, float) and parsed == float(text)


def test_words_are_what_yaml_says():
    text = "{a: true, b: null, c: ~, d: hello, e: [], f: {}}"
    expected = {"a": True, "b": None, "c": None, "d": "hello", "e": [], "f": {}}
    assert yamlfile.parse(text, "x") == expected
    assert yamlfile.parse("", "x") is None


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "b: {a: 1, c: 2, a: 1}", "- {x: 1}\n- {x: 1, 'x': 2}", "1: a\n1: b"]
)
def test_a_key_given_twice_is_refused_at_any_depth(text: str):
    assert "is given twice" in refusal(text)


def test_the_line_of_the_mistake_is_named():
    assert refusal("a: 1\nb: 2\na: 3\n").startswith("exp.yaml line 3: ")


@pytest.mark.parametrize(
    "text",
    [
        *("a:\n\tb: 1", "a: [1, 2", "a: {b: 1", "a: 'open", "a: b: c", "- a\nb: 1", "a: *none"),
        *("a: 1\n---\na: 2", "%YAML 3.0\n---\na", "@a: 1", "{[1, 2]: 3}", "{{a: 1}: 3}", "\x00"),
        *("d: 2020-13-45", "&a [*a]: 1", "a: !!int seven", "a: !unknown 3", "<<: {a: 1}"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(text: str):
    refusal(text)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {0}']",
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{0}']]",
        "!!python/object/new:os.system ['touch {0}']",
        "!!python/object:tlresearch.errors.UserError {{}}",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/tuple [1, 2]",
    ],
)
def test_no_object_is_made_and_nothing_is_executed(tag: str, tmp_path):
    trap = tmp_path / "executed"
    assert "not valid YAML" in refusal("train: " + tag.format(trap))
    assert not trap.exists()


@pytest.mark.parametrize(
    "text",
    ["[" * 20_000, "[" * 5_000 + "]" * 5_000, "{a: " * 5_000 + "1" + "}" * 5_000, "- " * 5_000],
)
def test_nesting_beyond_reason_is_refused(text: str):
    refusal(text)


def test_an_integer_of_five_thousand_digits_is_refused():
    """Python reads no more than 4,300 digits."""
    refusal("a: " + "1" * 5000)


def test_an_alias_is_shared_and_not_copied():
    """9^12 leaves take no memory, as every alias is the same list."""
    lines = ["a0: &a0 [1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 13)]
    began = time.monotonic()
    value = yamlfile.parse("\n".join(lines), "x")
    assert time.monotonic() - began < 2
    assert all(item is value["a11"] for item in value["a12"])


def test_a_file_is_read_as_utf8(tmp_path):
    path = tmp_path / "exp.yaml"
    path.write_text("title: Huszár, λ = 3\n", encoding="utf-8")
    assert yamlfile.read(path) == {"title": "Huszár, λ = 3"}
    path.write_text("\ufefftitle: x\n", encoding="utf-8")
    assert yamlfile.read(path) == {"title": "x"}


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("title: Huszár".encode("latin-1"))
    cases = {
        latin: "not a UTF-8 text file",
        tmp_path / "absent.yaml": "there is no such experiment file",
        tmp_path: "this is a folder",
        latin / "below.yaml": "cannot be read",
        tmp_path / ("x" * 300): "cannot be read",
    }
    for path, words in cases.items():
        with pytest.raises(UserError) as caught:
            yamlfile.read(path)
        message = str(caught.value)
        assert message.startswith(str(path)) and words in message and "\n" not in message


def test_a_mistake_in_a_file_names_file_and_line(tmp_path):
    path = tmp_path / "exp.yaml"
    path.write_text("a: 1\nb: [1,\n")
    with pytest.raises(UserError, match=r"exp\.yaml line \d: this is not valid YAML"):
        yamlfile.read(path)
