"""Locking of run folders: one process at a time."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from spleen.atomic import drop_leftovers
from spleen.errors import FolderInUse

# Data workers of a killed process hold its lock until they notice, within 5 seconds.
_CLAIM_SECONDS = 10.0


@contextmanager
def claimed(run_folder: Path, patience_seconds: float = _CLAIM_SECONDS) -> Iterator[None]:
    """Lock a run folder for this process, and remove half-written files of killed ones.

    The lock is released when the process ends, however it ends. Raises FolderInUse if another process holds the lock.
    File systems without locks are used unlocked.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    with _lock(run_folder, patience_seconds) if os.name == "posix" else nullcontext():
        for folder in (run_folder, run_folder / "checkpoints", run_folder / "figures"):
            drop_leftovers(folder)
        yield


@contextmanager
def _lock(run_folder: Path, patience_seconds: float) -> Iterator[None]:
    descriptor = os.open(run_folder, os.O_RDONLY)
    try:
        _wait_for_lock(descriptor, run_folder, patience_seconds)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, run_folder: Path, patience_seconds: float) -> None:
    import fcntl  # POSIX only

    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise FolderInUse(f"another process is using {run_folder}; wait for it or stop it") from None
            time.sleep(0.2)
        except OSError:
            return
