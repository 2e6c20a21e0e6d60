"""Waiting for something that may never end."""

import threading
from collections.abc import Callable


def within(seconds: float, action: Callable[[], object]) -> None:
    """Do something that may never end. Raises TimeoutError if it has not ended by then, else whatever it raises."""
    failures: list[BaseException] = []

    def attempt() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s")
    if failures:
        raise failures[0]
