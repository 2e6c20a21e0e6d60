"""What a running process says of its run, in progress.json, for those who only see the run folder.

The file exists from the start of the process to its end, whether good or bad; only a process that was killed leaves it
behind. It is written again every half minute at least, so that its time is a sign of life.
"""

import json
import math
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from spleen.system.files import write_volatile
from spleen.system.process import this_process

SECONDS_BETWEEN_SIGNS = 30.0
_SECONDS_BETWEEN_CHANGES = 5.0


@dataclass(frozen=True)
class RunProgress:
    """Where a run is. Steps are counted over the whole training, the rate over training without validation."""

    doing: str
    """One word: starting, preparing, compiling, training, validating, scoring or reporting."""
    process: str
    """Host, process id and start: see `this_process`."""
    moved_at: float
    """When the rest last changed, in seconds since the epoch."""
    step: int | None = None
    steps: int | None = None
    slices_per_second: float | None = None
    seconds_left: float | None = None
    """Of the training, at the time of writing; None before it can be estimated."""


class ProgressFile:
    """Keeps progress.json up to date from a thread, so that the training never waits for a file system.

    A failure to write it is ignored: it must not cost a run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._progress = RunProgress("starting", this_process(), time.time())
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, daemon=True)

    def update(
        self,
        doing: str,
        step: int | None = None,
        steps: int | None = None,
        slices_per_second: float | None = None,
        seconds_left: float | None = None,
    ) -> None:
        """Change what is written within the next seconds."""
        process = self._progress.process
        self._progress = RunProgress(doing, process, time.time(), step, steps, slices_per_second, seconds_left)

    def begin(self, doing: str, seconds_left: float | None = None) -> None:
        """Begin something other than training, and write it at once."""
        self.update(doing, seconds_left=seconds_left)
        self._write(self._progress)

    def _keep_writing(self) -> None:
        written, written_at = self._progress, time.monotonic()
        while not self._ended.wait(_SECONDS_BETWEEN_CHANGES):
            progress = self._progress
            if progress != written or time.monotonic() - written_at > SECONDS_BETWEEN_SIGNS - _SECONDS_BETWEEN_CHANGES:
                self._write(progress)
                written, written_at = progress, time.monotonic()

    def _write(self, progress: RunProgress) -> None:
        with suppress(OSError):
            write_volatile(self._path, json.dumps(asdict(progress)) + "\n")

    def __enter__(self) -> "ProgressFile":
        self._write(self._progress)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(_SECONDS_BETWEEN_CHANGES)  # a network disk may hang
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def read_progress(path: Path) -> RunProgress | None:
    """The content of progress.json; None if it is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
        step, steps = _number(content, "step"), _number(content, "steps")
        return RunProgress(
            doing=str(content["doing"]),
            process=str(content["process"]),
            moved_at=float(content["moved_at"]),
            step=None if step is None else int(step),
            steps=None if steps is None else int(steps),
            slices_per_second=_number(content, "slices_per_second"),
            seconds_left=_number(content, "seconds_left"),
        )
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None


def _number(content: Mapping[str, object], key: str) -> float | None:
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
