"""The one exception that stands for a wrong input, as opposed to a fault of this program."""


class InputError(Exception):
    """A wrong input, told in words for its user: what came, what is allowed, what to do.

    The entry points print the message alone and exit with code 2; any other exception is a fault of the program.
    """


class Pruned(Exception):
    """A search stopped this run: its validation Dice lies below that of most others after the same epoch."""


class FolderInUse(InputError):
    """Another process is at work in the run folder; what that process makes of it is not known yet."""
