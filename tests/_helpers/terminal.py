"""A real terminal in place of standard error."""

import os
import pty
import sys
import termios
from collections.abc import Callable
from contextlib import suppress

import pytest


def on_terminal(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object], columns: int) -> str:
    """Everything a terminal of this width receives on standard error while `work` runs."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, columns))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        work()
        monkeypatch.undo()
    seen = b""
    with suppress(OSError):  # the other end is closed
        while part := os.read(ours, 4096):
            seen += part
    os.close(ours)
    return seen.decode()
