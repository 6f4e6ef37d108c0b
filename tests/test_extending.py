"""The examples of docs/extending.md run as they stand."""

import re
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

from tlresearch import cli
from tlresearch.launch import outputs
from tlresearch.training import device

TEXT = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```(?:python|yaml)\n# ([\w.]+)\n(.*?)```", TEXT, re.DOTALL))
EXPERIMENTS = [name for name in BLOCKS if name.endswith(".yaml")]


def test_every_kind_of_own_code_has_an_example():
    own = ("own_method.yaml", "own_fewshot.yaml", "own_adaptation.yaml", "own_backbone.yaml")
    assert tuple(EXPERIMENTS) == (*own, "timm_backbone.yaml")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_example_runs(name: str, tmp_path: Path, capsys, monkeypatch):
    """The files side by side, a few steps; nothing is said on the error stream."""
    if "timm" in name:
        pytest.importorskip("timm")
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    monkeypatch.setattr(outputs, "_write_figures", lambda *args: [])
    if name == "own_fewshot.yaml":  # `Pool.gather` is also given a plain list of images
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    assert cli.main(command(name, tmp_path)) == 0
    out = capsys.readouterr()
    assert out.err == "" and "| naive | " in out.out
    assert ("| mine | " in out.out) == (name not in ("own_backbone.yaml", "timm_backbone.yaml"))


def test_the_loop_of_docs_adaptation_runs():
    """One's own loop with our functions; nothing is printed, nothing fails."""
    text = (Path(__file__).parents[1] / "docs" / "adaptation.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/adaptation.md", "exec"), names)
    assert names["step"] == names["steps"] - 1 and names["loss"].isfinite()


def command(name: str, folder: Path) -> list[str]:
    """Runs an example for two steps, all files side by side."""
    for file, code in BLOCKS.items():
        (folder / file).write_text(code)
    results = ["--results", str(folder / "results")]
    return ["run", str(folder / name), "train.steps=2", *results]
