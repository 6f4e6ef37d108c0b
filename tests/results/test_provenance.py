"""The hash of the code that made a number: what changes it and what does not."""

import ast
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

import tlresearch
from tlresearch import families
from tlresearch.backbones import BACKBONES
from tlresearch.backbones.conv4 import Conv4
from tlresearch.backbones.lenet import LeNet
from tlresearch.backbones.mlp import MLP
from tlresearch.continual import METHODS
from tlresearch.experiment import Config
from tlresearch.launch.local import sources_of
from tlresearch.results import provenance
from tlresearch.training.settings import Train

CODE = {
    "method": "from tlresearch.base import Base\n\nclass Method(Base):\n    strength = 400.0\n",
    "base": "class Base:\n    def loss(self):\n        from tlresearch.maths import square\n"
    "        return square(2)\n",
    "maths": "import torch\nimport tlresearch.deep.leaf\n\ndef square(x):\n    return x * x\n",
    "deep/__init__": "",
    "deep/leaf": "HALF = 0.5\n",
    "other": "from tlresearch.base import Base\n",
    "families": 'NAMES = {"other": "tlresearch.other"}\n',
}

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request) -> Write:
    """Writes a module of a small package and returns the hash of `tlresearch.method`."""
    fake = tmp_path / "tlresearch" / "results" / "provenance.py"
    fake.parent.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(fake))

    def forget() -> None:
        for cached in (provenance._file, provenance._tree, provenance._imports, provenance._code):
            cached.cache_clear()

    def write_(module: str, code: str) -> str:
        path = tmp_path / "tlresearch" / f"{module}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(code, encoding="utf-8")
        forget()
        return provenance.source_hash(["tlresearch.method"])

    for module, code in CODE.items():
        write_(module, code)
    request.addfinalizer(forget)
    return write_


def test_imports_are_followed_wherever_they_stand(write: Write):
    """At the top, in a function, of a name, of a module; not names in strings."""
    write("method", CODE["method"])
    names = {"method", "base", "maths", "deep.leaf"}
    found = provenance.reachable(["tlresearch.method"])
    assert found >= {f"tlresearch.{name}" for name in names}
    assert not found & {"tlresearch.other", "tlresearch.families", "torch"}
    assert "tlresearch.other" not in provenance.reachable(["tlresearch.families"])


@pytest.mark.parametrize(
    "code",
    [
        "# a comment\n" + CODE["method"],
        '"""What it is."""\n' + CODE["method"],
        CODE["method"].replace("    strength", '    """Docstring."""\n\n    strength'),
        CODE["method"] + '    """λ, after the field."""\n',
        CODE["method"].replace("400.0", "(\n        400.0  # λ\n    )"),
        CODE["method"].replace("400.0", "4e2"),
        CODE["method"].replace("\n\n", "\n\n\n\n"),
    ],
)
def test_words_and_layout_do_not_count(write: Write, code: str):
    before = write("method", CODE["method"])
    assert write("method", code) == before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("method", "400.0", "401.0"),
        ("method", "strength", "lam"),
        ("method", "(Base)", ""),
        ("base", "square(2)", "square(3)"),
        ("base", "def loss(self)", "def loss(self, x=1)"),
        ("maths", "x * x", "x + x"),
        ("maths", "return x", "return 'text' and x"),
        ("deep/leaf", "0.5", "0.25"),
    ],
)
def test_a_change_of_code_counts_wherever_it_is_reached(write: Write, module, old: str, new: str):
    before = write("method", CODE["method"])
    assert old in CODE[module] and write(module, CODE[module].replace(old, new)) != before


def test_what_is_not_reached_does_not_count(write: Write):
    before = write("method", CODE["method"])
    assert write("other", "CHANGED = 1\n") == before
    assert write("families", "CHANGED = 1\n") == before
    assert write("unheard_of", "") == before


def test_a_new_import_counts_even_of_an_empty_module(write: Write):
    before = write("method", CODE["method"])
    write("empty", "")
    assert write("method", "import tlresearch.empty\n" + CODE["method"]) != before


def test_moving_code_between_modules_counts(write: Write):
    """Names are part of the hash, so equal code under another name is not the same."""
    before = write("deep/leaf", "")
    write("maths", CODE["maths"].replace("deep.leaf", "deep.twig"))
    assert write("deep/twig", "") != before


