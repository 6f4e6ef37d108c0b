"""What a teacher says of every sample of a transfer set, asked once and read from then on.

One folder for each view, named by a digest of the teacher (state and architecture), the data's
fingerprint, the view, the type, the taps and the chunk (`LiveTeacher.facts`); see `cache_files`.
The bits are those of the live teacher: both evaluate rows in chunks of one size, and each row in
the same place of its chunk where that matters; see `live_teacher`. When a cache is opened one chunk
of samples, from all over the set and so among other neighbours than when they were written, is
asked again, logits and features. That shows an edit of the teacher's code, which its digest cannot
know of, and where the last digits are others, as on another machine.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tlresearch.data.sources import cache_folder
from tlresearch.distillation import cache_files
from tlresearch.distillation.frozen_teacher import Outputs
from tlresearch.distillation.live_teacher import LiveTeacher, Teacher
from tlresearch.errors import UserError, notice

ROUNDING = 1e-2
"""Of a table's largest magnitude: answers that differ by more are not of the same function."""

_LOGITS = ""
"""Their name among the tables, the others' being paths, which are never empty."""


class CachedTeacher:
    """Answers from memory maps, or from a device's memory; see `Teacher`."""

    def __init__(self, tables: Sequence[dict[str, Tensor]]) -> None:
        """Takes the tables of each view: logits, and features by path."""
        self.tables = list(tables)

    def outputs(self, indices: Int64[Tensor, "*batch"], view: int | Tensor = 0) -> Outputs:
        """See `Teacher`."""
        paths = [name for name in self.tables[0] if name != _LOGITS]
        features = {path: self._rows(path, indices, view) for path in paths}
        return Outputs(self.logits(indices, view), features)

    def logits(
        self, indices: Int64[Tensor, "*batch"], view: int | Tensor = 0
    ) -> Float[Tensor, "*batch classes"]:
        """See `Teacher`."""
        return self._rows(_LOGITS, indices, view)

    def _rows(self, name: str, indices: Tensor, view: int | Tensor) -> Tensor:
        if isinstance(view, int):
            return _gather(self.tables[view][name], indices)
        rows = _gather(self.tables[0][name], indices)
        for k, table in enumerate(self.tables[1:], 1):
            chosen = (view == k).view(*view.shape, *(1,) * (rows.ndim - view.ndim))
            rows = torch.where(chosen, _gather(table[name], indices), rows)
        return rows

    def to(self, device: torch.device | str) -> "CachedTeacher":
        """The same answers in a device's memory, all of them; on the CPU as they are."""
        return CachedTeacher(
            [{name: table.to(device) for name, table in view.items()} for view in self.tables]
        )


def _gather(table: Tensor, indices: Tensor) -> Tensor:
    return table.index_select(0, indices.flatten()).view(*indices.shape, *table.shape[1:])


def kept(live: LiveTeacher, root: Path | None = None) -> Teacher:
    """The cache of a teacher's answers, made if it is not there yet.

    Args:
        live: the teacher that is asked where the cache has to be made, and for one chunk in any
            case.
        root: folder of caches; None: the user's cache folder.

    Returns:
        A `CachedTeacher` on the device of the samples; where the folder cannot be written `live`
        itself, which answers the same, and a notice.

    Raises:
        UserError: a file of the cache is damaged, or it is of other code.
    """
    root = root or cache_folder() / "teachers"
    views = range(live.views.count)
    try:
        folders = [
            cache_files.make(root, live.facts(view), _parts(live, view), _made_with(live))
            for view in views
        ]
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        notice(f"{str(error).rstrip('.')}; until then the teacher is asked at every step.")
        return live
    return open_cache(live, folders)


def open_cache(live: LiveTeacher, folders: Sequence[Path]) -> CachedTeacher:
    """The cache that lies in these folders, one for each view, on the device of the samples.

    Raises:
        UserError: it is of another teacher, data set, view, type, chunk or list of taps; a file
            of it is missing or damaged; or it is of other code.
    """
    tables = [cache_files.read(f, live.facts(view)) for view, f in enumerate(folders)]
    if len(tables) != live.views.count:
        raise UserError(f"{len(tables)} folders were given for {live.views.count} views.")
    cached = CachedTeacher(tables).to(live.views.samples.device)
    _ask_again(live, cached, folders)
    return cached


def _parts(live: LiveTeacher, view: int) -> Iterator[dict[str, Tensor]]:
    """All rows in order, each in its place."""
    samples = live.views.samples
    for indices in torch.arange(len(samples), device=samples.device).split(live.chunk):
        yield _tables(live.in_places(indices, view, live.taps))


def _tables(said: Outputs) -> dict[str, Tensor]:
    return {_LOGITS: said.logits} | said.features


def _ask_again(live: LiveTeacher, cached: CachedTeacher, folders: Sequence[Path]) -> None:
    """Compares one chunk in each view, from all over the set, each row in its place."""
    samples = live.views.samples
    places = torch.arange(min(live.chunk, len(samples)), device=samples.device)
    spread = places + live.chunk * (places % -(-len(samples) // live.chunk))
    indices = torch.where(spread < len(samples), spread, places)
    for view, folder in enumerate(folders):
        asked = _tables(live.in_places(indices, view, live.taps))
        _compare(folder, asked, _tables(cached.outputs(indices, view)))


def _compare(folder: Path, asked: dict[str, Tensor], read: dict[str, Tensor]) -> None:
    """Refuses a table of another function; of other last digits it tells once."""
    gaps = {}
    for name, now in asked.items():
        if torch.equal(now, read[name]):
            continue
        what = f"outputs of {name!r}" if name else "logits"
        if now.shape != read[name].shape:
            raise _other_code(folder, what, f"have the shape {tuple(now.shape[1:])} now")
        gaps[what] = (now - read[name]).abs().max().item()
        if not gaps[what] <= ROUNDING * now.abs().max().item():
            raise _other_code(folder, what, f"differ by {gaps[what]:.3g}")
    if gaps:
        told = ", ".join(f"{what} by up to {gap:.1g}" for what, gap in gaps.items())
        notice(
            f"{folder} and this teacher differ in last digits, {told}, so that a student is not "
            "the same to the bit with both: it was made on another machine, by another number of "
            "threads or version, or an answer depends on the other rows of its chunk."
        )


def _other_code(folder: Path, what: str, how: str) -> UserError:
    return UserError(
        f"{folder} was made by other code, or an answer depends on the other rows of its chunk: "
        f"the same teacher's {what} {how}; delete the folder, and the next run makes it again, or "
        "set cache: false."
    )


def _made_with(live: LiveTeacher) -> dict[str, Any]:
    device = live.views.samples.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"torch": torch.__version__, "device": name, "threads": torch.get_num_threads()}
