"""The one exception that stands for a wrong input, as opposed to a fault of this program."""


class InputError(Exception):
    """A wrong input, told in words for its user: what came, what is allowed, what to do.

    The entry points print the message alone and exit with code 2; any other exception is a fault of the program.
    """
