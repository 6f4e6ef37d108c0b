"""`tlresearch export`: a run's final weights as a file that plain PyTorch and timm load.

Our own backbones keep the names of `backbones.Classifier` (`backbone.…`, `head.weight`). A timm
backbone gets timm's names, so that `timm.create_model(NAME, num_classes=C, checkpoint_path=FILE)`
reads the file.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlresearch import families, own, schema
from tlresearch.errors import UserError
from tlresearch.results import confirmations
from tlresearch.results import weights as kept
from tlresearch.results.store import Record, Store, safe_name

if TYPE_CHECKING:
    from torch import Tensor

    from tlresearch.backbones.timm_models import Timm


def export(run: str, results: Path, target: Path | None, force: bool) -> tuple[Path, list[str]]:
    """Writes the weights of one run as a state dict.

    Args:
        run: path of a record or of kept weights, TABLE/METHOD[/SETTING]/seedN, or at least eight
            hexadecimal digits with which one record's key begins.
        results: the results folder.
        target: the file; None: METHOD[-SETTING]-seedN.safetensors in the current folder.
        force: whether an older file may be replaced.

    Returns:
        The file, and lines of Python that load it.

    Raises:
        UserError: no run or several are meant, its weights were not kept or are damaged, the file
            is there already or cannot be written; one sentence.
    """
    weights, about = kept.read(find(run, results))
    if target is None:
        parts = [about["method"], about["setting"], f"seed{about['seed']}"]
        target = Path("-".join(safe_name(part) for part in parts if part) + kept.SUFFIX)
    if target.is_dir():
        raise UserError(f"--to: {target} is a folder; expected the name of the file to write")
    if target.exists() and not force:
        raise UserError(
            f"{target} is there already; give --force to replace it, or another name with --to"
        )
    config = json.loads(about["config"])
    chosen = timm_backbone(config)
    if chosen is None:
        lines = _loading_ours(config, weights, target)
    else:
        weights, lines = _for_timm(chosen, weights, target)
    kept.write(target, weights, {"format": "pt"} | about)
    return target, lines


def find(run: str, results: Path) -> Path:
    """The file of the weights that `run` names; see `export`."""
    path = Path(run)
    if path.suffix == kept.SUFFIX:
        if not path.is_file():
            raise UserError(f"{path}: there is no such file of weights")
        return path
    if path.suffix == ".json":
        return _beside(path)
    records = [
        (store, record)
        for table in _tables(results)
        if _is_key(run) or run.startswith(f"{table}/")
        for store in [Store(results, table)]
        for record in store.read()
    ]
    matches = {
        record["key"]: (store, record)
        for store, record in records
        if (_is_key(run) and record["key"].startswith(run)) or run in _names(store, record)
    }
    if len(matches) > 1:
        listed = ", ".join(
            f"{_names(store, record)[0]} (key {key[:12]})"
            for key, (store, record) in sorted(matches.items())
        )
        raise UserError(f"'{run}' names {len(matches)} runs: {listed}; give the key of one of them")
    if not matches:
        raise UserError(_unknown(run, results))
    ((store, record),) = matches.values()
    return _existing(kept.path_of(store, record), record, _names(store, record)[0])


def _beside(path: Path) -> Path:
    """The weights beside a record file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        text = (record["status"], record.get("reason"))
    except OSError as error:
        raise UserError(f"{path}: the record cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path} is not a record; expected a file METHOD/seedN-KEY.json below results/records"
        ) from None
    return _existing(
        path.with_suffix(kept.SUFFIX), {"status": text[0], "reason": text[1]}, str(path)
    )


def _existing(path: Path, record: Record, name: str) -> Path:
    if path.is_file():
        return path
    if record["status"] == "failed":
        raise UserError(f"{name}: this run failed ({record['reason']}), so it has no final weights")
    raise UserError(
        f"{name}: its weights were not kept ({path} is not there); make them with `tlresearch run "
        "FILE --rerun all`, without --no-weights"
    )


