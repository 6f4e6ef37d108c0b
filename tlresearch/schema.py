"""From plain YAML values to frozen dataclasses, strictly, with errors that name the place."""

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from tlresearch.errors import UserError
from tlresearch.settings import Bounds, violations

SYNONYMS = {
    "lambda": ("strength",),
    "lamda": ("strength",),
    "ewc_lambda": ("strength",),
    "reg_lambda": ("strength",),
    "e_lambda": ("strength",),
    "importance": ("strength",),
    "gamma": ("decay", "gamma"),
    "decay_factor": ("decay",),
    "buffer": ("memory",),
    "buffer_size": ("memory",),
    "mem_size": ("memory",),
    "experience": ("tasks",),
    "experiences": ("tasks",),
    "n_experiences": ("tasks",),
    "n_tasks": ("tasks",),
    "contexts": ("tasks",),
    "incremental": ("scenario",),
    "epochs": ("steps",),
    "n_epochs": ("steps",),
    "iters": ("steps",),
    "iterations": ("steps",),
    "train_mb_size": ("batch_size",),
    "minibatch_size": ("batch_size",),
    "batch": ("batch_size",),
    "learning_rate": ("lr",),
    "optim": ("optimizer",),
    "optimiser": ("optimizer",),
    "model": ("backbone",),
    "network": ("backbone",),
    "net": ("backbone",),
    "hidden_size": ("hidden",),
    "hidden_sizes": ("hidden",),
    "data": ("dataset",),
    "strategy": ("methods",),
    "strategies": ("methods",),
    "algorithm": ("methods",),
    "seed": ("seeds",),
    "fisher_n": ("samples",),
    "fisher_samples": ("samples",),
    "n_samples": ("samples",),
}
"""Words of other libraries (Avalanche, Mammoth, van de Ven's code) for our keys."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A clause that helps: the synonym's or the nearest known name, else all of them."""
    known = list(known)
    translated = [name for name in SYNONYMS.get(word.lower(), ()) if name in known]
    if translated:
        return f"it is called '{translated[0]}' here"
    close = difflib.get_close_matches(word.lower(), known, n=2, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"'{name}'" for name in close) + "?"
    if not known:
        return "it takes no settings"
    return f"expected one of {', '.join(known)}"


def structure(value: Any, kind: Any, place: str, where: str) -> Any:
    """`value` as `kind`, checked to the leaves.

    Args:
        value: what YAML gave: dicts, lists, strings, numbers.
        kind: a frozen dataclass, `Annotated[…, Bounds]`, Literal, union, tuple, list, dict, scalar.
        place: dotted key of the value, e.g. `train.lr`; may be empty at the top.
        where: the file, for errors.

    Raises:
        UserError: one sentence with file, key, what was expected and what was found.
    """
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *extras = get_args(kind)
        result = structure(value, inner, place, where)
        for bounds in extras:
            wanted = violations(result, bounds) if isinstance(bounds, Bounds) else None
            if wanted:
                raise _wrong(where, place, f"a number {wanted}", value)
        return result
    if dataclasses.is_dataclass(kind):
        return _dataclass(value, kind, place, where)
    if origin in (Union, UnionType):
        return _union(value, kind, place, where)
    if origin is Literal:
        return _literal(value, kind, place, where)
    if origin in (tuple, list):
        return _sequence(value, kind, place, where)
    if origin is dict:
        _expect_mapping(value, place, where)
        element = get_args(kind)[1]
        if len({str(key) for key in value}) < len(value):
            raise UserError(f"{where}: '{place}' has two labels that read the same; rename one")
        return {str(k): structure(v, element, f"{place}.{k}", where) for k, v in value.items()}
    return _scalar(value, kind, place, where)


def named(raw: dict[str, Any], table: dict[str, Any], place: str, what: str, where: str) -> Any:
    """The settings class that `name` stands for, filled with the other keys.

    Args:
        raw: `name` and the settings.
        table: from name to class.
        place: dotted key of the value.
        what: the table's names are of, e.g. `backbone`, for errors.
        where: the file, for errors.

    Raises:
        UserError: as `structure`, or the name is missing or unknown.
    """
    settings = dict(raw)
    name = settings.pop("name", None)
    if name is None:
        raise UserError(
            f"{where}: key '{place}.name' is missing; expected one of {', '.join(table)}"
        )
    if not isinstance(name, str) or name not in table:
        raise UserError(
            f"{where}: unknown {what} {str(name)!r} at '{place}'; {_known_names(str(name), table)}"
        )
    return structure(settings, table[name], place, where)


