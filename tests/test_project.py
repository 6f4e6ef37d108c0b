"""The project's own promises: pins, extras, light imports, make and .ci/run."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jaxtyping
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tlresearch
from tlresearch.functional.random import normal

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SETUP_FILES = ("pyproject.toml", "constraints.txt", "requirements-learn2learn.txt")
HEAVY = {
    *("torchvision", "scipy", "sklearn", "mlxtend", "pandas", "matplotlib", "PIL", "statsmodels"),
    *("wandb", "tensorboard", "timm", "lightning_fabric", "lightning", "submitit", "ray"),
    *("higher", "learn2learn", "backpack", "ot", "skada", "safetensors", "rich"),
    "torch_pruning",
    *("pytest", "hypothesis", "beartype"),
}


def requirements(name: str) -> list[Requirement]:
    """The requirements of a pip file, without comments and per-line options."""
    lines = (ROOT / name).read_text().splitlines()
    texts = [re.split(r"\s+--|\s*#", line)[0].strip() for line in lines]
    return [Requirement(text) for text in texts if text]


def pins(name: str) -> dict[str, str]:
    """Package name to exact version; fails where a line is no exact pin or is given twice."""
    found: dict[str, str] = {}
    for requirement in requirements(name):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==" and "*" not in specifier.version, requirement
        assert requirement.url is None, requirement
        key = canonicalize_name(requirement.name)
        assert key not in found, f"{key} is pinned twice"
        found[key] = specifier.version
    return found


def declared() -> list[Requirement]:
    """The dependencies of pyproject.toml and of all its extras."""
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for group in [PROJECT["dependencies"], *extras] for text in group]


def command(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run with the caller's PATH, without its make variables and data root."""
    own = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON"}
    own |= {"TLRESEARCH_DATA", "TLRESEARCH_REQUIRE_DATA", "TLRESEARCH_REQUIRE_PEERS"}
    kept = {key: value for key, value in os.environ.items() if key not in own}
    return subprocess.run(words, cwd=cwd, env=kept | environment, capture_output=True, text=True)


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_every_dependency_has_a_pin_in_its_range(requirement: Requirement):
    version = pins("constraints.txt")[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version, prereleases=True)


def test_extras_are_the_documented_ones():
    assert set(PROJECT["optional-dependencies"]) == {
        *("track", "timm", "photographs", "prune", "distributed", "slurm", "ray", "compare"),
        "dev",
    }


def test_learn2learn_is_pinned_alike_and_translated_anew():
    learn2learn, common = pins("requirements-learn2learn.txt"), pins("constraints.txt")
    assert learn2learn["learn2learn"] == "0.2.0"
    shared = learn2learn.keys() & common.keys()
    assert {key: learn2learn[key] for key in shared} == {key: common[key] for key in shared}
    text = (ROOT / "requirements-learn2learn.txt").read_text()
    assert 'learn2learn==0.2.0 --config-settings "--build-option=build_ext"' in text


def test_version_is_the_packages():
    assert tlresearch.__version__ == PROJECT["version"]


IMPORT_ALL = """
import importlib, json, pkgutil, sys
import tlresearch
light = sorted(sys.modules)
for module in pkgutil.walk_packages(tlresearch.__path__, "tlresearch."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(json.dumps([light, sorted(sys.modules)]))
"""


