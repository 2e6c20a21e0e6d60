"""SIGINT (Ctrl-C) and SIGTERM (a scheduler, a shutdown): stop where nothing is lost, with the usual exit code."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_STANDARD_ERROR = 2


class Interrupted(BaseException):
    """A signal stopped the run. str() says where; `exit_code` is 130 after SIGINT and 143 after SIGTERM.

    Like KeyboardInterrupt it is no Exception, so that nothing which catches failures takes it for one.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[str, int]]:
        """Pickled by both arguments: a worker process may hand it to the one that started it."""
        return type(self), (str(self), self.exit_code)


class StopRequest:
    """Whether a signal has asked to stop, and where the run is.

    A signal raises Interrupted at once; inside `patiently` it waits for the next `check`. The second SIGINT ends the
    process on the spot, which is safe too: files appear by renaming.
    """

    def __init__(self) -> None:
        self.where = "before the training"
        """Completes the sentence "stopped …"."""
        self._asked: signal.Signals | None = None
        self._patient = False
        self._process = os.getpid()

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self._asked is not None:
            raise Interrupted(f"stopped {self.where} by {self._asked.name}", 128 + self._asked)

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """Let a signal that comes inside the block wait for the next `check`; the end of the block is one."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False
        self.check()

    def receive(self, number: int, _: FrameType | None) -> None:
        """The handler of both signals."""
        if os.getpid() != self._process:
            return  # Ctrl-C reaches data workers too; they serve until our process stops
        if self._asked is not None:
            if number == signal.SIGINT:
                _say("left at once")
                os._exit(128 + number)
            return
        self._asked = signal.Signals(number)
        if not self._patient:
            self.check()
        another = "another " if number == signal.SIGINT else ""
        _say(f"{self._asked.name}: stopping after this step; {another}Ctrl-C leaves at once")


def _say(text: str) -> None:
    # Not print(): the signal may have interrupted one, which holds the lock of the buffer.
    os.write(_STANDARD_ERROR, f"\n{text}\n".encode())


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn both signals into a request to stop; their former handlers come back at the end.

    Python allows handlers in the main thread alone; in another one nothing ever asks.
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
