"""What `tlresearch list`, `describe` and `data` print."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlresearch import families, own, schema, yamlfile
from tlresearch.backbones import BACKBONES, foreign, timm_models
from tlresearch.data import catalogue, domain_tables
from tlresearch.errors import UserError
from tlresearch.experiment import Header
from tlresearch.selection import Select
from tlresearch.training.settings import Train


def listing(what: str | None) -> str:
    """The names of one kind, with a line about each; of all kinds for None."""
    parts = {
        "methods": _methods,
        "datasets": lambda: [
            (name, entry.title)
            for table in (catalogue.DATASETS, domain_tables.DOMAINS)
            for name, entry in table.items()
        ],
        "backbones": lambda: [(name, _summary(kind)) for name, kind in BACKBONES.items()],
        "experiments": lambda: experiments(Path("experiments")),
    }
    chosen = [what] if what else list(parts)
    return "\n\n".join(f"{name}:\n{columns(parts[name]())}" for name in chosen)


def _methods() -> list[tuple[str, ...]]:
    return [
        (name, family, _summary(kind))
        for family in families.FAMILIES
        for name, kind in families.protocol(family).METHODS.items()
    ]


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0]


def experiments(folder: Path) -> list[tuple[str, str]]:
    """The experiment files under a folder and their titles; one that cannot be read says so."""
    rows = []
    for path in sorted(folder.rglob("*.yaml")):
        try:
            raw = yamlfile.read(path)
            title = str(raw.get("title", "")) if isinstance(raw, dict) else "no experiment file"
        except UserError:
            title = "cannot be read"
        rows.append((str(path), title))
    return rows or [(f"none: no *.yaml under ./{folder}", "")]


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as aligned columns, indented by two."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {line}".rstrip() for line in lines)


def describe(name: str) -> str:
    """Settings of a method, backbone, family's benchmark or of training: types, defaults, meaning.

    Of a name that several families have, those of each. A name of own code (`./mine.py:Mine`)
    runs its file.

    Raises:
        UserError: nothing has that name; the nearest are in its text.
    """
    known: dict[str, list[tuple[str, type]]] = {
        "experiment": [("the keys of an experiment file", Header)],
        "select": [("section of an experiment file", Select)],
        "train": [("settings of training", Train)],
    }
    known |= {key: [("backbone", kind)] for key, kind in BACKBONES.items()}
    for family in families.FAMILIES:
        protocol = families.protocol(family)
        known[family] = [("family; its benchmark", protocol.Benchmark)]
        for key, kind in protocol.METHODS.items():
            known.setdefault(key, []).append((f"method of {family}", kind))
    if name in catalogue.DATASETS or name in domain_tables.DOMAINS:
        raise UserError(f"'{name}' is a data set; `tlresearch data` says what is known of it")
    if timm_models.is_timm(name):
        return timm_models.summary(name)
    if own.is_own(name):
        known[name] = [_own(name)]
    if name not in known:
        raise UserError(
            f"there is nothing named '{name}' to describe; {schema.nearest(name, known)}"
        )
    return "\n\n\n".join(_described(name, what, kind) for what, kind in known[name])


def _described(name: str, what: str, kind: type) -> str:
    module = inspect.getdoc(inspect.getmodule(kind)) or inspect.getdoc(kind) or ""
    return "\n".join([f"{name} ({what})", "", module, "", "Settings:", "", settings_text(kind)])


def _own(name: str) -> tuple[str, type]:
    """What `FILE.py:NAME` is, its path relative to the current folder, and its settings."""
    found = own.named(name, Path(), "describe")
    for family in families.FAMILIES:
        base = families.protocol(family).Method
        if isinstance(found, type) and issubclass(found, base):
            own.check_method(found, base, f"describe: {name}")
            return f"own method of {family}", found
    return "own backbone", foreign.settings_class(name, Path(), "describe")


def settings_text(kind: type, prefix: str = "") -> str:
    """One paragraph a field: name, type, default, and its docstring; groups of settings nested."""
    docs = field_docs(kind)
    parts = []
    for f in dataclasses.fields(kind):
        hint = schema.fields_of(kind)[f.name]
        head = f"  {prefix}{f.name}: {schema.describe_type(hint)}{_default(f)}"
        body = textwrap.indent(textwrap.fill(docs.get(f.name, ""), 90), "      ")
        parts.append(f"{head}\n{body}".rstrip())
        if dataclasses.is_dataclass(hint):
            parts.append(settings_text(hint, f"{prefix}{f.name}."))  # type: ignore[arg-type]
    return "\n".join(parts) or "  none"


def _default(f: "dataclasses.Field[Any]") -> str:
    if f.default is dataclasses.MISSING:
        return "" if f.default_factory is not dataclasses.MISSING else " (required)"
    value = f.default
    shown = list(value) if isinstance(value, tuple) else value
    return f" = {'null' if shown is None else shown}"


def field_docs(kind: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, those of its bases included.

    Read from the source, as Python itself drops them.
    """
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except (OSError, TypeError):  # made from the signature of a function
            continue
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                docs[field.target.id] = " ".join(str(text.value.value).split())
    return docs


def datasets(root: Path | None) -> str:
    """Every data set: where it was found, sizes, shape, classes, licence."""
    rows = [("name", "found", "train", "test", "shape", "classes", "licence")]
    for entry in catalogue.listing(root) + domain_tables.listing(root):
        shape = "x".join(map(str, entry["shape"]))
        known = catalogue.DATASETS.get(entry["name"])
        lacking = "not here (downloaded when asked for)"
        if known is None or not (known.torchvision or known.embedded):
            lacking = "not here"
        found = entry["found"] or lacking
        sizes = (str(entry["train"]), str(entry["test"]))
        rows.append((entry["name"], found, *sizes, shape, str(entry["classes"]), entry["licence"]))
    return columns(rows)


def verified(root: Path | None) -> tuple[str, bool]:
    """The checksums of every file that was found, and whether none differs."""
    checks = catalogue.verify(root) + domain_tables.verify(root)
    rows = [("data set", "file", "status", "detail")]
    rows += [(c["dataset"], c["file"], c["status"], c["detail"]) for c in checks]
    return columns(rows), all(c["status"] != "differs" for c in checks)
