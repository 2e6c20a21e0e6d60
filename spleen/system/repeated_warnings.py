"""One line for the same warning about many files."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from spleen.system.text import shortened

_SHOWN = 3


@contextmanager
def folded_warnings(logger_name: str) -> Iterator[None]:
    """Hold back the warnings of a logger until the end of the block, and then give each kind once.

    Warnings are of one kind if they differ only in their first argument, the file.
    """
    logger = logging.getLogger(logger_name)
    held: dict[tuple[object, ...], list[logging.LogRecord]] = {}

    def hold(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or not isinstance(record.args, tuple) or not record.args:
            return True
        held.setdefault((record.msg, *map(str, record.args[1:])), []).append(record)
        return False

    logger.addFilter(hold)
    try:
        yield
    finally:
        logger.removeFilter(hold)
        for first, *others in held.values():
            if files := [str(each.args[0]) for each in others if isinstance(each.args, tuple)]:
                first.msg = f"{first.getMessage()} (the same in {len(files)} more: {shortened(files, _SHOWN)})"
                first.args = ()
            logger.handle(first)
