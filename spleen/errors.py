"""Exceptions, and the check of a choice. InputError: invalid input, as opposed to a bug in this program."""

from collections.abc import Collection


class InputError(Exception):
    """Invalid input, with a message for the user: what was given, what is allowed, what to do.

    The entry points print only the message and exit with code 2; any other exception is a bug.
    """


def check_choice(name: str, value: object, allowed: Collection[object]) -> None:
    """Raise InputError unless the value is one of those allowed."""
    if value not in tuple(allowed):  # a mapping would need to hash it
        raise InputError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}")


class Pruned(Exception):
    """A search stopped this run: its validation Dice is below the median of the other runs after the same epoch."""


class FolderInUse(InputError):
    """Another process is using the run folder."""


class Interrupted(BaseException):
    """A signal stopped the run; the message states where. `exit_code` is 130 after SIGINT and 143 after SIGTERM.

    Like KeyboardInterrupt it is not an Exception, so that error handlers do not catch it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[str, int]]:
        """Pickle both arguments: a worker process may pass it to its parent."""
        return type(self), (str(self), self.exit_code)
