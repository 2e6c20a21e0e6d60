"""Locks of folders and of shared files: one process at a time."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from spleen.errors import FolderInUse
from spleen.system.files import remove_temporary

# Data workers of a killed process hold its lock until they notice, within 5 seconds.
_CLAIM_SECONDS = 10.0
# A shared table is written in milliseconds, but many processes may be waiting for it.
_TABLE_SECONDS = 120.0


@contextmanager
def folder_lock(folder: Path, timeout_seconds: float = _CLAIM_SECONDS) -> Iterator[None]:
    """Lock a folder for this process, and remove half-written files of killed ones in it and its subfolders.

    The lock is released when the process ends, however it ends. Raises FolderInUse if another process holds the lock.
    File systems without locks are used unlocked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder, timeout_seconds) if os.name == "posix" else nullcontext():
        for place in (folder, *folder.glob("*/")):
            remove_temporary(place)
        yield


@contextmanager
def file_lock(path: Path, timeout_seconds: float = _TABLE_SECONDS) -> Iterator[None]:
    """Lock a file that several processes read, change and replace, such as a table with a row for each of their cases.

    The lock is on the file itself, which must exist, so it leaves nothing behind.
    Raises FolderInUse if another process holds the lock. File systems without locks are used unlocked.
    """
    if os.name != "posix":
        yield
        return
    while True:
        descriptor = _open_shared(path)
        try:
            _wait_for_lock(descriptor, path, timeout_seconds)
            if not _is_at(descriptor, path):  # replaced by the process that held the lock
                continue
            yield
            return
        finally:
            os.close(descriptor)


def _open_shared(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR)  # network file systems lock only what is open for writing
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def is_claimed(folder: Path) -> bool:
    """Whether a process holds the folder; False where the file system knows no locks."""
    if os.name != "posix" or not folder.is_dir():
        return False
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others may ask at the same moment
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _lock(folder: Path, timeout_seconds: float) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _wait_for_lock(descriptor, folder, timeout_seconds)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, place: Path, timeout_seconds: float) -> None:
    import fcntl  # POSIX only

    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise FolderInUse(f"another process is using {place}; wait for it or stop it") from None
            time.sleep(0.05)
        except OSError:
            return
