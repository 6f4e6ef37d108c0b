"""Malformed experiment files and arguments: one sentence, exit code 2, nothing written."""

from pathlib import Path

import pytest

from tlresearch import cli
from tlresearch.training import device

FILE = """
family: continual
benchmark: {dataset: optdigits, tasks: 2}
backbone: {name: mlp, hidden: [8]}
methods: {naive: {name: naive}, ewc: {name: ewc}}
train: {steps: 3, batch_size: 8}
seeds: [0, 1]
"""
METHODS = "{naive: {name: naive}, ewc: {name: ewc}}"
ROWS = "rows: [{method: ewc, value: 98"

OVERRIDES = {
    "train.steps=2.7": "'train.steps' must be a whole number, not 2.7",
    "train.lr=true": "'train.lr' must be a number, not True",
    "train.steps='5'": "'train.steps' must be a whole number, not '5'",
    "train.steps=null": "not nothing",
    "train.lr=fast": "'train.lr' must be a number, not 'fast'",
    "train.lr=0": "'train.lr' must be a number above 0",
    "train.lr=.nan": "'train.lr'",
    "train.lr=.inf": "'train.lr'",
    "train.lr=1" + "0" * 400: "'train.lr'",
    "train.steps=1" + "0" * 400: "'train.steps'",
    "train.batch_size=0": "at least 1, not 0",
    "train.lambda=3": "unknown key 'train.lambda'",
    "train.learning_rate=1": "it is called 'lr' here",
    "train.epochs=1": "it is called 'steps' here",
    "train.optimizer=adma": "did you mean 'adam'",
    "train.precision=fp16": "one of fp32, fp64, bf16-mixed",
    "train.stack=0": "'train.stack' must be auto or a whole number",
    "train.betas=[0.9]": "a list of 2 values",
    "train.milestones=[0.5]": "train.milestones: ",
    "train.momentum=0.9": "train.momentum: ",
    "train.checkpoint=selected": "benchmark.validation",
    "methods.ewc.strength=-1": "'methods.ewc.strength' must be a number at least 0, not -1",
    "methods.ewc.strength=.inf": "'methods.ewc.strength'",
    "methods.ewc.ewc_lambda=1": "it is called 'strength' here",
    "methods.ewc.buffer=1": "unknown key 'methods.ewc.buffer'",
    "methods.naive.lambda=1": "it takes no settings",
    "methods.ewc.fisher.samples=0": "'methods.ewc.fisher.samples'",
    "methods.ewc.name=ewk": "unknown method 'ewk' at 'methods.ewc'; did you mean 'ewc'",
    "methods.ewc.name=[ewc]": "methods.ewc",
    "methods.ewc.name=3": "unknown method '3'",
    'methods.ewc.name="a\\nb"': "unknown method",
    "methods.ecw.name=ewc": "no method is labelled 'ecw'; did you mean 'ewc'",
    "methods={}": "key 'methods' is empty",
    "methods=[naive]": "key 'methods' must be keys and values",
    "backbone.name=mpl": "did you mean 'mlp'",
    "backbone.name={mlp: 1}": "backbone",
    "backbone.hidden=8": "'backbone.hidden' must be a list",
    "backbone.hidden=[0]": "at least 1, not 0",
    "backbone.dropout=1.0": "below 1, not 1.0",
    "backbone={name: lenet}": "at least 16 x 16 pixels",
    "benchmark.dataset=optdigit": "optdigits",
    "benchmark.experience=5": "it is called 'tasks' here",
    "benchmark.tasks=11": "11 tasks, but optdigits has 10 classes",
    "benchmark.tasks=3": "possible are 1, 2, 5, 10",
    "benchmark.scenario=classes": "did you mean 'class'",
    "benchmark.evaluate=validation": "benchmark.validation",
    "benchmark.validation=0.9999": "benchmark.validation",
    "family=continaul": "did you mean 'continual'",
    "seeds=3": "key 'seeds' must be a list",
    "seeds=[0, 0]": "names a seed twice",
    "seeds=[-1]": "from 0",
    "seeds=[]": "is empty",
    "metrics=[accuracy]": "unknown metric 'accuracy'",
    "lr=1": "unknown key 'lr'",
    "train.steps": "expected dotted.key=value",
    "train.steps=[": "not valid YAML",
    "train.steps.x=1": "'train.steps' is 3, not a group",
}

