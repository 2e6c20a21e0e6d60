"""This process: its name for the others that share its files, the cores it may use, and its imports.

Imports nothing heavy: `spleen train --help` must be instant.
"""

import gc
import math
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from spleen.system.memory import CONTROL_GROUPS, MEMBERSHIP, own_groups

_SAME_START_SECONDS = 10.0  # the clock may have been set since


def this_process() -> str:
    """Host, process id and start of this process."""
    process = psutil.Process()
    return f"{socket.gethostname()} {os.getpid()} {process.create_time()}"


def is_alive(process: str) -> bool | None:
    """Whether a process named by `this_process` is alive; None for one of another machine."""
    try:
        host, pid, started = process.split(" ")
        if host != socket.gethostname():
            return None
        return abs(psutil.Process(int(pid)).create_time() - float(started)) < _SAME_START_SECONDS
    except psutil.NoSuchProcess:
        return False
    except ValueError:
        return None


def usable_cores(groups: Path = CONTROL_GROUPS, membership: Path = MEMBERSHIP) -> int:
    """Number of cores that this process may use: those it may run on, or the CPU quota of its container, if less.

    A fraction of a core counts as one. `groups` is the mount point of Linux control groups; `membership` lists the
    groups of this process.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota(folder, version) for folder, version in own_groups("cpu", groups, membership)]
    return min([cores, *(math.ceil(quota) for quota in quotas if quota is not None)])


def _quota(group: Path, version: int) -> float | None:
    """CPU time per time, in cores, that a group may use; None if it does not exist or has no quota.

    https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), https://docs.kernel.org/scheduler/sched-bwc.html
    """
    names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    try:
        quota, period = map(int, " ".join((group / name).read_text(encoding="utf-8") for name in names).split())
    except (OSError, ValueError):  # "max" in version 2
        return None
    return quota / period if quota > 0 and period > 0 else None  # -1 in version 1


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's collector of reference cycles while PyTorch and Lightning are imported.

    They create 700,000 objects and hardly any garbage: looking for it would take a fifth of the time.
    What the first import has created stays exempt: it lives as long as the process.
    """
    was_enabled, is_first = gc.isenabled(), "torch" not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if is_first and "torch" in sys.modules:
            gc.freeze()
        if was_enabled:
            gc.enable()