def test_imports_bring_no_extra_and_nothing_heavy(tmp_path: Path):
    done = command(sys.executable, "-c", IMPORT_ALL, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    package, everything = map(set, json.loads(done.stdout.splitlines()[-1]))
    assert "tlresearch" in package and not package & {"torch", "numpy", "yaml"}
    assert "tlresearch.functional.random" in everything and "torch" in everything
    assert not everything & HEAVY


def draw_with_float_keys() -> torch.Tensor:
    return normal(torch.zeros(2).double(), (3,))


def test_shapes_and_types_are_checked_here():
    with pytest.raises(jaxtyping.TypeCheckError, match="key"):
        draw_with_float_keys()


def test_checks_can_be_switched_off(without_shape_checks: None):
    with pytest.raises((NotImplementedError, RuntimeError)):  # torch's own: no shift of floats
        draw_with_float_keys()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what make needs, whose environment looks finished but holds nothing."""
    root = tmp_path / "checkout"
    (root / ".venv").mkdir(parents=True)
    for name in ("Makefile", *SETUP_FILES):
        shutil.copy(ROOT / name, root)
        os.utime(root / name, (1e9, 1e9))
    stamp = root / ".venv" / ".ready"
    stamp.touch()
    return root


RUNS = {
    "quick": ".venv/bin/tlresearch run experiments/quick/forgetting.yaml --results runs",
    "test": ".venv/bin/python -m pytest ",
    "test-gpu": ".venv/bin/python -m pytest -q -m gpu -rs\n",
    "lint": ".venv/bin/ruff check .\n.venv/bin/ruff format --check .\n.venv/bin/pyright\n",
}


@pytest.mark.parametrize("target", RUNS)
def test_target_sets_up_only_when_missing_or_stale(target: str, checkout: Path):
    ready = command("make", "-n", target, cwd=checkout)
    assert ready.stdout.startswith(RUNS[target]) and "pip install" not in ready.stdout
    for name in SETUP_FILES:
        os.utime(checkout / name)
        os.utime(checkout / ".venv" / ".ready", (1.5e9, 1.5e9))
        assert "pip install" in command("make", "-n", target, cwd=checkout).stdout, name
        os.utime(checkout / name, (1e9, 1e9))
    (checkout / ".venv" / ".ready").unlink()
    fresh = command("make", "-n", target, cwd=checkout).stdout
    assert fresh.index("pip install") < fresh.index("touch") < fresh.index(RUNS[target])


def test_an_unusable_python_is_refused_in_one_sentence(checkout: Path):
    shutil.rmtree(checkout / ".venv")
    done = command("make", "test", "PYTHON=/bin/false", cwd=checkout)
    assert done.returncode != 0 and not (checkout / ".venv").exists()
    message = done.stderr.splitlines()[0]
    assert message.startswith("error: found no Python >= 3.11") and "/bin/false" in message


def fake_python(path: Path, script: str) -> None:
    """A stand-in for .venv/bin/python: notes what it is asked, then does as `script` says."""
    path.parent.mkdir(parents=True)
    path.write_text(f'#!/bin/sh\necho "$*" >>"$0.log"\n{script}\n')
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("environment", "script", "warning"),
    [
        ({}, "exit 0", None),
        ({}, 'case "$*" in *learn2learn*) exit 1;; esac', "it did not build"),
        ({"PATH": "only"}, "exit 0", "no C compiler was found"),
    ],
    ids=["builds", "build fails", "no compiler"],
)
def test_learn2learn_warns_and_never_fails(
    environment: dict[str, str], script: str, warning: str | None, checkout: Path
):
    (checkout / ".venv" / ".ready").unlink()
    fake_python(checkout / ".venv" / "bin" / "python", script)
    if environment:  # a PATH that holds what the recipe uses, but no compiler
        tools = checkout / "only"
        tools.mkdir()
        for tool in ("make", "sh", "rm", "touch"):
            (tools / tool).symlink_to(shutil.which(tool) or tool)
        environment = {"PATH": str(tools), "CC": ""}
    done = command("make", ".venv/.ready", cwd=checkout, **environment)
    assert done.returncode == 0, done.stderr
    assert (checkout / ".venv" / ".ready").exists()
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    assert len(warnings) == (warning is not None)
    assert warning is None or warning in warnings[0]
    log = (checkout / ".venv" / "bin" / "python.log").read_text()
    assert "-c constraints.txt -e .[track,timm,photographs,prune,distributed,compare,dev]" in log


def test_a_failed_setup_leaves_no_stamp_and_is_resumed(checkout: Path):
    (checkout / ".venv" / ".ready").unlink()
    packages = checkout / ".venv" / "lib" / "python3.11" / "site-packages"
    whole, half = packages / "whole-1.dist-info", packages / "half-1.dist-info"
    for info in (whole, half):
        info.mkdir(parents=True)
    (whole / "INSTALLER").touch()
    python = checkout / ".venv" / "bin" / "python"
    fake_python(python, 'case "$*" in *constraints*) exit 1;; esac')
    assert command("make", ".venv/.ready", cwd=checkout).returncode != 0
    assert not (checkout / ".venv" / ".ready").exists()
    assert whole.exists() and not half.exists()
    python.write_text("#!/bin/sh\nexit 0\n")
    assert command("make", ".venv/.ready", cwd=checkout).returncode == 0
    assert (checkout / ".venv" / ".ready").exists()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A checkout that holds .ci/run and a `make test` that says where the data is."""
    root = tmp_path / "clone"
    (root / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", root / ".ci")
    says = (
        "data=$$TLRESEARCH_DATA required=$$TLRESEARCH_REQUIRE_DATA peers=$$TLRESEARCH_REQUIRE_PEERS"
    )
    (root / "Makefile").write_text(f"test:\n\t@echo {says}\n\t@sh verdict\n")
    (root / "verdict").write_text("echo 2 passed in 0.10s\n")
    return root


def test_ci_finds_the_data_beside_the_clone_and_keeps_a_given_root(clone: Path):
    assert command(".ci/run", cwd=clone).stdout == "data= required= peers=1\n2 passed in 0.10s\n"
    data = clone.parent / "shared" / "data"
    data.mkdir(parents=True)
    assert (
        command(".ci/run", cwd=clone).stdout
        == f"data={data} required=1 peers=1\n2 passed in 0.10s\n"
    )
    given = command(".ci/run", cwd=clone, TLRESEARCH_DATA="/given").stdout
    assert given == "data=/given required= peers=1\n2 passed in 0.10s\n"


@pytest.mark.parametrize("closing", ["1 failed, 1 passed in 0.10s", "no tests ran in 0.01s"])
def test_ci_fails_with_the_tests_and_ends_with_their_closing_line(closing: str, clone: Path):
    (clone / "verdict").write_text(f"echo {closing}\nexit 1\n")
    done = command(".ci/run", cwd=clone)
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == closing
