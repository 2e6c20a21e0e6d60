"""The one exception that stands for a wrong input, as opposed to a fault of this program."""


class InputError(Exception):
    """A wrong input, told in words for its user: what came, what is allowed, what to do.

    The entry points print the message alone and exit with code 2; any other exception is a fault of the program.
    """


class Pruned(Exception):
    """A search stopped this run: its validation Dice lies below that of most others after the same epoch."""


class FolderInUse(InputError):
    """Another process is at work in the run folder; what that process makes of it is not known yet."""


class Interrupted(BaseException):
    """A signal stopped the run; the message says where. `exit_code` is 130 after SIGINT and 143 after SIGTERM.

    Like KeyboardInterrupt it is not an Exception, so that handlers of failures do not catch it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[str, int]]:
        """Pickle both arguments: a worker process may pass it to its parent."""
        return type(self), (str(self), self.exit_code)