TEXTS = {
    "empty": ("", "expected keys and values"),
    "a list": ("- 1\n- 2\n", "expected keys and values"),
    "not utf-8": (FILE.encode() + b"title: \xff\n", "not a UTF-8 text file"),
    "a tab": (FILE + "\ttitle: x\n", "not valid YAML"),
    "a key twice": (FILE + "seeds: [2]\n", "key 'seeds' is given twice"),
    "a tag": (FILE + "title: !!python/object/apply:os.system ['false']\n", "not valid YAML"),
    "two documents": (FILE + "---\n" + FILE, "not valid YAML"),
    "deep": (FILE + "title: " + "[" * 9000, "cannot be read as YAML"),
    "itself": (FILE.replace("{steps: 3", "&t {steps: *t"), "'train.steps' must be a whole number"),
    "unknown key": (FILE + "epoch: 3\n", "unknown key 'epoch'"),
    "a key of two lines": (FILE + '"a\\nb": 3\n', "unknown key"),
    "seeds missing": (FILE.replace("seeds: [0, 1]", ""), "key 'seeds' is missing"),
    "no dataset": (FILE.replace("dataset: optdigits, ", ""), "key 'benchmark.dataset' is missing"),
    "methods null": (FILE.replace(METHODS, ""), "key 'methods' must be keys and values"),
    "method null": (FILE.replace("{name: ewc}", "null"), "'methods.ewc' must be keys and values"),
    "empty label": (FILE.replace("naive: {", "'': {"), "methods"),
    "setting of nothing": (FILE + "settings: {a: {trian.steps: 3}}\n", "did you mean 'train'"),
    "setting of seeds": (FILE + "settings: {a: {seeds: [7]}}\n", "seeds"),
    "setting of methods": (FILE + "settings: {a: {methods: {ewc: {name: ewc}}}}\n", "methods"),
    "sweep of nothing": (FILE + "sweep: {train.steps: []}\n", "is empty"),
    "sweep of a scalar": (FILE + "sweep: {train.steps: 3}\n", "must be a list"),
    "sweep of a stranger": (FILE + "sweep: {methods.ewk.strength: [1]}\n", "ewk"),
    "published method": (
        FILE + f"published: [{{source: s, metric: acc, {ROWS.replace('ewc', 'ewk')}}}]}}]\n",
        "'published' names method 'ewk'; did you mean 'ewc'",
    ),
    "published unit": (
        FILE + f"published: [{{source: s, metric: acc, unit: fraction, {ROWS}}}]}}]\n",
        "fraction",
    ),
    "published tolerance": (
        FILE + f"published: [{{source: s, metric: acc, tolerance: 0, {ROWS}}}]}}]\n",
        "`tolerance` is 0",
    ),
}  # fmt: skip

CASES = [(FILE, [override], words) for override, words in OVERRIDES.items()]
CASES += [(text, [], words) for text, words in TEXTS.values()]
CASES += [
    (FILE.replace(METHODS, "3"), ["methods.ewc.strength=3"], "'methods'"),
    (FILE, ["backbone={name: lenet}", "train.stack=1"], "at least 16 x 16 pixels"),
    (FILE, ["benchmark.validation=1e-9", "benchmark.evaluate=validation"], "benchmark.validation"),
    (FILE, ["--device", "tpu"], "expected auto, cpu or cuda"),
    (FILE, ["--data", "/no/such/folder"], "--data: /no/such/folder is no folder"),
]
NAMES = [override[:40] for override in OVERRIDES] + list(TEXTS)
NAMES += ["methods 3", "lenet alone", "empty validation", "device", "data root"]


@pytest.mark.parametrize(("text", "words", "expected"), CASES, ids=NAMES)
def test_bad_input_is_one_sentence(
    text: str | bytes, words: list[str], expected: str, tmp_path: Path, capsys, monkeypatch
):
    """Before any work: the results folder, which the command would make, is not there."""
    monkeypatch.setattr(device, "prepare_process", lambda threads=None: None)
    file, results = tmp_path / "exp.yaml", tmp_path / "results"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    code = cli.main(["run", str(file), *words, "--results", str(results)])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "") and not results.exists()
    assert err.startswith("tlresearch: ") and err.endswith("\n") and err.count("\n") == 1
    assert expected in err and "Traceback" not in err
    assert len(err) < 1000