def _is_key(run: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{8,64}", run) is not None


def _names(store: Store, record: Record) -> list[str]:
    """TABLE/METHOD[/SETTING]/seedN with the labels as they are, and as folders are named."""
    labels = [record["method"], *([record["setting"]] if record["setting"] else [])]
    seed = f"seed{record['seed']}"
    plain = "/".join([store.table, *labels, seed])
    return [plain, "/".join([store.table, *map(safe_name, labels), seed])]


def _tables(results: Path) -> list[str]:
    """The tables below a results folder, by their plans and packs."""
    root = results / "records"
    found = {str(path.relative_to(root)) for path in root.rglob("*.plan.json")}
    found |= {
        str(path.relative_to(root))
        for path in root.rglob("*.jsonl")
        if path.parent.parent.name != "runs"  # logs of stacks under way
        and not path.name.endswith(confirmations.SUFFIX)
    }
    # Runs with overrides have a plan of their own, and their records with the others.
    plain = {re.sub(r"(\+[0-9a-f]{8})?(\.plan\.json|\.jsonl)$", "", name) for name in found}
    return sorted(plain)


def _unknown(run: str, results: Path) -> str:
    """The sentence for a run that is not there."""
    if _is_key(run):
        return f"no record's key below {results / 'records'} begins with {run}"
    tables = _tables(results)
    if not tables:
        return f"there is no run '{run}': {results} holds no records; name their folder (--results)"
    names = [
        _names(store, record)[0]
        for store in (Store(results, table) for table in tables)
        for record in store.read()
    ]
    hint = schema.nearest(run, names)
    if hint.startswith("did you mean"):
        return f"there is no run '{run}' below {results}; {hint}"
    return (
        f"there is no run '{run}' below {results}; expected the path of a record, the start of a "
        f"key (8 digits or more) or TABLE/METHOD[/SETTING]/seedN with TABLE {' or '.join(tables)}"
    )


def timm_backbone(config: Mapping[str, Any]) -> "Timm | None":
    """The model of timm in a run's plain configuration; None if its backbone is another's."""
    from tlresearch.backbones import timm_models

    backbone = config.get("backbone")
    if not isinstance(backbone, Mapping) or not timm_models.is_timm(backbone.get("name")):
        return None
    settings = backbone["settings"]
    return timm_models.Timm(settings["model"], settings["arguments"])


def timm_names(state: "Mapping[str, Tensor]", classifier: str) -> "dict[str, Tensor]":
    """The state dict of a `Classifier` on a timm model under the names of timm.

    `backbone.net.X` becomes `X`, and `head.X` becomes `CLASSIFIER.X`; the tensors stay.

    Args:
        state: weights by our names.
        classifier: timm's name of the last layer, e.g. `fc` or `head.fc`.

    Raises:
        ValueError: a name is neither of the two, or two would become one.
    """
    named: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("backbone.net."):
            new = name.removeprefix("backbone.net.")
        elif name.startswith("head."):
            new = f"{classifier}.{name.removeprefix('head.')}"
        else:
            raise ValueError(f"{name} is neither backbone.net.… nor head.…")
        if new in named:
            raise ValueError(f"two weights would be called {new}")
        named[new] = value
    return named


def _for_timm(
    chosen: "Timm", weights: "Mapping[str, Tensor]", target: Path
) -> "tuple[dict[str, Tensor], list[str]]":
    """The weights under timm's names, and the lines that load them."""
    name = chosen.model
    try:
        import timm
    except ImportError:
        raise UserError(
            f"the names of timm:{name} are known to timm only; install it: "
            "pip install 'tlresearch[timm]'"
        ) from None
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise UserError(
            f"timm {timm.__version__} has no model {name}; install the version that the run had"
        )
    classifier, first = config.classifier, config.first_conv
    if not isinstance(classifier, str):
        raise UserError(
            f"timm:{name} has the classifiers {classifier}, and a run one head, so its weights "
            "have no place in timm's model; export them from the run's own file of weights"
        )
    named = timm_names(weights, classifier)
    options: dict[str, Any] = {"num_classes": len(named[f"{classifier}.weight"])}
    stem = named.get(f"{first}.weight") if isinstance(first, str) else None
    if stem is not None and stem.shape[1] != config.input_size[0]:
        options["in_chans"] = stem.shape[1]
    options |= chosen.arguments
    with own.blamed(f"timm {timm.__version__} cannot build {name} as the run did"):
        expected = timm.create_model(name, **options).state_dict()
    last = f"{classifier}.weight"
    if last in expected and expected[last].numel() == named[last].numel():
        named[last] = named[last].reshape(expected[last].shape)  # some are 1x1 convolutions
    shown = "".join(f", {key}={value!r}" for key, value in options.items())
    lines = [
        "import timm",
        f"model = timm.create_model({name!r}{shown}, checkpoint_path={str(target)!r})",
        "model.eval()",
    ]
    return named, lines if _same_shapes(named, expected) else _loading(target)


def _loading_ours(
    config: Mapping[str, Any], weights: "Mapping[str, Tensor]", target: Path
) -> list[str]:
    """The lines that build the run's classifier and load its weights, where that is all it has."""
    import torch

    from tlresearch.backbones import BACKBONES, build

    try:
        fields = dict(config["backbone"])
        kind = fields.pop("kind")
        (name,) = [key for key, made in BACKBONES.items() if made.__name__ == kind]
        given = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        benchmark = schema.structure(
            {k: v for k, v in config["benchmark"].items() if k != "kind"},
            families.protocol(config["family"]).Benchmark,
            "benchmark",
            "the record",
        )
        shape, _ = families.protocol(config["family"]).sizes(benchmark)
        classes = len(weights["head.weight"])
        with torch.device("meta"):
            expected = build(BACKBONES[name](**given), shape, classes, 0).state_dict()
    except (LookupError, TypeError, ValueError, UserError):
        return _loading(target)  # networks of the user's own, or data that this machine lacks
    if not _same_shapes(weights, expected):
        return _loading(target)
    settings = ", ".join(f"{key}={value!r}" for key, value in given.items())
    double = ".double()" if weights["head.weight"].dtype is torch.float64 else ""
    return [
        "from safetensors.torch import load_model",
        "from tlresearch.backbones import BACKBONES, build",
        f"model = build(BACKBONES[{name!r}]({settings}), {shape}, {classes}, seed=0){double}",
        f"load_model(model, {str(target)!r})",
    ]


def _loading(target: Path) -> list[str]:
    """The lines for a module that the reader has."""
    return [
        "from safetensors.torch import load_file",
        f"state = load_file({str(target)!r})",
        "model.load_state_dict(state)  # model: a module with these names, as the run's networks",
    ]


def _same_shapes(one: "Mapping[str, Tensor]", other: "Mapping[str, Tensor]") -> bool:
    return {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in other.items()}
