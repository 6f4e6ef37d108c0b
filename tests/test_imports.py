"""Imports point downwards only, as docs/design.md says, and no family imports another."""

import ast
from pathlib import Path

import pytest

import tlresearch

ROOT = Path(tlresearch.__file__).parent
ROOMS = [
    {
        "errors",
        "settings",
        "schema",
        "configs",
        "own",
        "own_names",
        "files",
        "variations",
        "yamlfile",
        "families",
    },
    {"functional", "results", "selection"},
    {"backbones", "data"},
    {"training"},
    {"adaptation", "continual", "distillation", "fewshot"},
    {"checks"},
    {"experiment"},
    {"launch", "inspection", "exporting"},
    {"cli"},
    {"__main__"},
]
"""From the bottom."""
BESIDE = {0, 7}
"""Floors whose rooms import each other: what everything stands on, and the commands' insides."""
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem in FLOOR)


def rooms_imported(path: Path) -> set[str]:
    """Rooms of tlresearch that a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "tlresearch":
            found |= {f"tlresearch.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    rooms = {name.split(".")[1] for name in found if name.startswith("tlresearch.")}
    return rooms & FLOOR.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path):
    """From a room to lower ones, or within it."""
    relative = path.relative_to(ROOT)
    room = relative.parts[0].removesuffix(".py")
    for other in rooms_imported(path) - {room}:
        beside = FLOOR[other] == FLOOR[room] and FLOOR[room] in BESIDE
        assert FLOOR[other] < FLOOR[room] or beside, f"{relative} imports {other}"


def test_every_module_has_a_floor():
    rooms = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in ROOT.rglob("*.py")}
    assert rooms - {"__init__"} == FLOOR.keys()
