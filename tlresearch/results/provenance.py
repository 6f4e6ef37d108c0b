"""Which source files made a number, as one hash.

A record carries the hash of the modules that its run could reach by imports; a table marks rows
that older code made as stale. Comments, docstrings and layout do not count. What a package's
`__init__` imports does not count either: it is a table of names, of which a run uses one, and the
module behind that one is named to `source_hash`.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = "tlresearch"


def source_hash(modules: Iterable[str], files: Iterable[bytes] = ()) -> str:
    """SHA-256 over the code of `modules` and of every module of ours that they import; hexadecimal.

    Args:
        modules: dotted names, e.g. `tlresearch.continual.ewc`. A package stands for its `__init__`.
        files: the contents of Python files that are not ours; what they import of ours counts too.
    """
    trees = [ast.parse(file) for file in files]
    named = [*modules, *(name for tree in trees for name in _named(tree))]
    digest = hashlib.sha256()
    for name in sorted(reachable(named)):
        digest.update(name.encode() + b"\0" + _code(name) + b"\0")
    for code in sorted(_dump(tree).encode() for tree in trees):
        digest.update(b"\0" + code)
    return digest.hexdigest()


def reachable(modules: Iterable[str]) -> set[str]:
    """The modules of ours that are reached by imports from `modules`, these included."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or _file(name) is None:
            continue
        found.add(name)
        waiting += [] if _is_package(name) else _imports(name)
    return found


@cache
def _file(name: str) -> Path | None:
    root = Path(__file__).resolve().parents[1]
    path = root.joinpath(*name.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if name.split(".")[0] == PACKAGE and candidate.is_file():
            return candidate
    return None


@cache
def _tree(name: str) -> ast.Module:
    path = _file(name)
    assert path is not None
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _imports(name: str) -> list[str]:
    """Names that an import statement of the module may mean; not all of them are modules."""
    return _named(_tree(name))


def _named(tree: ast.Module) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [n for n in names if n.split(".")[0] == PACKAGE]


def _is_package(name: str) -> bool:
    path = _file(name)
    return path is not None and path.name == "__init__.py"


@cache
def _code(name: str) -> bytes:
    """The module's statements, as text that no docstring, comment or layout changes.

    Of a package only what it defines: neither its imports nor its tables.
    """
    tree = _tree(name)
    if _is_package(name):
        kinds = ast.FunctionDef | ast.ClassDef
        tree = ast.Module([node for node in tree.body if isinstance(node, kinds)], [])
    return _dump(tree).encode()


def _dump(node: object) -> str:
    """A syntax tree as text, without docstrings.

    Empty fields are left out, as Python versions differ in which they have; `ast.dump` would make
    every record of another version stale.
    """
    if isinstance(node, list):
        return "[" + ",".join(_dump(item) for item in node if not _is_text(item)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    inside = ",".join(f"{name}={_dump(value)}" for name, value in fields if name != "kind")
    return f"{type(node).__name__}({inside})"


def _is_text(statement: object) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
