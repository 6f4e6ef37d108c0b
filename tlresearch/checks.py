"""What an experiment file cannot mean, before anything in it is resolved; each in one sentence."""

from collections.abc import Iterable
from typing import Any

from tlresearch import families, schema
from tlresearch.errors import UserError
from tlresearch.results.rows import check_unit
from tlresearch.selection import check_select

VARIABLE = ("benchmark", "backbone", "train", "methods")
"""The groups of an experiment file that settings and sweeps may vary."""


def check_header(header: Any, where: str) -> None:
    """Refuses keys that cannot be meant; the settings of methods and groups are not looked at.

    Args:
        header: the experiment file, an `experiment.Header`.
        where: the file.

    Raises:
        UserError: one sentence.
    """
    if header.family not in families.FAMILIES:
        hint = schema.nearest(header.family, families.FAMILIES)
        raise UserError(f"{where}: unknown family '{header.family}'; {hint}")
    if not header.methods:
        raise UserError(f"{where}: key 'methods' is empty; name at least one method")
    if "" in header.methods:
        raise UserError(
            f"{where}: key 'methods' has an empty label; the table needs a name for each row"
        )
    _check_variations(header, where)
    if not header.seeds:
        raise UserError(f"{where}: key 'seeds' is empty; give at least one seed, e.g. [0, 1, 2]")
    if len(set(header.seeds)) != len(header.seeds):
        raise UserError(f"{where}: key 'seeds' names a seed twice; every run needs its own")
    if min(header.seeds) < 0 or max(header.seeds) >= 2**32:
        # torch's CPU generator reads 32 bits of a seed: others would share their initialisation.
        raise UserError(f"{where}: key 'seeds' must be whole numbers from 0 to 2^32 - 1")
    if len(set(header.metrics)) != len(header.metrics):
        raise UserError(f"{where}: key 'metrics' names a metric twice; each is one column")
    known = families.protocol(header.family).METRICS
    for metric in header.metrics:
        if metric not in known:
            raise UserError(
                f"{where}: unknown metric '{metric}' in 'metrics'; {schema.nearest(metric, known)}"
            )
    columns = header.metrics or families.protocol(header.family).DEFAULT_METRICS
    if header.sweep_axis and header.sweep_axis not in columns[1:]:
        raise UserError(
            f"{where}: key 'sweep_axis' must be a metric of the table after its first, which the "
            f"figure has against it, not '{header.sweep_axis}'; "
            f"{schema.nearest(header.sweep_axis, columns[1:])}"
        )
    if header.select:
        known = tuple(dict.fromkeys([*known, *families.selectors(header.family)]))
        check_select(header, known, where)
        usual = header.metrics or families.protocol(header.family).DEFAULT_METRICS
        try:
            families.check_selection(header.family, header.select.metric or usual[0])
        except UserError as error:
            raise UserError(f"{where}: {error}") from None


def _check_variations(header: Any, where: str) -> None:
    """A variation that no run would notice is a mistake."""
    if header.mean and (header.sweep or len(header.settings) < 2 or header.mean in header.settings):
        raise UserError(
            f"{where}: 'mean' names the mean over several 'settings' of a table without 'sweep', "
            "by a name that none of them has; remove it or add settings"
        )
    varied = [("sweep", key) for key in header.sweep]
    varied += [
        (f"settings.{name}", key) for name in header.settings for key in header.settings[name]
    ]
    varied += [("select.grid", key) for key in (header.select.grid if header.select else ())]
    for place, key in varied:
        parts = key.split(".")
        if parts[0] in VARIABLE and len(parts) == 1:
            raise UserError(
                f"{where}: '{place}' replaces the whole of '{key}'; name the key that varies, "
                f"e.g. {key}.{_example(key)}"
            )
        if parts[0] in schema.fields_of(type(header)) and parts[0] not in VARIABLE:
            raise UserError(
                f"{where}: '{place}' varies '{key}', which is not part of a run; "
                f"expected a key under {', '.join(VARIABLE)}"
            )
        if parts[0] == "methods" and len(parts) < (2 if place.startswith("settings.") else 3):
            raise UserError(
                f"{where}: '{place}' varies '{key}'; expected a setting of one method, "
                "e.g. methods.ewc.strength"
            )
        if parts[0] == "methods" and parts[1] not in header.methods:
            hint = schema.nearest(parts[1], header.methods)
            raise UserError(f"{where}: '{place}': no method is labelled '{parts[1]}'; {hint}")
    for place, key in varied:
        if not place.startswith("settings."):
            _check_noticed(header, place, key, [other for _, other in varied], where)


def _check_noticed(header: Any, place: str, key: str, varied: list[str], where: str) -> None:
    """Refuses to vary `train.KEY` over a method's own: its rows would be named after other values.

    Values in `settings` have no such name: there the method's own stays.
    """
    group, _, name = key.partition(".")
    for label, settings in header.methods.items() if group == "train" else ():
        own_key, changes = f"methods.{label}.{key}", settings.get("train")
        if own_key in varied or (isinstance(changes, dict) and name in changes):
            raise UserError(
                f"{where}: '{place}' varies '{key}', which '{label}' does not follow: it has its "
                f"own '{own_key}'; leave out one of them, or vary it for each method"
            )


def _example(group: str) -> str:
    return {"train": "lr", "backbone": "dropout", "benchmark": "scenario"}.get(
        group, "ewc.strength"
    )


def check_metrics(header: Any, configs: Iterable[Any], where: str) -> None:
    """Refuses a metric that no run of the table can have: its column would be empty.

    Args:
        header: the experiment file, an `experiment.Header`.
        configs: of all rows.
        where: the file.

    Raises:
        UserError: one sentence.
    """
    possible = set().union(*(families.possible_metrics(config) for config in configs))
    for metric in header.metrics:
        if metric not in possible:
            hint = schema.nearest(metric, sorted(possible))
            raise UserError(
                f"{where}: 'metrics' names '{metric}', which no run of this table has; {hint}"
            )


def check_published(header: Any, rows: set[tuple[str, str]], where: str) -> None:
    """Refuses a published number for a row that the table lacks: it would vanish silently.

    Args:
        header: the experiment file, an `experiment.Header`.
        rows: method and setting of every row.
        where: the file.

    Raises:
        UserError: one sentence.
    """
    known = families.protocol(header.family).METRICS
    for block in header.published:
        try:
            check_unit(block)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if block.metric not in known:
            hint = schema.nearest(block.metric, known)
            raise UserError(f"{where}: unknown metric '{block.metric}' in 'published'; {hint}")
        for row in block.rows:
            if row.method not in header.methods:
                hint = schema.nearest(row.method, header.methods)
                raise UserError(f"{where}: 'published' names method '{row.method}'; {hint}")
            if (
                row.setting
                and row.setting not in header.settings
                and not any((row.method, row.setting) == known_row for known_row in rows)
            ):
                hint = schema.nearest(row.setting, header.settings)
                raise UserError(f"{where}: 'published' names setting '{row.setting}'; {hint}")
