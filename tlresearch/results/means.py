"""The mean over the settings of a table, seed by seed, as a further setting.

Papers on many pairs of domains print one: the mean over pairs of each run, so that its interval is
over seeds, as everywhere here.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence

from tlresearch.results.published import Published, PublishedRow
from tlresearch.results.store import Record


def mean_records(
    records: Iterable[Record],
    settings: Sequence[str],
    label: str,
    source_of: Callable[[Record], str],
) -> list[Record]:
    """A record for each method and seed that has one in every setting.

    Its metrics are means over the settings; undefined (null) where one of them is. It has failed if
    one of them has.

    Args:
        records: of the table.
        settings: which are averaged.
        label: of the new setting.
        source_of: the source that counts for a record, equal for those that are not stale.
    """
    found: dict[tuple[str, int], dict[str, Record]] = {}
    for record in records:
        if record["setting"] in settings:
            by_setting = found.setdefault((record["method"], record["seed"]), {})
            by_setting[record["setting"]] = record
    return [
        _mean([by_setting[s] for s in settings], label, source_of)
        for by_setting in found.values()
        if len(by_setting) == len(settings)
    ]


def _mean(records: list[Record], label: str, source_of: Callable[[Record], str]) -> Record:
    failed = next((r for r in records if r["status"] != "finished"), None)
    sources = sorted({source_of(record) for record in records})
    made = {**records[0], "setting": label, "arrays": {}, "details": {}, "source": sources[-1]}
    if len(sources) > 1:
        made["source"] = " ".join(sources)
    if failed is not None:
        return made | {"status": "failed", "reason": failed["reason"], "metrics": {}}
    names = records[0]["metrics"].keys()
    columns = {name: [record["metrics"].get(name) for record in records] for name in names}
    means = {k: None if None in v else statistics.fmean(v) for k, v in columns.items()}
    return made | {"metrics": means}


def with_means(
    published: Iterable[Published], settings: Sequence[str], label: str
) -> list[Published]:
    """The blocks, each with the mean of a method's numbers where it has one for every setting.

    Its spread is not known. Its status is theirs if they have one, else `recalled`.
    """
    made = []
    for block in published:
        rows = list(block.rows)
        for method in dict.fromkeys(row.method for row in block.rows):
            own = {row.setting: row for row in block.rows if row.method == method}
            if set(settings) <= own.keys():
                rows.append(_mean_row([own[s] for s in settings], label))
        made.append(dataclasses.replace(block, rows=rows))
    return made


def _mean_row(rows: list[PublishedRow], label: str) -> PublishedRow:
    statuses = {row.status for row in rows}
    return PublishedRow(
        method=rows[0].method,
        value=statistics.fmean(row.value for row in rows),
        setting=label,
        status=rows[0].status if len(statuses) == 1 else "recalled",
        source=rows[0].source,
        chance=rows[0].chance,
    )
