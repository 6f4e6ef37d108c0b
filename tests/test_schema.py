"""From plain values to settings: what is accepted, and the sentence when it is not."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from tlresearch import schema
from tlresearch.backbones import BACKBONES
from tlresearch.backbones.mlp import MLP
from tlresearch.continual import METHODS
from tlresearch.continual.ewc import EWC
from tlresearch.data.tasks import StreamSettings
from tlresearch.errors import UserError
from tlresearch.experiment import Header
from tlresearch.settings import Bounds
from tlresearch.training.settings import Train


@dataclass(frozen=True)
class Inner:
    share: Annotated[float, Bounds(ge=0, lt=1)] = 0.5


@dataclass(frozen=True)
class Outer:
    needed: int
    word: str = ""
    flag: bool = False
    maybe: Annotated[int, Bounds(ge=1)] | None = None
    size: Literal["auto"] | Annotated[int, Bounds(ge=1)] = "auto"
    kind: Literal["adam", "sgd"] = "adam"
    pair: tuple[float, float] = (0.0, 0.0)
    many: tuple[int, ...] = ()
    inner: Inner = field(default_factory=Inner)
    inners: list[Inner] = field(default_factory=list)
    table: dict[str, Inner] = field(default_factory=dict)
    free: Any = None


def outer(**values: Any) -> Outer:
    return schema.structure({"needed": 1} | values, Outer, "", "exp.yaml")


def refusal(value: Any, kind: Any = Outer, place: str = "") -> str:
    """The one sentence with which a value is refused."""
    with pytest.raises(UserError) as caught:
        schema.structure(value, kind, place, "exp.yaml")
    message = str(caught.value)
    assert message.startswith("exp.yaml: ") and "\n" not in message
    return message


def test_a_full_value_becomes_the_dataclass():
    """Lists become tuples, whole floats integers, groups dataclasses."""
    made = outer(
        word="w",
        flag=True,
        maybe=2.0,
        size=4,
        kind="sgd",
        pair=[1, 2],
        many=[1, 2.0, 3],
        inner={"share": 0},
        inners=[{}, {"share": 0.25}],
        table={"a": {"share": 0.75}, 1: {}},
        free={"x": [1]},
    )
    assert made == Outer(
        needed=1,
        word="w",
        flag=True,
        maybe=2,
        size=4,
        kind="sgd",
        pair=(1.0, 2.0),
        many=(1, 2, 3),
        inner=Inner(0.0),
        inners=[Inner(), Inner(0.25)],
        table={"a": Inner(0.75), "1": Inner()},
        free={"x": [1]},
    )
    assert all(type(item) is int for item in (made.maybe, *made.many))
    assert all(type(item) is float for item in (*made.pair, made.inner.share))


def test_what_is_left_out_takes_its_default():
    assert outer() == Outer(needed=1)
    assert outer(maybe=None).maybe is None
    assert outer(size="auto").size == "auto"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"needed": 2.7}, "key 'needed' must be a whole number, not 2.7"),
        ({"needed": True}, "key 'needed' must be a whole number, not True"),
        ({"needed": "5"}, "key 'needed' must be a whole number, not '5'"),
        ({"needed": None}, "key 'needed' must be a whole number, not nothing"),
        ({"needed": [1]}, "key 'needed' must be a whole number, not [1]"),
        ({"word": 3}, "key 'word' must be a text, not 3"),
        ({"word": None}, "key 'word' must be a text, not nothing"),
        ({"flag": 1}, "key 'flag' must be true or false, not 1"),
        ({"flag": "true"}, "key 'flag' must be true or false, not 'true'"),
        ({"maybe": 0}, "key 'maybe' must be a number at least 1, not 0"),
        ({"maybe": 1.5}, "key 'maybe' must be a whole number, not 1.5"),
        ({"kind": "adma"}, "key 'kind' must be one of adam, sgd, not 'adma'; did you mean 'adam'?"),
        ({"kind": "rmsprop"}, "key 'kind' must be one of adam, sgd, not 'rmsprop'"),
        ({"kind": True}, "key 'kind' must be one of adam, sgd, not True"),
        ({"kind": ["adam"]}, "key 'kind' must be one of adam, sgd, not ['adam']"),
        ({"size": 0}, "key 'size' must be auto or a whole number at least 1, not 0"),
        ({"size": "all"}, "key 'size' must be auto or a whole number at least 1, not 'all'"),
        ({"size": True}, "key 'size' must be auto or a whole number at least 1, not True"),
        ({"pair": [1]}, "key 'pair' must be a list of 2 values, not [1]"),
        ({"pair": [1, 2, 3]}, "key 'pair' must be a list of 2 values, not [1, 2, 3]"),
        ({"pair": [1, "x"]}, "key 'pair[1]' must be a number, not 'x'"),
        ({"many": 3}, "key 'many' must be a list, e.g. [3], not 3"),
        ({"many": "123"}, "key 'many' must be a list, e.g. [123], not '123'"),
        ({"many": [1, 2.5]}, "key 'many[1]' must be a whole number, not 2.5"),
        ({"inner": 3}, "key 'inner' must be keys and values, not 3"),
        ({"inner": None}, "key 'inner' must be keys and values, not nothing"),
        ({"inner": {"share": -0.1}}, "key 'inner.share' must be a number at least 0 and below 1, "
         "not -0.1"),
        ({"inner": {"share": 1.0}}, "key 'inner.share' must be a number at least 0 and below 1, "
         "not 1.0"),
        ({"inners": [{}, {"shore": 1}]}, "unknown key 'inners[1].shore'; did you mean 'share'?"),
        ({"table": {"a": {"share": "x"}}}, "key 'table.a.share' must be a number, not 'x'"),
        ({"table": [1]}, "key 'table' must be keys and values, not [1]"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_place_expectation_and_finding(values, message):
    assert refusal({"needed": 1} | values) == f"exp.yaml: {message}"


def test_a_place_above_is_part_of_the_key():
    assert "key 'methods.ewc.needed' must" in refusal({"needed": "x"}, place="methods.ewc")
    assert "key 'a.needed' is missing; it has no default" in refusal({}, place="a")
    assert refusal([1]) == "exp.yaml: the file must be keys and values, not [1]"


def test_a_long_value_is_shortened():
    assert len(refusal({"needed": "x" * 10_000})) < 150


@pytest.mark.parametrize("key", ["lr", "weight_decay", "clip", "steps"])
@pytest.mark.parametrize("value", [math.inf, math.nan, 10**400], ids=["inf", "nan", "huge"])
def test_no_setting_of_training_may_be_infinite(key: str, value: float):
    """A run with one is lost from the start; and 10^400 is no float at all."""
    assert f"'train.{key}'" in refusal({key: value}, Train, "train")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (EWC, {"strength": -1}),
        (EWC, {"fisher": {"samples": 0}}),
        (EWC, {"fisher": {"batch": 0}}),
        (METHODS["online_ewc"], {"decay": 1.01}),
        (MLP, {"dropout": 1.0}),
        (MLP, {"dropout": -1e-9}),
        (MLP, {"hidden": [8, 0]}),
        (MLP, {"hidden": [8, True]}),
        (Train, {"batch_size": 0}),
        (Train, {"steps": 0}),
        (Train, {"lr": 0}),
        (Train, {"lr": True}),
        (Train, {"steps": 2.7}),
        (Train, {"steps": "5"}),
        (Train, {"betas": [0.9, 1]}),
        (Train, {"milestones": [1.0]}),
        (Train, {"stack": 0}),
        (Train, {"precision": "fp16"}),
        (StreamSettings, {"dataset": "optdigits", "tasks": 0}),
        (StreamSettings, {"dataset": "optdigits", "validation": 1}),
        (StreamSettings, {"dataset": "optdigits", "max_angle": 361}),
        (StreamSettings, {"dataset": 3}),
        (StreamSettings, {}),
    ],
)
def test_the_projects_own_bounds_are_kept(kind, values):
    key = [*values][-1] if values else "dataset"
    assert f"'p.{key}" in refusal(values, kind, "p")


@pytest.mark.parametrize(
    ("kind", "foreign", "ours"),
    [
        *[
            (EWC, w, "strength")
            for w in ("lambda", "ewc_lambda", "reg_lambda", "e_lambda", "Lambda")
        ],
        (METHODS["online_ewc"], "gamma", "decay"),
        (METHODS["online_ewc"], "decay_factor", "decay"),
        *[
            (StreamSettings, w, "tasks")
            for w in ("experience", "experiences", "n_tasks", "contexts")
        ],
        *[(Train, w, "steps") for w in ("epochs", "n_epochs", "iters", "iterations")],
        *[(Train, w, "batch_size") for w in ("train_mb_size", "batch")],
        (Train, "learning_rate", "lr"),
        (Train, "optim", "optimizer"),
        (Train, "optimiser", "optimizer"),
        (MLP, "hidden_sizes", "hidden"),
        (Header, "model", "backbone"),
        (Header, "strategy", "methods"),
        (Header, "seed", "seeds"),
    ],
)
def test_words_of_other_libraries_are_translated(kind, foreign: str, ours: str):
    message = refusal({foreign: 1}, kind, "p")
    assert message == f"exp.yaml: unknown key 'p.{foreign}'; it is called '{ours}' here"


def test_a_memory_is_translated_where_a_method_has_one():
    known = ["memory", "strength"]
    for word in ("buffer", "buffer_size", "mem_size"):
        assert schema.nearest(word, known) == "it is called 'memory' here"


def test_synonyms_name_keys_that_exist_or_are_planned():
    """A translation into a key that no settings have would send people astray."""
    kinds = [Header, Train, StreamSettings, *METHODS.values(), *BACKBONES.values()]
    known = {name for kind in kinds for name in schema.fields_of(kind)}
    known |= {name for name in schema.fields_of(schema.fields_of(EWC)["fisher"])} | {"memory"}
    assert {ours for choices in schema.SYNONYMS.values() for ours in choices} <= known


def test_the_nearest_names_then_all_then_none():
    assert schema.nearest("sedes", ["lr", "seeds"]) == "did you mean 'seeds'?"
    assert schema.nearest("zzz", ["steps", "seeds"]) == "expected one of steps, seeds"
    assert schema.nearest("ewc_lambda", []) == "it takes no settings"


def test_a_key_is_shown_on_one_line():
    refusal({"needed": 1, "a\nb": 2})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, "a whole number"),
        (Annotated[float, Bounds(gt=0)], "a number above 0"),
        (Literal["adam", "sgd"], "one of adam, sgd"),
        (tuple[int, ...], "a list of whole numbers"),
        (int | None, "a whole number or null"),
        (bool, "true or false"),
        (str, "a text"),
        (Inner, "a group of settings"),
    ],
)
def test_types_are_said_in_words(kind, words: str):
    assert schema.describe_type(kind) == words


def test_a_choice_of_numbers_takes_those_of_its_type_alone():
    """1 is not true, and 3 not "3"."""
    kind = Literal[1, 3] | None
    assert [schema.structure(value, kind, "channels", "f.yaml") for value in (1, 3, None)] == [
        1,
        3,
        None,
    ]
    for value in (2, True, "3", 3.0):
        with pytest.raises(UserError, match="key 'channels' must be one of 1, 3, not "):
            schema.structure(value, kind, "channels", "f.yaml")
