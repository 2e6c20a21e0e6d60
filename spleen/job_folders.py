"""What a run folder tells of its job: finished, failed, unfinished, at work, or not begun."""

import json
import os
from pathlib import Path
from typing import Literal

FAILURE_FILE, TRACEBACK_FILE = "failed.json", "traceback.txt"

State = Literal["finished", "pruned", "failed", "unfinished", "at work", "new"]


def is_finished(folder: Path, identity: str | None = None) -> bool:
    """Whether the folder holds a finished run; of this identity, if one is given."""
    summary = _read_summary(folder)
    return summary.get("status") == "finished" and identity in (None, summary.get("identity"))


def state_of(folder: Path, identity: str | None = None) -> State:
    """What became of a job so far. "unfinished" has begun, and its process is gone; "pruned" a search has stopped."""
    if is_finished(folder, identity):
        return "finished"
    if _read_summary(folder).get("status") == "pruned":
        return "pruned"
    if _is_claimed(folder):
        return "at work"
    if (folder / FAILURE_FILE).exists():
        return "failed"
    return "unfinished" if (folder / "config.yaml").exists() else "new"


def forget_failure(folder: Path) -> None:
    """Remove what an earlier attempt at the job has left to say about its failure."""
    for name in (FAILURE_FILE, TRACEBACK_FILE):
        (folder / name).unlink(missing_ok=True)


def _read_summary(folder: Path) -> dict[str, object]:
    """summary.json, empty where there is none or a damaged one."""
    try:
        summary = json.loads((folder / "summary.json").read_text())
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def _is_claimed(folder: Path) -> bool:
    """Whether a process is at work in a run folder, by the lock that it holds (spleen.claim)."""
    if os.name != "posix" or not folder.is_dir():
        return False
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system that knows no locks
        return False
    finally:
        os.close(descriptor)
    return False