def test_modules_that_import_each_other_end(write: Write):
    first = write("maths", "import tlresearch.method\n" + CODE["maths"])
    assert first != write("maths", CODE["maths"])


def test_a_function_of_docstring_only_is_a_function(write: Write):
    one = write("method", 'def f():\n    """One."""\n')
    assert write("method", 'def f():\n    """Two."""\n') == one
    assert write("method", 'def g():\n    """One."""\n') != one


def test_the_order_in_which_modules_are_named_does_not_count(write: Write):
    write("method", CODE["method"])
    names = ["tlresearch.method", "tlresearch.other"]
    assert provenance.source_hash(names) == provenance.source_hash(names[::-1])
    assert provenance.source_hash(names) != provenance.source_hash(names[:1])


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_record_covers_what_computes_it(name: str):
    """Its own module, the loop, the data, the mathematics; not tables, launchers or the command."""
    modules = [METHODS[name].__module__, families.FAMILIES["continual"]]
    found = provenance.reachable(modules)
    used = {METHODS[name].__module__, "tlresearch.training.loop", "tlresearch.data.tasks"}
    used |= {
        "tlresearch.functional.random",
        "tlresearch.training.stack",
        "tlresearch.training.stage",
    }
    assert found >= used
    assert all(provenance._file(module) for module in found)
    unused = ("tlresearch.results", "tlresearch.launch", "tlresearch.cli", "tlresearch.inspection")
    assert not [module for module in found if module.startswith(unused)]


def test_a_record_covers_the_backbone_that_it_names_and_no_other():
    """No import leads to a backbone, as a package's table of names is not followed: the settings
    name it."""
    protocol = families.FAMILIES["continual"]
    assert "tlresearch.backbones" in provenance.reachable([protocol])
    assert "tlresearch.backbones.mlp" not in provenance.reachable([protocol])
    hashes = {
        sources_of(Config("continual", None, backbone, METHODS["ewc"](), Train()))
        for backbone in (MLP(), MLP(hidden=(3,)), LeNet(), Conv4())
    }
    expected = {
        provenance.source_hash([protocol, METHODS["ewc"].__module__, f"tlresearch.backbones.{one}"])
        for one in ("mlp", "lenet", "conv4")
    }
    assert hashes == expected and len(hashes) == 3


def test_no_code_is_reached_through_a_package_alone():
    """What a package's `__init__` has from its modules is not followed, so computing code imports
    it from the module itself; or, of `backbones`, what each backbone's own module imports too."""
    root, lent = Path(tlresearch.__file__).parent, set()
    for room in ("functional", "backbones", "data", "training", "continual", "fewshot"):
        for path in (root / room).rglob("[!_]*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    own = lent_by(node.module)
                    lent |= {own[alias.name] for alias in node.names if alias.name in own}
    assert lent <= {"tlresearch.backbones.classifier"}
    for kind in BACKBONES.values():
        assert provenance.reachable([kind.__module__]) >= lent


def lent_by(name: str) -> dict[str, str]:
    """What a package of ours has from its modules, and from which."""
    path = provenance._file(name)
    if path is None or path.name != "__init__.py":
        return {}
    body = ast.parse(path.read_text(encoding="utf-8")).body
    imports = [node for node in body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_the_real_tree_is_what_is_hashed():
    root = Path(tlresearch.__file__).parent
    assert provenance._file("tlresearch.continual.ewc") == root / "continual" / "ewc.py"
    assert provenance._file("tlresearch.continual") == root / "continual" / "__init__.py"
    assert provenance._file("tlresearch") == root / "__init__.py"
    assert provenance._file("tlresearch.no_such_module") is None
    assert provenance._file("torch") is None


def test_other_families_do_not_make_a_row_stale(monkeypatch: pytest.MonkeyPatch):
    """A family is reached by its own name only."""
    config = Config("continual", None, None, METHODS["ewc"](), Train())
    before = sources_of(config)
    monkeypatch.setitem(families.FAMILIES, "fewshot", "tlresearch.results.figures")
    assert sources_of(config) == before
    assert sources_of(dataclasses.replace(config, family="fewshot")) != before
