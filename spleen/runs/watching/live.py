"""A live view of runs on the terminal."""

import sys
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from spleen.errors import InputError
from spleen.runs.naming import followed
from spleen.runs.watching.study import Watcher
from spleen.runs.watching.view import to_text
from spleen.system.terminal import styled

_FASTEST, _SLOWEST = 0.2, 86_400.0
_LOG_WIDTH = 160


def watch(folder: Path, every_seconds: float, once: bool) -> None:
    """Show the runs of a folder until nothing can change any more; without a terminal, or with `once`, only now.

    Raises InputError for a folder without runs.
    """
    if not _FASTEST <= every_seconds <= _SLOWEST:  # also refuses NaN
        raise InputError(f"--every must be {_FASTEST:g} to {_SLOWEST:g} seconds; got {every_seconds:g}")
    watcher = Watcher(_run_or_study(folder))
    snapshot = watcher.look()
    console = Console(file=styled(sys.stdout), highlight=False)
    if once or not console.is_terminal or console.is_dumb_terminal:
        print(to_text(snapshot, width=None if console.is_terminal else _LOG_WIDTH))
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            if not snapshot.goes_on:
                live.update(Text(to_text(snapshot)), refresh=True)
                return
            # Text, because rich would read brackets in a string as markup. Cut lines, because wrapped ones scroll.
            live.update(Text(to_text(snapshot, height=console.height), no_wrap=True, overflow="ellipsis"), refresh=True)
            time.sleep(every_seconds)
            snapshot = watcher.look()


def _run_or_study(given: Path) -> Path:
    expected = "expected a run folder, or a folder of runs, such as outputs/latest or outputs/size_and_rate"
    folder = followed(given)
    if folder != given and not folder.is_dir():
        raise InputError(f"{given} points to {folder}, which does not exist; {expected}")
    if folder.is_file():
        raise InputError(f"{given} is a file; {expected}")
    if not folder.is_dir():
        raise InputError(f"{given}: no such folder; {expected}")
    return folder
