"""Files and folders that appear whole or not at all."""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ABANDONED_SECONDS = 24 * 60 * 60


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it, creating its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_sibling(path: Path) -> Path:
    """A name in the same folder that no other process uses; it keeps the suffixes of `path`."""
    return path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def _drop_abandoned(folder: Path) -> None:
    """Remove what killed processes left behind: temporary folders that are a day old."""
    for leftover in folder.glob(".tmp-*"):
        with suppress(OSError):  # another process may be removing it too
            if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(leftover)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an error.

    If another process has finished the same folder first, that one stays and ours is dropped.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_abandoned(path.parent)
    temporary = temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
