"""Own code that an experiment file names: `./mine.py:MyMethod`.

A file is run when an experiment file (or `tlresearch describe`) names it, and never otherwise: it
is found by its path alone and imported under a module name that nothing else has. What it raises
becomes one sentence with file and line.
"""

import dataclasses
import hashlib
import importlib.machinery
import importlib.util
import inspect
import sys
import textwrap
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from tlresearch import schema
from tlresearch.errors import UserError

_PREFIX = "tlresearch_own_"


@dataclass(frozen=True)
class OwnFile:
    """An own file as it was run."""

    written: str
    """Its path as the experiment file gives it."""
    source: bytes


_FILES: dict[str, OwnFile] = {}
"""By module name: the own files that were run in this process."""


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs the bytes that were hashed, and neither reads nor writes a compiled copy of them."""

    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self._source = source

    def get_data(self, path: Any) -> bytes:
        return self._source

    def path_stats(self, path: Any) -> Any:
        raise OSError("no compiled copy: it would be trusted by size and whole seconds")


def is_own(name: Any) -> bool:
    """Whether a name has the form `FILE.py:NAME`."""
    return isinstance(name, str) and name.rpartition(":")[0].endswith(".py")


def named(name: str, folder: Path, at: str) -> Any:
    """The class or function that `FILE.py:NAME` stands for; runs the file if that was not done.

    Args:
        name: its part before the last `:` is a path, relative to `folder` or absolute.
        folder: that of the experiment file.
        at: file and key, the opening of an error.

    Raises:
        UserError: the file cannot be read or run, or does not define the name.
    """
    written, _, attribute = name.rpartition(":")
    module = _module(written, folder, at)
    value = vars(module).get(attribute)
    known = [
        key
        for key, other in vars(module).items()
        if inspect.isroutine(other) or inspect.isclass(other)
        if other.__module__ == module.__name__
    ]
    if attribute not in known:
        hint = schema.nearest(attribute, known) if known else "it defines none at all"
        imported = " (it only imports or assigns it)" if value is not None else ""
        raise UserError(
            f"{at}: {written} defines no class or function '{attribute}'{imported}; {hint}"
        )
    return value


def _module(written: str, folder: Path, at: str) -> ModuleType:
    path = (folder / written).resolve()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{at}: {written} cannot be read ({error.strerror}); expected a Python file, its path "
            f"relative to {folder}"
        ) from None
    digest = hashlib.sha256(b"\0".join([written.encode(), str(path).encode(), source]))
    name = _PREFIX + digest.hexdigest()[:16]
    if name in sys.modules:
        return sys.modules[name]
    loader = _Loader(name, str(path), source)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses and typing look up the names in annotations here.
    sys.modules[name], _FILES[name] = module, OwnFile(written, source)
    try:
        loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name], _FILES[name]
        if not isinstance(error, Exception | SystemExit):
            raise
        raise UserError(f"{at}: {written} cannot be run: {told(error)}") from None
    return module


def told(error: BaseException) -> str:
    """An exception in one line: kind, first line of its text, and where in an own file it arose."""
    syntax = isinstance(error, SyntaxError)
    text = (str(error.msg) if syntax else str(error)).strip()
    first = textwrap.shorten(text.split("\n")[0], 140, placeholder=" ...")
    what = f"{type(error).__name__}: {first}" if first else type(error).__name__
    if syntax and error.filename:
        return f"{what} ({Path(error.filename).name}, line {error.lineno})"
    places = [
        f" ({Path(frame.f_code.co_filename).name}, line {line})"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).startswith(_PREFIX)
    ]
    return what + (places[-1] if places else "")


@contextmanager
def blamed(at: str) -> Iterator[None]:
    """What own code raises inside, as a `UserError` of one sentence that begins with `at`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{at}: {told(error)}") from error


def kind_name(kind: type) -> str:
    """A class in a configuration: its name; of an own one also the file, as it was written."""
    file = _FILES.get(kind.__module__)
    return f"{file.written}:{kind.__qualname__}" if file else kind.__name__


def sources(config: Any) -> list[bytes]:
    """The own files behind a tree of settings, as they were run; each once."""
    modules = {kind.__module__ for kind in _kinds(config)}
    return [_FILES[module].source for module in sorted(modules & _FILES.keys())]


def _kinds(value: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        for f in dataclasses.fields(value):
            yield from _kinds(getattr(value, f.name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _kinds(item)


def method(raw: Mapping[str, Any], base: type, place: str, where: str) -> Any:
    """The own method that `raw["name"]` stands for, with its settings; None for another name.

    Args:
        raw: `name` and settings, as the experiment file gives them.
        base: the family's class of methods.
        place: dotted key of `raw`.
        where: the experiment file.

    Raises:
        UserError: the class cannot be had, lacks what a method needs, or refuses its settings.
    """
    name = raw.get("name")
    if not isinstance(name, str) or not is_own(name):
        return None
    at = f"{where}: '{place}'"
    kind = named(name, Path(where).parent, at)
    check_method(kind, base, f"{at}: {name}")
    settings = {key: value for key, value in raw.items() if key != "name"}
    with blamed(f"{at}: {name} refuses its settings"):
        return schema.structure(settings, kind, place, where)


def check_method(kind: Any, base: type, at: str) -> None:
    """Refuses what is no method of the family whose class of methods is `base`.

    Raises:
        UserError: says what is missing.
    """
    if not isinstance(kind, type) or not issubclass(kind, base):
        raise UserError(
            f"{at} is no {base.__name__}; derive it from {base.__module__}.{base.__name__}"
        )
    check_settings(kind, at)
    if "train" in schema.fields_of(kind):
        raise UserError(
            f"{at} has a setting named 'train', which in an experiment file is a method's own "
            "training; give it another name"
        )


def check_settings(kind: type, at: str) -> None:
    """Refuses a class that cannot be the settings of an experiment file.

    Raises:
        UserError: it is no frozen dataclass, or a field has a type that YAML cannot give.
    """
    parameters = vars(kind).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        raise UserError(f"{at} is no frozen dataclass; write @dataclass(frozen=True) above it")
    with blamed(f"{at} has a type that cannot be read"):
        hints = schema.fields_of(kind)
    for field, hint in hints.items():
        if not readable(hint):
            raise UserError(
                f"{at} has the setting '{field}' of a type that YAML cannot give ({hint}); use "
                "numbers, texts, true or false, lists, Literal or a frozen dataclass of them"
            )


def readable(hint: Any) -> bool:
    """Whether `schema.structure` can make a value of this type from YAML."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return readable(arguments[0])
    if origin is Literal:
        return all(isinstance(choice, str) for choice in arguments)
    if origin in (Union, UnionType, tuple, list):
        return all(a is Ellipsis or readable(a) for a in arguments)
    if origin is dict:
        return arguments[0] is str and readable(arguments[1])
    if dataclasses.is_dataclass(hint):
        return all(readable(inner) for inner in schema.fields_of(hint).values())
    return hint in (bool, int, float, str, NoneType, Any)
