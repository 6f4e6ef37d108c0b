"""What watches a run: the log of its losses, its checkpoints, its progress."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlresearch.files import append_text, write_text_atomic
from tlresearch.training import checkpoint
from tlresearch.training.device import peak_memory
from tlresearch.training.loop import Training
from tlresearch.training.method import Loss

LOG_EVERY = 100
"""Steps between two lines of metrics.jsonl."""

CHECKPOINT_SECONDS = 60.0
"""Seconds between two checkpoints; resume is exact from any of them."""


@dataclass
class RunFiles:
    """Where a stack's run keeps what it needs while it is under way."""

    checkpoint: Path
    log: Path
    trained: Path | None = None
    """Folder of trainings that several runs share; None: nothing is shared."""
    trained_since: float = 0.0
    """Trainings kept before this time (seconds since the epoch) are made again."""

    @property
    def lock(self) -> Path:
        """What the process claims that runs the stack."""
        return self.checkpoint.with_name("lock")

    def log_lines_before(self, stage: int, step: int) -> None:
        """Drops log lines from (stage, step) on: a resumed run writes them again."""
        if not self.log.exists():
            return
        lines = self.log.read_text(errors="replace").splitlines()
        kept = [line for line in lines if _place_of(line) < (stage, step)]
        write_text_atomic(self.log, "".join(line + "\n" for line in kept))


def _place_of(line: str) -> tuple[float, float]:
    """(stage, step) of a log line; a line cut short by a crash counts as the very last."""
    try:
        entry = json.loads(line)
        return entry["stage"], entry["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf"), float("inf")


@dataclass
class RunObserver:
    """Logs, saves and reports while the stages of one stack train."""

    training: Training
    files: RunFiles
    place: Callable[[int], dict[str, Any]]
    """The protocol's place when `step` is the next step."""
    progress: Callable[[int], None] = lambda steps: None
    """Told how many steps of the stack were done since it was last told."""
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    stage: int = 0
    """Which stage trains now, for the log."""
    track: Callable[[dict[str, Any]], None] = lambda entry: None
    """Told of each line of the log."""
    samples: int | None = None
    """Of a seed's pass; None: `train.batch_size`."""
    _last_save: float = field(default_factory=time.monotonic)
    _last_log: float = field(default_factory=time.monotonic)
    _unreported: int = 0
    _unlogged: int = 0

    def after_step(self, step: int, loss: Loss) -> None:
        """Every so many steps a log line and progress, every so many seconds a checkpoint."""
        self._unreported += 1
        self._unlogged += 1
        if step % LOG_EVERY == 0:
            self._log(step, loss)
        if self._unreported >= 20:
            self.flush()
            self.save_if_due(step + 1)

    def flush(self) -> None:
        """Reports the steps not yet reported."""
        self.progress(self._unreported)
        self._unreported = 0

    def save_if_due(self, next_step: int) -> None:
        """Saves if the last checkpoint is old enough."""
        if time.monotonic() - self._last_save >= self.checkpoint_seconds:
            self.save(next_step)

    def save(self, next_step: int) -> None:
        """Writes a checkpoint from which `next_step` is the next."""
        checkpoint.save(self.files.checkpoint, self.training, self.place(next_step))
        self._last_save = time.monotonic()

    def _log(self, step: int, loss: Loss) -> None:
        entry: dict[str, Any] = {"stage": self.stage, "step": step, "seeds": self.training.seeds}
        named = {"loss": loss.total} | loss.terms
        entry |= {name: value.reshape(-1).tolist() for name, value in named.items()}
        entry |= self._costs()
        append_text(self.files.log, json.dumps(entry) + "\n")
        self.track(entry)

    def _costs(self) -> dict[str, float]:
        """Samples of all active seeds a second since the last line, and the peak of memory."""
        train, now = self.training.train, time.monotonic()
        each = (self.samples or train.batch_size) * train.accumulate
        samples = self._unlogged * each * sum(self.training.active)
        rate = samples / max(now - self._last_log, 1e-9)
        self._unlogged, self._last_log = 0, now
        device = next(iter(self.training.stack.params.values())).device
        return {"samples_per_second": round(rate, 1), "memory_bytes": peak_memory(device)}
