"""One process at a time in a folder."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from spleen.atomic import drop_leftovers
from spleen.errors import FolderInUse

# A killed process's data workers notice within 5 seconds that it is gone, and hold its claim until then.
_CLAIM_SECONDS = 10.0


@contextmanager
def claimed(folder: Path, patience_seconds: float = _CLAIM_SECONDS) -> Iterator[None]:
    """Hold a folder for this process, and clear it and those in it of what killed ones left half-written.

    The claim ends with the process, however that ends. Raises FolderInUse where another process works in the folder;
    a file system that knows no locks is taken as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder, patience_seconds) if os.name == "posix" else nullcontext():
        for place in (folder, *folder.glob("*/")):
            drop_leftovers(place)
        yield


def is_claimed(folder: Path) -> bool:
    """Whether a process holds the folder; False where the file system knows no locks."""
    if os.name != "posix" or not folder.is_dir():
        return False
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _lock(folder: Path, patience_seconds: float) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _wait_for_lock(descriptor, folder, patience_seconds)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, folder: Path, patience_seconds: float) -> None:
    import fcntl  # not on every system

    until = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise FolderInUse(f"another process is at work in {folder}; wait for it or stop it") from None
            time.sleep(0.2)
        except OSError:
            return
