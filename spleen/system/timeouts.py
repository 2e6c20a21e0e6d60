"""Running a function with a timeout."""

import threading
from collections.abc import Callable


def run_with_timeout(seconds: float, action: Callable[[], object]) -> None:
    """Run `action` in a daemon thread. Raises TimeoutError if it is not done in time, else whatever it raises."""
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
