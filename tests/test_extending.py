"""The examples of docs/extending.md run as they stand."""

import json
import re
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

from tlresearch import cli, experiment, yamlfile
from tlresearch.launch import outputs
from tlresearch.training import device

TEXT = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```(?:python|yaml)\n# ([\w.]+)\n(.*?)```", TEXT, re.DOTALL))
EXPERIMENTS = [name for name in BLOCKS if name.endswith(".yaml")]


def test_every_kind_of_own_code_has_an_example():
    kinds = ("method", "fewshot", "adaptation", "distillation", "backbone")
    assert [*(f"own_{kind}.yaml" for kind in kinds), "timm_backbone.yaml"] == EXPERIMENTS


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


@pytest.mark.parametrize("family", ["adaptation", "distillation"])
def test_the_loop_of_a_family_s_page_runs(family: str):
    """One's own loop with our functions; nothing is printed, nothing fails."""
    (code,) = re.findall(r"```python\n(.*?)```", page(family), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, f"docs/{family}.md", "exec"), names)
    if family == "adaptation":
        assert names["loss"].isfinite()
    else:
        assert names["found"]["teacher"] > 0.8 and names["found"]["student"] > 0.6


def test_the_experiments_of_docs_distillation_are_accepted(tmp_path: Path):
    """The first is whole; the others stand in the place of its keys, and know its anchor."""
    first, *others = re.findall(r"```yaml\n(.*?)```", page("distillation"), re.DOTALL)
    anchor = "large: " + re.findall(r"&large .*", first)[0] + "\n"
    whole = yamlfile.read(written(tmp_path, first))
    assert len(others) == 3
    for text in ("", *others):
        known = anchor if "*large" in text and "&large" not in text else ""
        given = yamlfile.read(written(tmp_path, known + text)) if text else {}
        keys = {key: value for key, value in given.items() if key != "large"}
        found = experiment.load(written(tmp_path, json.dumps(whole | keys)))
        assert len(found.cells) == 3 * len(found.header.methods) and found.metrics


def page(family: str) -> str:
    return (Path(__file__).parents[1] / "docs" / f"{family}.md").read_text(encoding="utf-8")


def written(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def command(name: str, folder: Path) -> list[str]:
    """Runs an example for two steps, all files side by side."""
    for file, code in BLOCKS.items():
        (folder / file).write_text(code)
    results = ["--results", str(folder / "results")]
    return ["run", str(folder / name), "train.steps=2", *results]
