"""The final weights of a run: one safetensors file beside its record, written whole or not at all.

    ROOT/records/TABLE/METHOD[/SETTING]/seed0-1a2b3c4d.safetensors

Its metadata say which run it is: the fields `ABOUT`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlresearch import __version__
from tlresearch.errors import UserError
from tlresearch.files import write_atomic
from tlresearch.results.store import Record, Store, plain

if TYPE_CHECKING:
    from torch import Tensor

ABOUT = ("key", "table", "method", "setting", "seed", "config", "tlresearch")
"""Metadata, all text: `config` is the resolved configuration as JSON, `tlresearch` the version."""

SUFFIX = ".safetensors"


def path_of(store: Store, record: Record) -> Path:
    """Where the weights of a record's run lie, if they were kept."""
    return store.path(record).with_suffix(SUFFIX)


def keep(
    store: Store,
    method: str,
    setting: str,
    seed: int,
    key: str,
    config: Mapping[str, Any],
    weights: "Mapping[str, Tensor]",
) -> None:
    """Writes a run's weights; without any, older ones in their place go, as they are not its own.

    Args:
        store: of the run's table.
        method: its label in the table.
        setting: its setting's label.
        seed: its seed.
        key: the key of its record, which need not be written yet.
        config: its resolved configuration, in plain values.
        weights: contiguous tensors by name that share no memory; may be empty.

    Raises:
        UserError: the folder cannot be written.
    """
    path = path_of(store, {"method": method, "setting": setting, "seed": seed, "key": key})
    if not weights:
        path.unlink(missing_ok=True)
        return
    about = {
        "key": key,
        "table": store.table,
        "method": method,
        "setting": setting,
        "seed": str(seed),
        "config": json.dumps(plain(config), sort_keys=True),
        "tlresearch": __version__,
    }
    write(path, weights, about)


def write(path: Path, weights: "Mapping[str, Tensor]", about: Mapping[str, str]) -> None:
    """Writes tensors with their metadata, whole or not at all; makes missing folders.

    Raises:
        UserError: the place cannot be written.
    """
    from safetensors.torch import save

    content = save(dict(weights), metadata=dict(about))
    write_atomic(path, lambda file: file.write(content))


def read(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """The tensors of a file that `write` wrote, on the CPU, and its metadata.

    Raises:
        UserError: it cannot be read, is damaged, or is not of a run of ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: these weights cannot be read ({error}); delete the file and run its "
            "experiment again"
        ) from None
    absent = [field for field in ABOUT if field not in about]
    if absent:
        raise UserError(
            f"{path}: its metadata lack {', '.join(absent)}; expected the weights of a run of "
            "tlresearch, from results/records"
        )
    return tensors, about
