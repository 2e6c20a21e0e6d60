"""What is shown of work that takes a while: a progress bar, a status line, or one line before a long step.

Bar and status line are silent where standard error is no terminal.
"""

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Never

from rich.cells import cell_len, set_cell_size
from tqdm import tqdm

from spleen.system.terminal import printable_name, styled


class ProgressBar:
    """A bar on standard error; `unit` is what it counts, and "B" is written as kB, MB and GB.

    It serves one task after the other and vanishes with each of them, unless `leave`. `check` is called at each step:
    that of a `StopRequest` raises a stop again that a callback or a finaliser has swallowed.
    """

    def __init__(self, unit: str, leave: bool = False, check: Callable[[], None] | None = None) -> None:
        self._unit, self._leave, self._check = unit, leave, check
        self._task: str | None = None
        self._bar: tqdm[Never] | None = None

    @property
    def is_visible(self) -> bool:
        """Whether a task has begun, and someone can see it move."""
        return self._bar is not None and not self._bar.disable

    def start(self, task: str, total: int | None, done: int = 0) -> "tqdm[Never]":
        """Begin a task, of which `done` was done before."""
        self.close()
        self._task = task
        self._bar = tqdm(
            desc=printable_name(task),
            file=styled(sys.stderr),
            total=total,
            initial=done,
            unit=self._unit,
            unit_scale=self._unit == "B",
            leave=self._leave,
            dynamic_ncols=True,
            disable=None,  # without a terminal
        )
        return self._bar

    def reach(self, task: str, done: int, total: int | None) -> bool:
        """Show how far a task is, beginning it if another one was at work; True if so."""
        if self._check is not None:
            self._check()
        if self._bar is None or task != self._task:
            self.start(task, total, done)
            return True
        if self.is_visible:
            self._bar.total = total
            self._bar.update(done - self._bar.n)
        return False

    def advance(self, task: str, steps: int, total: int | None) -> None:
        """Count steps of a task, beginning it if another one was at work."""
        if self._check is not None:
            self._check()
        bar = self._bar if self._bar is not None and task == self._task else self.start(task, total)
        bar.update(steps)

    def name_case(self, number: int, n_cases: int, case_id: str) -> None:
        """Show which of several cases, counted from 0, is at work."""
        self.reach("cases", number, n_cases)
        self.note(case_id[:60])

    def note(self, description: str, behind: str = "") -> None:
        """Write another text before the bar, and one behind it."""
        if self._bar is not None and not self._bar.disable:
            self._bar.set_postfix_str(printable_name(behind), refresh=False)
            self._bar.set_description(printable_name(description))

    def close(self) -> None:
        """End the task."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class StatusLine:
    """A line on standard error that is rewritten in place, without being erased in between."""

    def __init__(self) -> None:
        self.is_visible = bool(sys.stderr is not None and sys.stderr.isatty())
        """Whether someone can see it."""
        self._shown = 0

    def show(self, versions: Sequence[str]) -> None:
        """Show the first of the versions, longest first, that the terminal has room for, or the start of the last."""
        if not self.is_visible:
            return
        room = _columns_of_standard_error() - 1  # a full line would wrap
        fitting = next((version for version in versions if cell_len(version) <= room), versions[-1])
        text = (
            set_cell_size(printable_name(fitting), min(max(cell_len(fitting), self._shown), room)) if room > 0 else ""
        )
        self._shown = cell_len(text.rstrip())
        styled(sys.stderr).write(f"\r{text}")
        sys.stderr.flush()

    def close(self) -> None:
        """Leave the line as it is and go on below it."""
        if self._shown:
            print(file=sys.stderr, flush=True)
        self._shown = 0


def _columns_of_standard_error() -> int:
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return columns or shutil.get_terminal_size().columns


@contextmanager
def announced(doing: str, after_seconds: float = 1.0) -> Iterator[None]:
    """Print one line, such as "loading PyTorch …", if the block takes longer than `after_seconds`."""
    timer = threading.Timer(after_seconds, lambda: print(f"{doing} …", flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
