"""SIGINT (Ctrl-C) and SIGTERM (a scheduler, a shutdown): stop at a safe point, with the usual exit code."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from spleen.errors import Interrupted

_STOPPING = (signal.SIGINT, signal.SIGTERM)


_STANDARD_ERROR = 2


class StopRequest:
    """Whether a signal has requested a stop, and where the run is.

    A signal raises Interrupted immediately; inside `deferred` it is deferred to the next `check`. A second SIGINT ends
    the process immediately, which is also safe because files are written atomically.
    """

    def __init__(self) -> None:
        self.position = "before the training"
        """Completes the sentence "stopped …"."""
        self._asked: signal.Signals | None = None
        self._patient = False
        self._process = os.getpid()

    def check(self) -> None:
        """Raise Interrupted if a signal was received."""
        if self._asked is not None:
            raise Interrupted(f"stopped {self.position} by {self._asked.name}", 128 + self._asked)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer signals inside the block to the next `check`; the end of the block is one."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False
        self.check()

    def receive(self, number: int, _: FrameType | None) -> None:
        """The handler of both signals."""
        if os.getpid() != self._process:
            return  # Ctrl-C also reaches data workers; they keep serving until the main process stops
        if self._asked is not None:
            if number == signal.SIGINT:
                _print("stopped immediately")
                os._exit(128 + number)
            return
        self._asked = signal.Signals(number)
        if not self._patient:
            self.check()
        another = "another " if number == signal.SIGINT else ""
        _print(f"{self._asked.name}: stopping after this step; {another}Ctrl-C stops immediately")


def _print(text: str) -> None:
    # Not print(): the signal may have interrupted a print that holds the buffer lock.
    os.write(_STANDARD_ERROR, f"\n{text}\n".encode())


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn both signals into a stop request; the previous handlers are restored at the end.

    Python allows signal handlers only in the main thread; in other threads a stop is never requested.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.receive) for number in _STOPPING}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
