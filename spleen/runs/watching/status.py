"""What a run is doing, from the files of its folder."""

import csv
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spleen.records.folder import RunFolder, read_summary
from spleen.records.progress import SECONDS_BETWEEN_SIGNS, RunProgress, read_progress
from spleen.records.reading import BrokenRunError, FinishedRun, OtherRun, read_run, read_settings
from spleen.system.locks import is_claimed
from spleen.system.process import is_alive

Status = Literal["running", "stale", "failed", "broken", "stopped", "pruned", "finished"]

STALE_SECONDS = 10 * SECONDS_BETWEEN_SIGNS
"""A process of another machine that has written nothing for so long may be dead."""


@dataclass(frozen=True)
class WatchedRun:
    """A run as its folder shows it; what is not known is None or NaN."""

    folder: Path
    status: Status
    doing: str
    """Of a running one."""
    reason: str
    """Why it failed or cannot be read."""
    epochs_done: int
    epochs: int | None
    step: int | None
    steps: int | None
    loss: float
    val_dice: tuple[float, ...]
    """Of each epoch, NaN where it was not validated."""
    slices_per_second: float | None
    seconds_left: float | None
    """Of the training of a running one."""
    wall_seconds: float | None
    """Of a finished one."""
    sign_of_life: float | None
    """When its process last wrote a file, in seconds since the epoch, by the clock of the file system."""
    moved_at: float | None
    """When it last got on, by the clock of its machine."""

    @property
    def last_dice(self) -> float:
        """The newest validation Dice."""
        return next((score for score in reversed(self.val_dice) if not math.isnan(score)), math.nan)

    @property
    def best_dice(self) -> float:
        """The highest validation Dice."""
        return max((score for score in self.val_dice if not math.isnan(score)), default=math.nan)


def read_watched(folder: Path, now: float) -> tuple[WatchedRun, FinishedRun | None]:
    """The state of a run at the time `now`, in seconds since the epoch; its results if it is finished."""
    files = RunFolder(folder)
    progress, written = read_progress(files.progress), _modified(files.progress)
    record = read_run(folder)
    summary = read_summary(folder)
    sign = written or _newest(
        files.config, files.metrics, files.last_checkpoint, files.failure, files.cases, files.summary
    )
    status, reason = _status(folder, record, summary, progress, now - (sign or 0.0))
    rows: list[Mapping[str, str]] = []
    try:
        rows = _rows(files.metrics)
    except (OSError, ValueError, csv.Error) as error:
        status, reason = (status, reason) if status == "finished" else ("broken", f"{files.metrics.name}: {error}")
    is_running = status in ("running", "stale") and progress is not None
    left = progress.seconds_left if is_running and progress is not None else None
    watched = WatchedRun(
        folder=folder,
        status=status,
        doing=progress.doing if is_running and progress is not None else "",
        reason=reason,
        epochs_done=len(rows),
        epochs=_epochs(files.config),
        step=progress.step if is_running and progress is not None else None,
        steps=progress.steps if is_running and progress is not None else None,
        loss=_number(rows[-1], "train/loss") if rows else math.nan,
        val_dice=tuple(_number(row, "val/dice") for row in rows),
        slices_per_second=_rate(progress if is_running else None, summary),
        seconds_left=max(0.0, left - max(0.0, now - (written or now))) if left is not None else None,
        wall_seconds=record.wall_seconds if isinstance(record, FinishedRun) else None,
        sign_of_life=sign,
        moved_at=progress.moved_at if is_running and progress is not None else None,
    )
    return watched, record if isinstance(record, FinishedRun) else None


def _status(
    folder: Path,
    record: FinishedRun | OtherRun,
    summary: Mapping[str, object],
    progress: RunProgress | None,
    silent_seconds: float,
) -> tuple[Status, str]:
    """A lock or a live process of this machine is certain; of another machine only the time of its file is known."""
    if isinstance(record, FinishedRun):
        return "finished", ""
    if summary.get("status") == "pruned":
        return "pruned", ""
    alive = None if progress is None else is_alive(progress.process)
    if alive or _is_claimed(folder):
        return "running", ""
    if progress is not None and alive is None:
        return ("running" if silent_seconds <= STALE_SECONDS else "stale"), ""
    if record.state in ("failed", "broken"):
        return ("failed" if record.state == "failed" else "broken"), record.reason
    return "stopped", ""


def _is_claimed(folder: Path) -> bool:
    with suppress(OSError):  # reading the run reports it
        return is_claimed(folder)
    return False


def _rows(path: Path) -> list[Mapping[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _number(row: Mapping[str, str], name: str) -> float:
    with suppress(ValueError):
        if math.isfinite(value := float(row.get(name) or math.nan)):
            return value
    return math.nan


def _epochs(config: Path) -> int | None:
    with suppress(BrokenRunError, OSError):
        settings = read_settings(config)
        epochs = settings.get("epochs")
        return epochs if isinstance(epochs, int) and settings.get("max_minutes") is None else None
    return None


def _rate(progress: RunProgress | None, summary: Mapping[str, object]) -> float | None:
    if progress is not None:
        return progress.slices_per_second
    train = summary.get("train")
    rate = train.get("slices_per_second") if isinstance(train, Mapping) else None
    return rate if isinstance(rate, float) else None


def _modified(path: Path) -> float | None:
    with suppress(OSError):
        return path.stat().st_mtime
    return None


def _newest(*paths: Path) -> float | None:
    times: Sequence[float] = [time for path in paths if (time := _modified(path)) is not None]
    return max(times, default=None)