def _known_names(name: str, table: dict[str, Any]) -> str:
    """The nearest name, and all of them."""
    if ".py" in name or "/" in name:
        return "own code is named FILE.py:NAME, e.g. ./mine.py:Mine"
    hint = nearest(name, table)
    everything = f"known are {', '.join(table)}"
    return everything if hint.startswith("expected") else f"{hint} ({everything})"


def fields_of(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields by name, `Annotated` kept."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.init}


def _dataclass(value: Any, kind: Any, place: str, where: str) -> Any:
    _expect_mapping(value, place, where)
    known = fields_of(kind)
    for key in value:
        if key not in known:
            raise UserError(
                f"{where}: unknown key '{_join(place, key)}'; {nearest(str(key), known)}"
            )
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - value.keys())
    if missing:
        raise UserError(f"{where}: key '{_join(place, missing[0])}' is missing; it has no default")
    filled = {k: structure(v, known[k], _join(place, k), where) for k, v in value.items()}
    try:
        return kind(**filled)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _union(value: Any, kind: Any, place: str, where: str) -> Any:
    options = get_args(kind)
    if value is None and NoneType in options:
        return None
    options = [option for option in options if option is not NoneType]
    errors = []
    for option in options:
        try:
            return structure(value, option, place, where)
        except UserError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise _wrong(where, place, " or ".join(describe_type(option) for option in options), value)


def _literal(value: Any, kind: Any, place: str, where: str) -> Any:
    choices = get_args(kind)
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
    words = [choice for choice in choices if isinstance(choice, str)]
    hint = nearest(value, words) if isinstance(value, str) and words else ""
    hint = f"; {hint}" if hint.startswith("did you") else ""
    raise _wrong(where, place, describe_type(kind), value, hint)


def _sequence(value: Any, kind: Any, place: str, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _wrong(where, place, f"a list, e.g. [{value}]", value)
    inner = [a for a in get_args(kind) if a is not Ellipsis]
    if Ellipsis not in get_args(kind) and get_origin(kind) is tuple and len(value) != len(inner):
        raise _wrong(where, place, f"a list of {len(inner)} values", value)
    kinds = inner * len(value) if len(inner) == 1 else inner
    items = [
        structure(v, k, f"{place}[{i}]", where)
        for i, (v, k) in enumerate(zip(value, kinds, strict=True))
    ]
    return tuple(items) if get_origin(kind) is tuple else items


def _scalar(value: Any, kind: Any, place: str, where: str) -> Any:
    if kind is Any:
        return value
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(where, place, describe_type(kind), value)
    if not _is_finite(value):
        raise _wrong(where, place, f"{describe_type(kind)}, and finite", value)
    if kind is float:
        return float(value)
    if kind is int and float(value).is_integer():
        return int(value)
    raise _wrong(where, place, describe_type(kind), value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond any float
        return False


def describe_type(kind: Any) -> str:
    """A type in words: `a number at least 0`, `one of adam, sgd`, `a list of whole numbers`."""
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *extras = get_args(kind)
        bounds = " and ".join(str(e) for e in extras if isinstance(e, Bounds))
        return f"{describe_type(inner)} {bounds}".strip()
    if origin in (Union, UnionType):
        return " or ".join(describe_type(a) for a in get_args(kind))
    if origin is Literal:
        choices = [str(c) for c in get_args(kind)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if origin in (tuple, list):
        inner = describe_type(get_args(kind)[0])
        return "a list of " + inner.replace("a whole number", "whole numbers").replace(
            "a number", "numbers"
        )
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return words.get(kind, "null" if kind is NoneType else "a group of settings")


def _expect_mapping(value: Any, place: str, where: str) -> None:
    if not isinstance(value, Mapping):
        raise _wrong(where, place, "keys and values", value)


def _wrong(where: str, place: str, expected: str, found: Any, hint: str = "") -> UserError:
    shown = "nothing" if found is None else repr(found)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    at = f"key '{place}'" if place else "the file"
    return UserError(f"{where}: {at} must be {expected}, not {shown}{hint}")


def _join(place: str, key: Any) -> str:
    shown = str(key) if str(key).isprintable() else repr(key)
    return f"{place}.{shown}" if place else shown
